//! Work spread over threads, results brought to one.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use crossbeam_channel::bounded;

use crate::{
    environment::cores,
    run::{Cancel, Cancelled},
    storage::Storage,
};

/// How many threads ask a store at once: each waits most of the time when the store is far.
pub(crate) fn asking_threads(storage: &dyn Storage) -> usize {
    storage.costs().connections.max(cores())
}

/// Calls `work` with each of `items`, on one thread for each of `states`, and `take` with each
/// result, on this thread. Results wait for `take` one at most for each thread.
///
/// # Errors
/// Fails when a stop is requested; some items are left out then.
pub(crate) fn each_on_threads<S: Send, T: Send, R: Send>(
    states: Vec<S>,
    items: Vec<T>,
    cancel: &Cancel,
    work: impl Fn(&mut S, T) -> R + Sync,
    mut take: impl FnMut(R),
) -> Result<(), Cancelled> {
    let (to_take, results) = bounded(states.len());
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for mut state in states {
            let (to_take, next, work) = (to_take.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(item) = next().filter(|_| !cancel.is_requested()) {
                    if to_take.send(work(&mut state, item)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(to_take);
        results.iter().for_each(&mut take);
    });
    cancel.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        let mut sum = 0;
        let work = |factor: &mut u64, item: u64| item * *factor;
        let cancel = Cancel::default();
        each_on_threads(vec![2; 4], (0..1000).collect(), &cancel, work, |n| sum += n).unwrap();
        assert_eq!(sum, 999_000);
    }

    #[test]
    fn a_stop_is_told() {
        let cancel = Cancel::default();
        let mut taken = 0;
        let request = |(): &mut (), _: u64| cancel.request("enough");
        let result =
            each_on_threads(vec![()], (0..1000).collect(), &cancel, request, |()| taken += 1);
        assert!(result.is_err() && taken == 1);
    }
}
