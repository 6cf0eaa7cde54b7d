//! Commits that come in the midst of a compaction.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow_array::{Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use darner_store::{
    AsOf, CompactionMode, Durability, ErrorKind, Retention, Scan, Store, StoreOptions,
    testing::{Observer, Op, observe},
};

use crate::store::{schema, spec};

/// When a commit comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// When the first page of the compaction goes to a file.
    Begun,
    /// When the checkpoint that ends it is all but written.
    Ending,
}

impl Moment {
    fn is_now(self, op: &Op<'_>) -> bool {
        match (self, op) {
            (Self::Begun, Op::Insert(_)) => true,
            (Self::Ending, Op::Create(path)) => path.ends_with("MANIFEST"),
            _ => false,
        }
    }
}

/// Does something once, at a moment.
struct Interruption<F>(Moment, Mutex<Option<F>>);

impl<F: FnOnce() + Send> Observer for Interruption<F> {
    fn before(&self, op: &Op<'_>) -> std::io::Result<()> {
        if self.0.is_now(op) {
            let action = self.1.lock().unwrap().take();
            if let Some(action) = action {
                action();
            }
        }
        Ok(())
    }

    fn after(&self, _op: &Op<'_>) {}
}

type Model = BTreeMap<&'static str, BTreeMap<i64, String>>;

fn options(bulk_bytes: usize) -> StoreOptions {
    StoreOptions {
        page_bytes: 1 << 10,
        bulk_bytes,
        compaction: CompactionMode::Never,
        ..StoreOptions::default()
    }
}

fn kept(num_versions: u64) -> Retention {
    Retention {
        num_versions,
        ..Retention::default()
    }
}

fn keys(ids: impl Iterator<Item = i64>) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
    let ids = Int64Array::from_iter_values(ids);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids)]).unwrap()
}

fn rows(from: i64, to: i64, text: &str) -> RecordBatch {
    let names: StringArray = (from..to).map(|id| Some(format!("{text} {id}"))).collect();
    let ids = Int64Array::from_iter_values(from..to);
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

fn upsert(store: &Store, model: &mut Model, table: &'static str, from: i64, to: i64, text: &str) {
    let mut transaction = store.begin().unwrap();
    if store.table(table).is_err() {
        transaction.create_table(table, spec()).unwrap();
    }
    transaction.upsert(table, &rows(from, to, text)).unwrap();
    transaction.commit().unwrap();
    let entries = (from..to).map(|id| (id, format!("{text} {id}")));
    model.entry(table).or_default().extend(entries);
}

fn delete(store: &Store, model: &mut Model, table: &'static str, from: i64, to: i64) {
    let mut transaction = store.begin().unwrap();
    transaction.delete(table, &keys(from..to)).unwrap();
    transaction.commit().unwrap();
    if let Some(rows) = model.get_mut(table) {
        rows.retain(|id, _| !(from..to).contains(id));
    }
}

fn drop_table(store: &Store, model: &mut Model, table: &'static str) {
    let mut transaction = store.begin().unwrap();
    transaction.drop_table(table).unwrap();
    transaction.commit().unwrap();
    model.remove(table);
}

fn replace(store: &Store, model: &mut Model, table: &'static str, from: i64, to: i64) {
    let mut transaction = store.begin().unwrap();
    transaction.set_retention(table, kept(5)).unwrap();
    transaction.replace(table, spec()).unwrap();
    transaction.upsert(table, &rows(from, to, "new")).unwrap();
    transaction.commit().unwrap();
    let entries = (from..to).map(|id| (id, format!("new {id}")));
    model.insert(table, entries.collect());
}

fn contents(store: &Store) -> Vec<(String, Vec<(i64, String)>)> {
    let tables = store.tables().into_iter().map(|table| {
        let mut rows = Vec::new();
        for batch in table.rows(None).unwrap() {
            let batch = batch.unwrap();
            let ids = batch.column(0).as_primitive::<Int64Type>();
            let names = batch.column(1).as_string::<i32>();
            rows.extend((0..batch.num_rows()).map(|i| (ids.value(i), names.value(i).to_owned())));
        }
        rows.sort();
        (table.name().to_owned(), rows)
    });
    tables.collect()
}

fn check(store: &Store, model: &Model, when: &str) {
    let expected: Vec<_> = model
        .iter()
        .map(|(name, rows)| {
            let rows = rows.iter().map(|(id, name)| (*id, name.clone()));
            ((*name).to_owned(), rows.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(contents(store), expected, "{when}");
}

/// A table of 200 rows, of which 100 were replaced, beside another, both partly in the log only.
fn begin(dir: &Path, model: &mut Model, options: &StoreOptions) -> Store {
    let store = Store::open(dir, options.clone()).unwrap();
    upsert(&store, model, "big", 0, 200, "old");
    upsert(&store, model, "small", 0, 50, "old");
    store.checkpoint().unwrap();
    upsert(&store, model, "big", 100, 200, "new");
    upsert(&store, model, "small", 40, 60, "new");
    store
}

/// Compacts `big` while `action` does something else. Checks that all is there now, after reopening, and after that is
/// done again, and returns the last commit before the compaction and the last that its checkpoint has.
fn interrupt(
    moment: Moment,
    bulk_bytes: usize,
    action: impl Fn(&Store, &mut Model) + Sync,
) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let options = options(bulk_bytes);
    let mut model = Model::new();
    let store = begin(dir.path(), &mut model, &options);
    let before = store.version().number;
    let seen = store.table("big").unwrap();
    let model = Mutex::new(model);
    let interruption = || action(&store, &mut model.lock().unwrap());
    std::thread::scope(|scope| {
        // The observer may not borrow from this function, so it asks a thread that may.
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            if asked.recv().is_ok() {
                interruption();
                answer.send(()).unwrap();
            }
        });
        let answered = Mutex::new(answered);
        let action = move || {
            ask.send(()).unwrap();
            answered.lock().unwrap().recv().unwrap();
        };
        let interruption = Interruption(moment, Mutex::new(Some(action)));
        let _observed = observe(dir.path(), Arc::new(interruption));
        store.compact_table("big").unwrap();
    });
    let model = model.into_inner().unwrap();
    let checkpointed = store.last_checkpoint().number;
    check(&store, &model, "afterwards");
    assert_eq!(seen.num_rows().unwrap(), 200, "a snapshot from before");
    assert!(store.version().number > before, "something was committed");
    let reader = Store::open_read_only(dir.path()).unwrap();
    check(&reader, &model, "read by somebody else");
    drop(reader);
    let backup = tempfile::tempdir().unwrap();
    store.backup(backup.path()).unwrap();
    let copy = Store::open_read_only(backup.path()).unwrap();
    check(&copy, &model, "in a backup");
    drop(copy);
    drop(store);
    Store::verify(dir.path()).unwrap();
    let store = Store::open(dir.path(), options.clone()).unwrap();
    check(&store, &model, "opened again");
    store.compact().unwrap();
    check(&store, &model, "compacted again");
    store.checkpoint().unwrap();
    drop(store);
    Store::verify(dir.path()).unwrap();
    let store = Store::open(dir.path(), options).unwrap();
    check(&store, &model, "opened at last");
    (before, checkpointed)
}

const NEVER_BULK: usize = 1 << 20;

const MOMENTS: [Moment; 2] = [Moment::Begun, Moment::Ending];

#[test]
fn commits_of_tables_stay_in_the_log() {
    for moment in MOMENTS {
        let (before, checkpointed) = interrupt(moment, NEVER_BULK, |store, model| {
            upsert(store, model, "big", 150, 260, "later");
            delete(store, model, "big", 0, 10);
            upsert(store, model, "small", 55, 70, "later");
        });
        assert_eq!(checkpointed, before, "{moment:?}");
    }
}

#[test]
fn other_tables_may_come_and_go() {
    for moment in MOMENTS {
        let (before, checkpointed) = interrupt(moment, NEVER_BULK, |store, model| {
            upsert(store, model, "other", 0, 30, "later");
            drop_table(store, model, "small");
            upsert(store, model, "small", 7, 9, "again");
            upsert(store, model, "big", 3, 5, "later");
        });
        assert_eq!(checkpointed, before, "{moment:?}");
    }
}

#[test]
fn other_tables_may_be_replaced() {
    for moment in MOMENTS {
        let (before, checkpointed) = interrupt(moment, NEVER_BULK, |store, model| {
            replace(store, model, "small", 5, 8);
            upsert(store, model, "small", 6, 12, "later");
        });
        assert_eq!(checkpointed, before, "{moment:?}");
    }
}

#[test]
fn the_table_itself_may_go_while_its_checkpoint_is_written() {
    interrupt(Moment::Ending, NEVER_BULK, |store, model| {
        upsert(store, model, "big", 3, 5, "later");
        replace(store, model, "big", 100, 110);
        upsert(store, model, "big", 105, 120, "later still");
    });
    interrupt(Moment::Ending, NEVER_BULK, |store, model| {
        drop_table(store, model, "big");
        upsert(store, model, "big", 1, 4, "another");
    });
}

#[test]
fn a_checkpoint_in_between_covers_more() {
    let (before, checkpointed) = interrupt(Moment::Begun, NEVER_BULK, |store, model| {
        upsert(store, model, "big", 150, 260, "later");
        store.checkpoint().unwrap();
        upsert(store, model, "big", 255, 270, "later still");
    });
    assert!(checkpointed > before);
}

#[test]
fn a_large_commit_in_between_covers_more() {
    let (before, checkpointed) = interrupt(Moment::Begun, 2 << 10, |store, model| {
        upsert(store, model, "big", 100, 400, "large");
        upsert(store, model, "big", 5, 10, "later");
    });
    assert!(checkpointed > before);
}

#[test]
fn a_large_transaction_may_be_open_meanwhile() {
    for moment in MOMENTS {
        let (before, checkpointed) = interrupt(moment, 2 << 10, |store, model| {
            // Its pages go to the files of the table that is left, and it is never committed.
            let mut transaction = store.begin().unwrap();
            transaction
                .upsert("big", &rows(0, 1000, "abandoned"))
                .unwrap();
            upsert(store, model, "big", 5, 10, "later");
        });
        assert_eq!(checkpointed, before, "{moment:?}");
    }
}

/// Commits to a table and to keyed state while a compaction is under way. Returns the last commit before it and the
/// last that its checkpoint has.
fn interrupt_with_state(moment: Moment) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let options = options(NEVER_BULK);
    let mut model = Model::new();
    let store = begin(dir.path(), &mut model, &options);
    for name in ["counts", "other"] {
        let state = store.state(name).unwrap();
        state.put(b"gone", b"0").unwrap();
        store.checkpoint().unwrap();
        state.clear().unwrap();
        state.put(b"a", b"1").unwrap();
    }
    upsert(&store, &mut model, "big", 0, 5, "later");
    let before = store.version().number;
    let store = Arc::new(store);
    let shared = Arc::clone(&store);
    let action = move || {
        let mut transaction = shared.begin().unwrap();
        transaction.upsert("big", &rows(7, 8, "later")).unwrap();
        transaction.put_state("counts", b"b", b"2").unwrap();
        transaction.commit().unwrap();
    };
    {
        let interruption = Interruption(moment, Mutex::new(Some(action)));
        let _observed = observe(dir.path(), Arc::new(interruption));
        store.compact_table("big").unwrap();
    }
    let big = model.entry("big").or_default();
    big.insert(7, "later 7".to_owned());
    let checkpointed = store.last_checkpoint().number;
    let check_all = |store: &Store, when: &str| {
        check(store, &model, when);
        for (name, expected) in [("counts", "a1b2"), ("other", "a1")] {
            let state = store.state(name).unwrap();
            let entries = state.scan(&Scan::all()).unwrap();
            let entries: Vec<u8> = entries
                .flat_map(|entry| {
                    let (key, value) = entry.unwrap();
                    [&*key, &*value].concat()
                })
                .collect();
            assert_eq!(entries, expected.as_bytes(), "{name} {when}");
        }
    };
    check_all(&store, "afterwards");
    check_all(&Store::open_read_only(dir.path()).unwrap(), "read");
    drop(store);
    Store::verify(dir.path()).unwrap();
    let store = Store::open(dir.path(), options.clone()).unwrap();
    check_all(&store, "opened again");
    store.compact().unwrap();
    check_all(&store, "compacted again");
    drop(store);
    Store::verify(dir.path()).unwrap();
    let store = Store::open(dir.path(), options).unwrap();
    check_all(&store, "opened at last");
    (before, checkpointed)
}

#[test]
fn changes_of_keyed_state_are_in_one_commit_with_those_of_tables() {
    let (before, checkpointed) = interrupt_with_state(Moment::Begun);
    assert!(checkpointed > before);
    let (before, checkpointed) = interrupt_with_state(Moment::Ending);
    assert_eq!(checkpointed, before);
}

#[test]
fn the_past_stays_readable_across_a_compaction_with_commits() {
    for moment in MOMENTS {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        let store = begin(dir.path(), &mut model, &options(NEVER_BULK));
        let mut transaction = store.begin().unwrap();
        transaction.set_retention("big", kept(10)).unwrap();
        transaction.commit().unwrap();
        upsert(&store, &mut model, "big", 200, 210, "kept");
        let last = store.version().number;
        let store = Arc::new(store);
        let shared = Arc::clone(&store);
        let action = move || {
            let mut model = Model::new();
            upsert(&shared, &mut model, "big", 205, 230, "later");
            delete(&shared, &mut model, "big", 0, 100);
        };
        {
            let interruption = Interruption(moment, Mutex::new(Some(action)));
            let _observed = observe(dir.path(), Arc::new(interruption));
            store.compact_table("big").unwrap();
        }
        let num_rows = |store: &Store, number: u64| {
            let table = store.table_at("big", AsOf::Version(number)).unwrap();
            table.num_rows().unwrap()
        };
        assert_eq!(store.last_checkpoint().number, last);
        for store in [&store, &Store::open_read_only(dir.path()).unwrap()] {
            assert_eq!(num_rows(store, last), 210);
            assert_eq!(num_rows(store, last + 1), 230);
            assert_eq!(num_rows(store, last + 2), 130);
            let table = store.table("big").unwrap();
            let changes = table.changes_since(last, None).unwrap();
            let num_deleted: usize = changes.deletes.map(|keys| keys.unwrap().num_rows()).sum();
            assert_eq!(num_deleted, 100);
        }
    }
}

#[test]
fn a_namespace_that_was_checkpointed_in_between_keeps_the_order_of_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(NEVER_BULK);
    let store = begin(dir.path(), &mut Model::new(), &options);
    let put = |store: &Store, value: &[u8]| store.state("ns").unwrap().put(b"k", value).unwrap();
    put(&store, b"0");
    upsert(&store, &mut Model::new(), "big", 0, 5, "later");
    let store = Arc::new(store);
    let shared = Arc::clone(&store);
    let action = move || {
        put(&shared, b"1");
        shared.checkpoint().unwrap();
        put(&shared, b"2");
    };
    {
        let interruption = Interruption(Moment::Begun, Mutex::new(Some(action)));
        let _observed = observe(dir.path(), Arc::new(interruption));
        store.compact_table("big").unwrap();
    }
    store.compact().unwrap();
    drop(store);
    let store = Store::open(dir.path(), options).unwrap();
    let found = store.state("ns").unwrap().get(b"k").unwrap();
    assert_eq!(found.as_deref(), Some(&b"2"[..]));
}

#[test]
fn checkpoints_before_give_their_space_back_though_a_namespace_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path(), &mut Model::new(), &options(NEVER_BULK));
    for name in ["idle", "busy"] {
        store.state(name).unwrap().put(b"k", b"0").unwrap();
    }
    store.checkpoint().unwrap();
    let store = Arc::new(store);
    for _ in 0..3 {
        upsert(&store, &mut Model::new(), "big", 0, 100, "again");
        let shared = Arc::clone(&store);
        let action = move || {
            shared.state("busy").unwrap().put(b"k", b"1").unwrap();
        };
        let interruption = Interruption(Moment::Ending, Mutex::new(Some(action)));
        let observed = observe(dir.path(), Arc::new(interruption));
        store.compact_table("big").unwrap();
        drop(observed);
        let checkpoints = std::fs::read_dir(dir.path().join("checkpoint")).unwrap();
        assert_eq!(checkpoints.count(), 1);
    }
}

#[test]
fn compactions_give_up_what_retention_does_not_keep() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        durability: Durability::Buffered,
        ..options(NEVER_BULK)
    };
    let store = Store::open(dir.path(), options).unwrap();
    let mut model = Model::new();
    upsert(&store, &mut model, "replaced", 0, 500, "first");
    for round in 0..4 {
        for _ in 0..800 {
            upsert(&store, &mut model, "big", 0, 3, "again");
        }
        let mut transaction = store.begin().unwrap();
        transaction.replace("replaced", spec()).unwrap();
        transaction
            .upsert("replaced", &rows(0, 500, "next"))
            .unwrap();
        transaction.commit().unwrap();
        store.compact_table("big").unwrap();
        let num_listed = store.table("big").unwrap().history().unwrap().len();
        assert!(num_listed <= 2100, "round {round}: {num_listed} commits");
        let dirs = std::fs::read_dir(dir.path().join("live")).unwrap();
        let live = dirs.flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap());
        let num_generations = live
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count();
        assert!(num_generations <= 5, "round {round}: {num_generations}");
    }
}

/// Fails to sync the store's directory once `CURRENT` has been renamed.
struct NotSynced(PathBuf, AtomicBool);

impl Observer for NotSynced {
    fn before(&self, op: &Op<'_>) -> std::io::Result<()> {
        match op {
            Op::SyncDir(path) if *path == self.0 && self.1.load(Ordering::Relaxed) => {
                Err(std::io::Error::from_raw_os_error(5))
            }
            _ => Ok(()),
        }
    }

    fn after(&self, op: &Op<'_>) {
        if let Op::Rename(_, path) = op
            && path.ends_with("CURRENT")
        {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_checkpoint_that_may_count_is_not_removed() {
    for compacts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = options(NEVER_BULK);
        let mut model = Model::new();
        let store = begin(dir.path(), &mut model, &options);
        {
            let observer = NotSynced(dir.path().to_owned(), AtomicBool::new(false));
            let _observed = observe(dir.path(), Arc::new(observer));
            let result = if compacts {
                store.compact_table("big")
            } else {
                store.checkpoint()
            };
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        store.close().unwrap();
        let store = Store::open(dir.path(), options).unwrap();
        check(&store, &model, "opened again");
    }
}
