//! Disks that fail.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use darner_store::{
    Durability, ErrorKind, Store, StoreOptions,
    testing::{Observer, Op, observe},
};

use crate::support::{
    faults::{Errno, Fault, Prepared, run},
    power::watch,
    random::Random,
    work::Kind,
};

/// Lets every `step`-th operation fail, until the work ends before the fault comes.
fn sweep(step: u64, fails: impl Fn(Fault) -> bool) -> u64 {
    let mut at = 0;
    loop {
        let fault = Fault {
            at,
            for_good: at % 2 == 1,
            errno: Errno::ALL[at as usize % 3],
        };
        if !fails(fault) {
            return at;
        }
        at += step;
    }
}

#[test]
fn whatever_operation_fails_nothing_is_lost() {
    let seed = Random::seed(3);
    let num_ops = watch(
        || format!("DARNER_SEED={seed}"),
        || sweep(5, |fault| run(Kind::Mixed, seed, 12, fault)),
    );
    assert!(num_ops > 100, "only {num_ops} operations");
}

#[test]
fn every_failing_operation_of_the_first_commits_loses_nothing() {
    let seed = Random::seed(4);
    let num_ops = watch(
        || format!("DARNER_SEED={seed}"),
        || sweep(1, |fault| run(Kind::Small, seed, 3, fault)),
    );
    assert!(num_ops > 20, "only {num_ops} operations");
}

#[test]
fn whatever_fails_while_a_store_is_opened_and_read_harms_nothing() {
    let seed = Random::seed(5);
    watch(
        || format!("DARNER_SEED={seed}"),
        || {
            let prepared = Prepared::new(Kind::Mixed, seed, 16);
            for read_only in [false, true] {
                let num_ops = sweep(3, |fault| prepared.open_with(fault, read_only));
                assert!(num_ops > 10, "only {num_ops} operations");
            }
        },
    );
}

/// Lets the first fsync of a segment of the log fail that holds frames.
#[derive(Default)]
struct FirstLogSync {
    num_syncs: AtomicU64,
}

impl Observer for FirstLogSync {
    fn before(&self, op: &Op<'_>) -> std::io::Result<()> {
        // Segments have another name while they are made.
        let is_segment = matches!(op, Op::SyncFile(path) if path.extension().is_some_and(|e| e == "log")
            && path.parent().is_some_and(|above| above.ends_with("log")));
        if is_segment && self.num_syncs.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn after(&self, _op: &Op<'_>) {}
}

#[test]
fn an_fsync_that_nobody_waits_for_and_that_fails_ends_the_commits() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(FirstLogSync::default());
    let observed = observe(dir.path(), Arc::clone(&syncs) as _);
    let options = StoreOptions {
        durability: Durability::Buffered,
        // A segment is full long before a checkpoint would take what it holds to safety.
        checkpoint_log_bytes: 1 << 30,
        ..StoreOptions::default()
    };
    let value = vec![7; 100 << 10];
    let key = |number: u64| number.to_be_bytes();
    let mut num_done = 0;
    {
        let store = Store::open(dir.path().join("store"), options).unwrap();
        let state = store.state("n").unwrap();
        let error = loop {
            match state.put(&key(num_done), &value) {
                Ok(_) => num_done += 1,
                Err(error) => break error,
            }
            assert!(
                num_done < 500,
                "nobody said so: num_syncs={:?}",
                syncs.num_syncs
            );
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(format!("{error:?}").contains(".log"), "{error:?}");
        // More than one segment would have held: it was told at that one's end at the latest.
        assert!(num_done < 100, "only after {num_done}");
        let later = state.put(&key(1000), &value).unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Unavailable, "{later:?}");
    }
    drop(observed);
    let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
    let state = store.state("n").unwrap();
    for number in 0..num_done {
        assert_eq!(
            state.get(&key(number)).unwrap().as_deref(),
            Some(&value[..])
        );
    }
    state.put(&key(1001), b"more").unwrap();
}

/// A checkpoint that came before the error was told took the segment away, and the error with it.
#[test]
fn an_fsync_that_fails_behind_a_checkpoint_ends_the_commits_too() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(FirstLogSync::default());
    let observed = observe(dir.path(), Arc::clone(&syncs) as _);
    let options = StoreOptions {
        durability: Durability::Buffered,
        ..StoreOptions::default()
    };
    let value = vec![7; 100 << 10];
    {
        let store = Store::open(dir.path().join("store"), options).unwrap();
        let state = store.state("n").unwrap();
        // As many as one fsync is begun behind.
        for number in 0..25_u64 {
            state.put(&number.to_be_bytes(), &value).unwrap();
        }
        store.checkpoint().unwrap();
        assert_eq!(syncs.num_syncs.load(Ordering::Relaxed), 1);
        let error = state.put(b"next", &value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(format!("{error:?}").contains(".log"), "{error:?}");
        let error = store.checkpoint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    drop(observed);
    let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
    assert_eq!(store.state("n").unwrap().len().unwrap(), 25);
}
