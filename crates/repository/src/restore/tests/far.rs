//! Restores from a store that takes long to answer: what counts is how often it is asked.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::storage::{
    Costs,
    unreliable::{Faults, Unreliable},
};

const COSTS: Costs =
    Costs { latency: Duration::from_millis(50), bytes_per_s: 20 << 20, connections: 4 };

/// Puts distance between a repository and its store.
fn far(
    repository: IndexedRepository,
    storage: Arc<MemoryStorage>,
    delay: Duration,
) -> (IndexedRepository, Arc<Unreliable<MemoryStorage>>) {
    let faults = Faults { delay, costs: Some(COSTS), ..Faults::default() };
    let storage = Arc::new(Unreliable::new(storage, faults));
    let on_storage = Repository::clone(&repository).on(storage.clone());
    (on_storage.load_index(&Run::new()).unwrap(), storage)
}

/// `folders` folders, each with a file and a folder with another file.
fn many_folders(builder: &mut RepositoryBuilder, folders: usize) -> BlobId {
    let nodes = (0..folders).map(|number| {
        let inner = file(builder, "f", format!("inner {number}").as_bytes());
        let inner = builder.add_tree(vec![inner]);
        let outer = file(builder, "f", format!("outer {number}").as_bytes());
        let outer = builder.add_tree(vec![outer, dir_node(b"d", inner)]);
        dir_node(format!("{number:03}").as_bytes(), outer)
    });
    let nodes = nodes.collect();
    builder.add_tree(nodes)
}

#[test]
fn a_far_store_is_asked_for_neighbours_together() {
    let mut builder = RepositoryBuilder::new();
    let tree = many_folders(&mut builder, 300);
    let memory = builder.storage();
    let (repository, storage) = far(builder.finish(), memory, Duration::ZERO);
    let before = storage.operations();
    let target = folder();
    let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
    assert!(report.is_complete());
    assert_eq!(report.counts.files_restored, 600);
    assert_eq!(fs::read(target.path().join("299/d/f")).unwrap(), b"inner 299");
    let asked = storage.operations() - before;
    assert!(asked <= 4, "601 trees and 600 chunks with {asked} requests");
}

#[test]
fn ranges_of_a_far_store_are_read_at_once() {
    let mut builder = RepositoryBuilder::new();
    let nodes = (0..12).map(|number| {
        let node = file(&mut builder, &format!("{number}"), &[number; 100]);
        builder.close_packs();
        node
    });
    let nodes = nodes.collect();
    let tree = builder.add_tree(nodes);
    let memory = builder.storage();
    let (repository, storage) = far(builder.finish(), memory, Duration::from_millis(50));
    let target = folder();
    let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
    assert!(report.is_complete());
    let at_once = storage.reads_at_once();
    assert!((2..=COSTS.connections as u64).contains(&at_once), "{at_once}");
}

#[test]
fn a_damaged_tree_harms_only_itself_when_it_was_read_with_others() {
    let mut builder = RepositoryBuilder::new();
    let tree = many_folders(&mut builder, 5);
    let memory = builder.storage();
    let (repository, _) = far(builder.finish(), memory.clone(), Duration::ZERO);
    let mut reader = repository.blob_reader().unwrap();
    let lost = reader.tree(tree).unwrap().nodes[2].subtree.unwrap();
    let place = repository.index().find(BlobKind::Tree, lost).unwrap();
    let at = place.blob.offset as usize + 20;
    memory.files().get_mut(&File::Pack(place.pack)).unwrap()[at] ^= 1;
    // What was read before the damage is not asked for again.
    let (repository, _) = far(repository, memory, Duration::ZERO);
    let target = folder();
    let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
    assert_eq!(paths(&report), ["002"]);
    assert_eq!(report.counts.files_restored, 8);
}
