//! Care of a store: verify, backup, restore, and the space that it takes.

use std::sync::atomic::{AtomicBool, Ordering};

use darner_store::{CompactionMode, Durability, ErrorKind, Store, StoreOptions};

use crate::support::{
    random::Random,
    space::update_again_and_again,
    workload::{Model, Scale, check, commit, plan, step_of},
};

fn options() -> StoreOptions {
    StoreOptions {
        durability: Durability::Buffered,
        page_bytes: 2000,
        bulk_bytes: 3000,
        checkpoint_log_bytes: 20_000,
        log_segment_bytes: 1 << 16,
        ..StoreOptions::default()
    }
}

const SCALE: Scale = Scale {
    ends: false,
    ..Scale::SMALL
};

fn work(store: &Store, model: &mut Model, random: &mut Random, num_steps: u64) {
    for _ in 0..num_steps {
        let edits = plan(model, random, SCALE);
        commit(store, model.step + 1, &edits).unwrap();
        model.apply(&edits, 0);
    }
}

fn assert_sound(dir: &std::path::Path) {
    let report = Store::verify(dir).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert!(report.num_files >= 2 && report.num_tables > 0);
}

#[test]
fn backups_and_restored_stores_hold_what_the_store_held() {
    let seed = Random::seed(7);
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let (stored, copies) = (dir.path().join("store"), dir.path().join("copies"));
    let mut store = Store::open(&stored, options()).unwrap();
    let mut model = Model::default();
    for round in 0..6 {
        work(&store, &mut model, &mut random, 20);
        match round % 3 {
            0 => store.checkpoint().unwrap(),
            1 => store.compact().unwrap(),
            _ => {
                drop(store);
                store = Store::open(&stored, options()).unwrap();
            }
        }
        work(&store, &mut model, &mut random, 3);
        assert_sound(&stored);
        let backup = copies.join(format!("deep/{round}"));
        let report = if round % 2 == 0 {
            store.backup(&backup).unwrap()
        } else {
            Store::open_read_only(&stored)
                .unwrap()
                .backup(&backup)
                .unwrap()
        };
        assert_eq!(report.version, store.version(), "seed {seed}");
        check(&Store::open_read_only(&backup).unwrap(), &model, 0);
        assert_sound(&backup);
        let restored = copies.join(format!("restored-{round}"));
        assert_eq!(
            Store::restore(&backup, &restored).unwrap().version,
            report.version
        );
        let again = Store::open(&restored, options()).unwrap();
        check(&again, &model, 0);
        work(&again, &mut model.clone(), &mut Random::new(seed), 5);
        assert_sound(&restored);
    }
}

#[test]
fn a_backup_is_one_moment_of_a_store_that_is_being_written() {
    let seed = Random::seed(8);
    let dir = tempfile::tempdir().unwrap();
    let stored = dir.path().join("store");
    let store = Store::open(&stored, options()).unwrap();
    let is_done = AtomicBool::new(false);
    let mut models = vec![Model::default()];
    std::thread::scope(|scope| {
        let copier = scope.spawn(|| {
            let mut copies = Vec::new();
            while !is_done.load(Ordering::Acquire) && copies.len() < 30 {
                let copy = dir.path().join(format!("copy-{}", copies.len()));
                store.backup(&copy).unwrap();
                copies.push(copy);
            }
            copies
        });
        let mut random = Random::new(seed);
        let mut model = Model::default();
        for _ in 0..150 {
            work(&store, &mut model, &mut random, 1);
            models.push(model.clone());
        }
        is_done.store(true, Ordering::Release);
        let copies = copier.join().unwrap();
        assert!(!copies.is_empty());
        for copy in copies {
            let copy = Store::open_read_only(copy).unwrap();
            check(&copy, &models[step_of(&copy) as usize], 0);
        }
    });
    assert_sound(&stored);
}

#[test]
fn copies_go_to_empty_places_only() {
    let dir = tempfile::tempdir().unwrap();
    let stored = dir.path().join("store");
    let store = Store::open(&stored, options()).unwrap();
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("letter"), "mine").unwrap();
    let error = store.backup(&full).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("full"), "{error}");
    assert_eq!(
        std::fs::read_to_string(full.join("letter")).unwrap(),
        "mine"
    );
    let error = Store::restore(&stored, &stored).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = store.backup(stored.join("copy")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = Store::restore(dir.path().join("nothing"), dir.path().join("new")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!dir.path().join("new").exists());
    assert_eq!(
        Store::verify(dir.path().join("nothing"))
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn updating_the_same_rows_takes_less_than_four_times_their_space() {
    for compaction in [CompactionMode::AtOnce, CompactionMode::Background] {
        let options = StoreOptions {
            durability: Durability::Buffered,
            log_segment_bytes: 64 << 10,
            page_bytes: 8 << 10,
            compaction,
            ..StoreOptions::default()
        };
        update_again_and_again(&options, 4000, 200);
    }
}
