//! Random work on a store, compared with a `BTreeMap` after every step.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use darner_store::{Clock, CompactionMode, Durability, Store, StoreOptions, TableSnapshot};

use crate::support::{
    random::Random,
    workload::{
        Model, ModelRows, Scale, check, check_as_of, check_history, check_state, commit, plan, read,
    },
};

fn options(random: &mut Random, time: &Arc<AtomicI64>) -> StoreOptions {
    let time = Arc::clone(time);
    StoreOptions {
        durability: if random.below(2) == 0 {
            Durability::Synced
        } else {
            Durability::Buffered
        },
        page_bytes: [400, 2000, 64 << 10][random.below(3) as usize],
        bulk_bytes: [0, 3000, 16 << 20][random.below(3) as usize],
        checkpoint_log_bytes: [0, 20_000, 64 << 20][random.below(3) as usize],
        log_segment_bytes: [4096, 1 << 16][random.below(2) as usize],
        compaction: [
            CompactionMode::Background,
            CompactionMode::AtOnce,
            CompactionMode::Never,
        ][random.below(3) as usize],
        compact_bytes: [700, 3000, 256 << 20][random.below(3) as usize],
        state_memory_bytes: [0, 4000, 256 << 20][random.below(3) as usize],
        page_cache_bytes: [0, 5000, 1 << 30][random.below(3) as usize],
        clock: Clock::new(move || time.load(Ordering::Relaxed)),
    }
}

/// Returns the number of operations: changes of transactions, checkpoints, compactions, openings.
fn run(dir: &Path, seed: u64, num_steps: u64) -> u64 {
    let mut random = Random::new(seed);
    let time = Arc::new(AtomicI64::new(1_000_000));
    let mut model = Model::default();
    let mut store = Store::open(dir, options(&mut random, &time)).unwrap();
    let mut past: VecDeque<Model> = VecDeque::new();
    let mut old: Vec<(TableSnapshot, Arc<ModelRows>)> = Vec::new();
    let rows_of =
        |model: &Model, table: &TableSnapshot| Arc::clone(&model.tables[table.name()].rows);
    let (mut num_old_reads, mut num_operations) = (0, 0);
    for _ in 0..num_steps {
        let now_us = time.fetch_add(random.below(9000) as i64, Ordering::Relaxed);
        let now_us = now_us.max(time.load(Ordering::Relaxed));
        match random.below(24) {
            0 => store.checkpoint().unwrap(),
            1 => {
                // Drop: as after a crash of the process. Close: as after an orderly end.
                if random.below(2) == 0 {
                    drop(store);
                } else {
                    store.close().unwrap();
                }
                store = Store::open(dir, options(&mut random, &time)).unwrap();
            }
            2 => {
                let options = options(&mut random, &time);
                let reader = Store::open_read_only_with(dir, options).unwrap();
                check(&reader, &model, now_us);
                check_state(&reader, &model, &mut random, now_us);
                assert!(reader.begin().is_err());
                let tables = reader.tables().into_iter();
                old.extend(tables.map(|t| (t.clone(), rows_of(&model, &t))));
            }
            3 => {
                let tables = store.tables().into_iter();
                old.extend(tables.map(|t| (t.clone(), rows_of(&model, &t))));
            }
            4 => store.compact().unwrap(),
            5 => {
                if let Some(name) = store.table_names().first() {
                    store.compact_table(name).unwrap();
                }
            }
            6 => check_history(&store, &model),
            _ => {
                let edits = plan(&model, &mut random, Scale::SMALL);
                let version = commit(&store, model.step + 1, &edits).unwrap();
                model.apply(&edits, now_us);
                num_operations += edits.len() as u64;
                assert_eq!(version.number, model.step);
                past.push_back(model.clone());
                if past.len() > 40 {
                    past.pop_front();
                }
            }
        }
        num_operations += 1;
        // Looking at everything costs more than most steps.
        let looks = random.below(8) == 0;
        if looks {
            check(&store, &model, now_us);
            check_state(&store, &model, &mut random, now_us);
        }
        if looks && !past.is_empty() {
            let then = &past[random.below(past.len() as u64) as usize];
            let name = format!("t{}", random.below(3));
            num_old_reads += u64::from(check_as_of(&store, then, &model, &name));
        }
        // Snapshots stay as they were, whatever happened to the store, and after it was closed.
        if old.len() > 6 {
            for (table, expected) in old.drain(..) {
                assert_eq!(read(&table), *expected, "old snapshot of {}", table.name());
            }
        }
    }
    assert!(
        num_old_reads > num_steps / 160,
        "only {num_old_reads} reads of old versions"
    );
    num_operations
}

#[test]
fn random_work_equals_a_btree_map() {
    let first = Random::seed(100);
    let mut num_operations = 0;
    for seed in first..first + 12 {
        let dir = tempfile::tempdir().unwrap();
        let result = std::panic::catch_unwind(|| run(dir.path(), seed, 150));
        assert!(result.is_ok(), "failed with DARNER_SEED={seed}");
        num_operations += result.unwrap_or_default();
    }
    assert!(num_operations >= 10_000, "only {num_operations} operations");
}
