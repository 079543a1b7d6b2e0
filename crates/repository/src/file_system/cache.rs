//! What was read last, up to a sum of weights.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use crate::id::BlobId;

/// How many values are kept at most: a light one counts for as much as makes this many.
const VALUES_MAX: usize = 4096;

/// Values by blob, the least recently used of which go first.
pub(super) struct Cache<T> {
    weight_max: usize,
    weight: usize,
    clock: u64,
    values: HashMap<BlobId, Kept<T>, RandomState>,
}

struct Kept<T> {
    value: Arc<T>,
    weight: usize,
    used: u64,
}

impl<T> Cache<T> {
    pub(super) fn new(weight_max: usize) -> Self {
        Self { weight_max, weight: 0, clock: 0, values: HashMap::default() }
    }

    pub(super) fn get(&mut self, id: &BlobId) -> Option<Arc<T>> {
        self.clock += 1;
        let kept = self.values.get_mut(id)?;
        kept.used = self.clock;
        Some(kept.value.clone())
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Keeps a value, unless it is heavier than all may be together.
    pub(super) fn put(&mut self, id: BlobId, value: Arc<T>, weight: usize) {
        // Otherwise countless light ones would take more memory than they weigh.
        let weight = weight.max(self.weight_max / VALUES_MAX);
        if weight > self.weight_max || self.values.contains_key(&id) {
            return;
        }
        while self.weight + weight > self.weight_max {
            // Few are kept, as each is heavy: looking at all is cheaper than to keep an order.
            let oldest = self.values.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id);
            let Some(removed) = oldest.and_then(|id| self.values.remove(&id)) else { break };
            self.weight -= removed.weight;
        }
        self.clock += 1;
        self.weight += weight;
        self.values.insert(id, Kept { value, weight, used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_values_are_not_countless() {
        let mut cache = Cache::new(1 << 20);
        for n in 0..10_000_u32 {
            cache.put(BlobId::of(&n.to_le_bytes()), Arc::new(n), 1);
        }
        assert_eq!(cache.values.len(), VALUES_MAX);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_sum_is_kept() {
        let ids = [1_u8, 2, 3, 4].map(|n| BlobId::of(&[n]));
        let mut cache = Cache::new(10);
        cache.put(ids[0], Arc::new(0), 4);
        cache.put(ids[1], Arc::new(1), 4);
        assert!(cache.get(&ids[0]).is_some());
        cache.put(ids[2], Arc::new(2), 4);
        let there = ids.map(|id| cache.get(&id).is_some());
        assert_eq!((there, cache.weight), ([true, false, true, false], 8));
        cache.put(ids[3], Arc::new(3), 11);
        assert!(cache.get(&ids[3]).is_none());
    }
}
