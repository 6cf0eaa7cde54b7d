//! Tonbo 0.3.2 against a `BTreeMap`. Two kinds of tests: that it is right in the one way in which Darner uses it, and
//! that it is wrong in the ways which the rules in `src/tonbo.rs` avoid. When a test of the second kind fails, Tonbo
//! has become better and the rule can go.

use std::{collections::BTreeMap, ops::Bound, path::Path};

use futures::StreamExt;
use tokio::runtime::Runtime;
use tonbo::{DB, DbOption, executor::tokio::TokioExecutor, option::Path as TonboPath};

use crate::support::random::Random;

mod record {
    #![expect(unreachable_pub, reason = "Tonbo's derive makes public items only")]

    use tonbo::Record;

    #[derive(Record, Debug)]
    pub struct Entry {
        #[record(primary_key)]
        pub key: String,
        pub value: String,
    }
}

use record::{Entry, EntrySchema};

type Database = DB<Entry, TokioExecutor>;

fn options(dir: &Path) -> DbOption {
    DbOption::new(TonboPath::from_filesystem_path(dir).unwrap(), &EntrySchema).disable_wal()
}

async fn open(options: DbOption) -> Database {
    DB::new(options, TokioExecutor::current(), EntrySchema)
        .await
        .unwrap()
}

async fn scan(db: &Database) -> Vec<(String, String)> {
    let snapshot = db.snapshot().await;
    let mut stream = Box::pin(
        snapshot
            .scan((Bound::Unbounded, Bound::Unbounded))
            .take()
            .await
            .unwrap(),
    );
    let mut found = Vec::new();
    while let Some(entry) = stream.next().await {
        if let Some(entry) = entry.unwrap().value() {
            found.push((
                entry.key.to_owned(),
                entry.value.unwrap_or_default().to_owned(),
            ));
        }
    }
    found
}

async fn get(db: &Database, key: &str) -> Option<String> {
    db.get(&key.to_owned(), |entry| {
        entry.get().value.map(str::to_owned)
    })
    .await
    .unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

/// The way Darner uses it: every key written once, reads by scan, compaction off, an explicit flush before closing.
#[test]
fn scans_are_right_when_keys_are_written_once() {
    let seed = Random::seed(1);
    let mut random = Random::new(seed);
    runtime().block_on(async {
        for round in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let options = || options(dir.path()).major_threshold_with_sst_size(usize::MAX);
            let mut db = open(options()).await;
            let mut model = BTreeMap::new();
            let mut next_key = 0_u64;
            for step in 0..60 {
                match random.below(10) {
                    0..7 => {
                        let num_records = 1 + random.below(40);
                        let mut records = Vec::new();
                        for _ in 0..num_records {
                            // Not in the order of the keys: some writers take numbers and write them later.
                            let key = format!("{:016x}", next_key ^ 3);
                            next_key += 1;
                            let value = "x".repeat(random.below(3000) as usize);
                            model.insert(key.clone(), value.clone());
                            records.push(Entry { key, value });
                        }
                        db.insert_batch(records.into_iter()).await.unwrap();
                    }
                    7..9 => db.flush().await.unwrap(),
                    _ => {
                        db.flush().await.unwrap();
                        drop(db);
                        db = open(options()).await;
                        // Without a flush the next open would find nothing: see the test below.
                        db.flush().await.unwrap();
                    }
                }
                let found = scan(&db).await;
                let expected: Vec<_> = model.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                assert_eq!(
                    found.len(),
                    expected.len(),
                    "seed {seed} round {round} step {step}"
                );
                assert!(found == expected, "seed {seed} round {round} step {step}");
            }
        }
    });
}

/// Why reads are scans, and keys are written once: a flush writes what was frozen since the last one behind each other
/// into one file, so that a key can stand in it twice, and `get` takes the first: the old value.
#[test]
fn get_returns_old_values() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let db = open(options(dir.path()).major_threshold_with_sst_size(usize::MAX)).await;
        let mut num_wrong = 0;
        // Tonbo freezes its memtable after 64 MiB, in the background: how often before a flush is not ours to say.
        let filler = "x".repeat(1 << 20);
        for round in 0..50 {
            for key in 0..40 {
                let (key, value) = (format!("key{key:02}"), format!("{round:02}{filler}"));
                db.insert(Entry { key, value }).await.unwrap();
            }
            if round % 5 != 4 {
                continue;
            }
            db.flush().await.unwrap();
            for key in 0..40 {
                let value = get(&db, &format!("key{key:02}")).await.unwrap();
                num_wrong += usize::from(value[..2] != format!("{round:02}"));
            }
            if num_wrong > 0 {
                return;
            }
        }
        panic!("tonbo's get is right now: point reads could use it");
    });
}

/// Why its leveled compaction is off: scans return old and deleted rows, and rows out of order, and flushes fail.
#[test]
fn compaction_makes_scans_wrong() {
    let mut random = Random::new(Random::seed(3));
    runtime().block_on(async {
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            let db = open(options(dir.path()).max_sst_file_size(4096)).await;
            let mut model: BTreeMap<String, String> = BTreeMap::new();
            for step in 0..400 {
                let key = format!("key{:02}", random.below(40));
                match random.below(10) {
                    0..6 => {
                        let value = format!("{step}-{}", "y".repeat(random.below(400) as usize));
                        model.insert(key.clone(), value.clone());
                        db.insert(Entry { key, value }).await.unwrap();
                    }
                    6..7 => {
                        model.remove(&key);
                        db.remove(key).await.unwrap();
                    }
                    _ => {
                        if db.flush().await.is_err() {
                            return;
                        }
                    }
                }
                if scan(&db).await != model.clone().into_iter().collect::<Vec<_>>() {
                    return;
                }
            }
        }
        panic!("tonbo's compaction is right now");
    });
}

/// Why version logs are copied and taken after a flush only: opening empties the log.
#[test]
fn opening_empties_the_version_log() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let db = open(options(dir.path())).await;
        db.insert(Entry {
            key: "a".to_owned(),
            value: "1".to_owned(),
        })
        .await
        .unwrap();
        db.flush().await.unwrap();
        drop(db);
        let num_bytes = || {
            let logs = std::fs::read_dir(dir.path().join("version")).unwrap();
            logs.map(|log| log.unwrap().metadata().unwrap().len())
                .sum::<u64>()
        };
        assert!(num_bytes() > 0);
        let db = open(options(dir.path())).await;
        assert_eq!(scan(&db).await.len(), 1);
        assert_eq!(num_bytes(), 0);
    });
}
