//! Random work on a store, and a model in `BTreeMap`s that knows what must come of it.
//!
//! The work is a function of a seed and the model alone. So whoever knows the seed can say what the store must hold
//! after the n-th step, without having seen it happen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_store::{
    AsOf, CommitKind, ErrorKind, Result, Retention, RowCounts, Rows, Scan, Store, TableSnapshot,
    TableSpec, Version,
};

use super::random::Random;

/// The watermark that holds the number of the last step.
pub(crate) const STEP: &str = "step";

type IsWanted<'a> = &'a dyn Fn(&[u8]) -> bool;
pub(crate) type Key = (i64, String);
pub(crate) type ModelRows = BTreeMap<Key, i64>;
pub(crate) type Entries = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

/// A table of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelTable {
    pub(crate) rows: Arc<ModelRows>,
    /// The number of times that it was created or replaced.
    pub(crate) incarnation: u64,
    pub(crate) num_versions_kept: u64,
    /// The oldest step whose version must be readable. It never goes back: what has gone does not come again.
    pub(crate) promised_from: u64,
    /// The steps that changed it since it was created, with what they did.
    pub(crate) commits: Arc<Vec<(u64, CommitKind, RowCounts)>>,
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) tables: BTreeMap<String, ModelTable>,
    pub(crate) namespaces: BTreeMap<String, Arc<Entries>>,
    /// The last step that was done, which is the number of its commit too. 0 if there was none.
    pub(crate) step: u64,
}

/// One change of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Create(String),
    Drop(String),
    Replace(String, Vec<(Key, i64)>),
    Upsert(String, Vec<(Key, i64)>),
    Delete(String, Vec<Key>),
    Retain(String, u64),
    Put(String, Vec<u8>, Vec<u8>, Option<u64>),
    Remove(String, Vec<u8>),
    Clear(String),
}

/// How much work one step is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) num_keys: u64,
    pub(crate) num_rows: u64,
    /// Whether entries of keyed state end after a few milliseconds of the test's clock.
    pub(crate) ends: bool,
}

impl Scale {
    pub(crate) const SMALL: Self = Self {
        num_keys: 60,
        num_rows: 25,
        ends: true,
    };
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("payload", DataType::Int64, true),
        Field::new("region", DataType::Utf8, false),
    ]))
}

pub(crate) fn spec() -> TableSpec {
    TableSpec::new(&schema(), &["id", "region"]).unwrap()
}

fn rows(rows: &[(Key, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.1)).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| Some(&row.0.1))
                .collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn keys(keys: &[Key]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys.iter().map(|key| key.0).collect::<Int64Array>()),
        Arc::new(keys.iter().map(|key| Some(&key.1)).collect::<StringArray>()),
    ];
    RecordBatch::try_new(Arc::clone(spec().key_schema()), columns).unwrap()
}

/// Plans the transaction of the next step.
pub(crate) fn plan(model: &Model, random: &mut Random, scale: Scale) -> Vec<Edit> {
    let step = model.step + 1;
    let mut exists: BTreeMap<String, bool> = BTreeMap::new();
    let mut edits = Vec::new();
    for _ in 0..=random.below(3) {
        if random.below(3) == 0 {
            edits.extend(plan_state(random, scale));
            continue;
        }
        let name = format!("t{}", random.below(3));
        let is_there = *exists
            .entry(name.clone())
            .or_insert_with(|| model.tables.contains_key(&name));
        if !is_there {
            edits.push(Edit::Create(name.clone()));
            exists.insert(name.clone(), true);
        }
        let is_dropped = random.below(3) == 0;
        let num_kept = 1 + random.below(6);
        let mut key = || -> Key {
            let region = ["east", "west", ""][random.below(3) as usize];
            (random.below(scale.num_keys) as i64, region.to_owned())
        };
        match step % 13 {
            0 if is_dropped => {
                edits.push(Edit::Drop(name.clone()));
                exists.insert(name, false);
            }
            1 => {
                let distinct: BTreeMap<Key, i64> =
                    (0..scale.num_rows).map(|i| (key(), i as i64)).collect();
                edits.push(Edit::Replace(name, distinct.into_iter().collect()));
            }
            3..6 => {
                let gone = (0..scale.num_rows).map(|_| key()).collect();
                edits.push(Edit::Delete(name, gone));
            }
            6 => edits.push(Edit::Retain(name, num_kept)),
            _ => {
                let new = (0..scale.num_rows)
                    .map(|i| (key(), (step * 1000 + i) as i64))
                    .collect();
                edits.push(Edit::Upsert(name, new));
            }
        }
    }
    edits
}

fn plan_state(random: &mut Random, scale: Scale) -> Vec<Edit> {
    let name = format!("n{}", random.below(2));
    if random.below(60) == 0 {
        return vec![Edit::Clear(name)];
    }
    let mut edits = Vec::new();
    for _ in 0..=random.below(scale.num_rows) {
        let number = random.below(scale.num_keys);
        let mut key = format!("k{number}").into_bytes();
        // Keys that are longer than what the bounds of a page hold, with a common beginning.
        if number.is_multiple_of(7) {
            key = [vec![7; 150], key].concat();
        }
        edits.push(match random.below(4) {
            0 => Edit::Remove(name.clone(), key),
            kind => {
                let len = match random.below(20) {
                    0 => 3000,
                    _ => random.below(40) as usize,
                };
                let value = vec![random.below(256) as u8; len];
                let millis = (scale.ends && kind == 1).then(|| random.below(40));
                Edit::Put(name.clone(), key, value, millis)
            }
        });
    }
    edits
}

/// Does a transaction, with the watermark of its step.
pub(crate) fn commit(store: &Store, step: u64, edits: &[Edit]) -> Result<Version> {
    let mut transaction = store.begin()?;
    for edit in edits {
        match edit {
            Edit::Create(name) => transaction.create_table(name, spec())?,
            Edit::Drop(name) => transaction.drop_table(name)?,
            Edit::Replace(name, new) => {
                transaction.replace(name, spec())?;
                transaction.declare_distinct(name)?;
                transaction.upsert(name, &rows(new))?;
            }
            Edit::Upsert(name, new) => transaction.upsert(name, &rows(new))?,
            Edit::Delete(name, gone) => transaction.delete(name, &keys(gone))?,
            Edit::Retain(name, num_versions) => {
                let retention = Retention {
                    num_versions: *num_versions,
                    age: Duration::ZERO,
                };
                transaction.set_retention(name, retention)?;
            }
            Edit::Put(name, key, value, None) => transaction.put_state(name, key, value)?,
            Edit::Put(name, key, value, Some(millis)) => {
                let time_to_live = Duration::from_millis(*millis);
                transaction.put_state_for(name, key, value, time_to_live)?;
            }
            Edit::Remove(name, key) => transaction.delete_state(name, key)?,
            Edit::Clear(name) => transaction.clear_state(name)?,
        }
    }
    transaction.set_watermark(STEP, &step.to_le_bytes())?;
    transaction.commit()
}

/// The step of the last commit that a store has.
pub(crate) fn step_of(store: &Store) -> u64 {
    store.watermark(STEP).map_or(0, |watermark| {
        u64::from_le_bytes(watermark.value.try_into().unwrap())
    })
}

impl Model {
    /// Does a transaction to the model.
    pub(crate) fn apply(&mut self, edits: &[Edit], now_us: i64) {
        self.step += 1;
        let step = self.step;
        let before = self.tables.clone();
        // For each table that goes on: what it was before, which of its rows the step has put there, and what it did.
        let mut touched: BTreeMap<String, (CommitKind, ModelRows)> = BTreeMap::new();
        let mut removed: BTreeMap<String, ModelRows> = BTreeMap::new();
        for edit in edits {
            match edit {
                Edit::Create(name) => {
                    self.tables.insert(
                        name.clone(),
                        ModelTable {
                            incarnation: step,
                            num_versions_kept: 1,
                            ..ModelTable::default()
                        },
                    );
                    touched.insert(name.clone(), (CommitKind::Create, ModelRows::new()));
                    removed.remove(name);
                }
                Edit::Drop(name) => {
                    self.tables.remove(name);
                    touched.remove(name);
                    removed.remove(name);
                }
                Edit::Replace(name, new) => {
                    let table = self.tables.get_mut(name).unwrap();
                    let is_new = touched.get(name).is_some_and(|t| t.0 == CommitKind::Create);
                    let kind = if is_new {
                        CommitKind::Create
                    } else {
                        // Everything that was there before the step is gone.
                        let old = before.get(name).map(|table| (*table.rows).clone());
                        removed.insert(name.clone(), old.unwrap_or_default());
                        CommitKind::Replace
                    };
                    table.rows = Arc::new(new.iter().cloned().collect());
                    table.incarnation = step;
                    touched.insert(name.clone(), (kind, (*table.rows).clone()));
                }
                Edit::Upsert(name, new) => {
                    let table = self.tables.get_mut(name).unwrap();
                    let (_, added) = touched
                        .entry(name.clone())
                        .or_insert((CommitKind::Write, ModelRows::new()));
                    for (key, payload) in new {
                        let old = Arc::make_mut(&mut table.rows).insert(key.clone(), *payload);
                        if let Some(old) = old
                            && !added.contains_key(key)
                        {
                            removed
                                .entry(name.clone())
                                .or_default()
                                .insert(key.clone(), old);
                        }
                        added.insert(key.clone(), *payload);
                    }
                }
                Edit::Delete(name, gone) => {
                    let table = self.tables.get_mut(name).unwrap();
                    let (_, added) = touched
                        .entry(name.clone())
                        .or_insert((CommitKind::Write, ModelRows::new()));
                    for key in gone {
                        let old = Arc::make_mut(&mut table.rows).remove(key);
                        if added.remove(key).is_none()
                            && let Some(old) = old
                        {
                            removed
                                .entry(name.clone())
                                .or_default()
                                .insert(key.clone(), old);
                        }
                    }
                }
                Edit::Retain(name, num_versions) => {
                    self.tables.get_mut(name).unwrap().num_versions_kept = *num_versions;
                }
                Edit::Put(name, key, value, millis) => {
                    let ends_us = millis.map_or(i64::MAX, |millis| now_us + millis as i64 * 1000);
                    let entries = self.namespaces.entry(name.clone()).or_default();
                    Arc::make_mut(entries).insert(key.clone(), (value.clone(), ends_us));
                }
                Edit::Remove(name, key) => {
                    let entries = self.namespaces.entry(name.clone()).or_default();
                    Arc::make_mut(entries).remove(key);
                }
                Edit::Clear(name) => {
                    self.namespaces.insert(name.clone(), Arc::default());
                }
            }
        }
        for (name, (kind, added)) in touched {
            let table = self.tables.get_mut(&name).unwrap();
            let counts = RowCounts {
                num_added: added.len() as u64,
                num_removed: removed.get(&name).map_or(0, |removed| removed.len() as u64),
                num_live: table.rows.len() as u64,
            };
            Arc::make_mut(&mut table.commits).push((step, kind, counts));
        }
        for table in self.tables.values_mut() {
            let num_before = table
                .commits
                .len()
                .saturating_sub(table.num_versions_kept as usize);
            table.promised_from = table.promised_from.max(table.commits[num_before].0);
        }
    }
}

fn collect(found: Rows) -> ModelRows {
    collect_batches(found.map(std::result::Result::unwrap))
}

fn collect_batches(found: impl Iterator<Item = RecordBatch>) -> ModelRows {
    let mut collected = ModelRows::new();
    for batch in found {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let payloads = batch.column(1).as_primitive::<Int64Type>();
        let regions = batch.column(2).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let key = (ids.value(row), regions.value(row).to_owned());
            let before = collected.insert(key, payloads.value(row));
            assert!(before.is_none(), "a key came twice");
        }
    }
    collected
}

/// Reads all rows of a table.
pub(crate) fn read(table: &TableSnapshot) -> ModelRows {
    let found = collect(table.rows(None).unwrap());
    assert_eq!(table.num_rows().unwrap(), found.len() as u64);
    found
}

/// Reads a table page by page from the last to the first, and its keys one by one from the pages that may have them.
fn check_pages(table: &TableSnapshot, expected: &ModelRows) {
    let name = table.name();
    let scan = table.scan(None, None).unwrap();
    let pages: Vec<usize> = (0..table.pages().len()).rev().collect();
    let (first, second) = pages.split_at(pages.len() / 2);
    let batches = [first, second]
        .map(|pages| scan.read(pages).unwrap())
        .concat();
    assert_eq!(
        collect_batches(batches.into_iter()),
        *expected,
        "pages of {name}"
    );
    let counted = table.scan(Some(&[]), None).unwrap().read(&pages).unwrap();
    let num_rows: usize = counted.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(num_rows, expected.len(), "rows in pages of {name}");
    let ids = expected.keys().map(|(id, _)| *id).step_by(7);
    for id in ids.chain([-1]) {
        let wanted: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        let all: Vec<usize> = (0..pages.len()).collect();
        let may_hold = table.may_hold(0, &wanted, &all).unwrap();
        let relevant: Vec<usize> = all.into_iter().filter(|page| may_hold[*page]).collect();
        let scan = table.scan(None, Some(relevant.clone())).unwrap();
        // Rows of other keys may come that do not count, even twice.
        let found = scan.read(&relevant).unwrap().into_iter().map(|rows| {
            let ids = rows.column(0).as_primitive::<Int64Type>();
            let is_wanted = ids.iter().map(|found| Some(found == Some(id))).collect();
            arrow_select::filter::filter_record_batch(&rows, &is_wanted).unwrap()
        });
        let expected = expected.iter().filter(|((found, _), _)| *found == id);
        let expected: ModelRows = expected.map(|(key, value)| (key.clone(), *value)).collect();
        assert_eq!(collect_batches(found), expected, "id {id} of {name}");
    }
}

/// Compares all that a store holds with the model.
pub(crate) fn check(store: &Store, model: &Model, now_us: i64) {
    assert_eq!(step_of(store), model.step);
    assert_eq!(store.version().number, model.step);
    assert_eq!(
        store.table_names(),
        model.tables.keys().cloned().collect::<Vec<_>>()
    );
    for (name, expected) in &model.tables {
        let table = store.table(name).unwrap();
        assert_eq!(read(&table), *expected.rows, "table {name}");
        check_pages(&table, &expected.rows);
    }
    assert_eq!(
        store.namespaces(),
        model.namespaces.keys().cloned().collect::<Vec<_>>()
    );
    for (name, expected) in &model.namespaces {
        let state = store.state(name).unwrap();
        let found: Vec<(Vec<u8>, Vec<u8>)> = state
            .scan(&Scan::all())
            .unwrap()
            .map(|entry| {
                entry
                    .map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .unwrap()
            })
            .collect();
        let expected: Vec<(Vec<u8>, Vec<u8>)> = expected
            .iter()
            .filter(|(_, (_, ends_us))| *ends_us > now_us)
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect();
        assert_eq!(found, expected, "namespace {name}");
        assert_eq!(
            state.len().unwrap(),
            expected.len() as u64,
            "namespace {name}"
        );
    }
}

/// Compares single reads of keyed state with the model.
pub(crate) fn check_state(store: &Store, model: &Model, random: &mut Random, now_us: i64) {
    for (name, entries) in &model.namespaces {
        let state = store.state(name).unwrap();
        let live: BTreeMap<&[u8], &[u8]> = entries
            .iter()
            .filter(|(_, (_, ends_us))| *ends_us > now_us)
            .map(|(key, (value, _))| (&key[..], &value[..]))
            .collect();
        let key = |random: &mut Random| format!("k{}", random.below(70)).into_bytes();
        let keys: Vec<Vec<u8>> = (0..4).map(|_| key(random)).collect();
        let found = state.get_many(&keys).unwrap();
        for (key, found) in keys.iter().zip(found) {
            assert_eq!(found.as_deref(), live.get(&key[..]).copied(), "key {key:?}");
            assert_eq!(state.get(key).unwrap().as_deref(), found.as_deref());
            assert_eq!(state.exists(key).unwrap(), found.is_some());
        }
        let (start, end) = (key(random), key(random));
        let limit = random.below(12) as usize;
        let prefix =
            [b"k1".to_vec(), b"k".to_vec(), vec![7; 100]][random.below(3) as usize].clone();
        let in_range = |key: &[u8]| start[..] <= *key && *key < end[..];
        let has_prefix = |key: &[u8]| key.starts_with(&prefix);
        let cases: [(Scan, IsWanted<'_>); 2] = [
            (Scan::range(start.clone(), end.clone()), &in_range),
            (Scan::prefix(prefix.clone()), &has_prefix),
        ];
        for (scan, is_wanted) in cases {
            let mut expected: Vec<Vec<u8>> = live
                .keys()
                .filter(|key| is_wanted(key))
                .map(|key| key.to_vec())
                .collect();
            let scanned = |scan: &Scan| -> Vec<Vec<u8>> {
                let entries = state.scan(scan).unwrap();
                entries.map(|entry| entry.unwrap().0.to_vec()).collect()
            };
            let first: Vec<Vec<u8>> = expected.iter().take(limit).cloned().collect();
            assert_eq!(scanned(&scan.clone().limit(limit)), first, "{scan:?}");
            expected.reverse();
            assert_eq!(scanned(&scan.clone().reverse()), expected, "{scan:?}");
            expected.truncate(limit);
            assert_eq!(scanned(&scan.reverse().limit(limit)), expected);
        }
    }
}

/// Compares a table as of an earlier step, and what has changed since, with the models of then and now.
///
/// Returns whether that version was still kept.
pub(crate) fn check_as_of(store: &Store, then: &Model, now: &Model, name: &str) -> bool {
    let (Some(old), Some(new)) = (then.tables.get(name), now.tables.get(name)) else {
        return false;
    };
    let created = |table: &ModelTable| table.commits.first().unwrap().0;
    let is_same = created(old) == created(new);
    // Before the past is asked for: a compaction, which may come at any time, gives it up for whoever comes later.
    let table = store.table(name).unwrap();
    let found = match store.table_at(name, AsOf::Version(then.step)) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            let newest = old.commits.last().unwrap().0;
            let is_promised = is_same && newest >= new.promised_from;
            assert!(!is_promised, "{error}: promised={}", new.promised_from);
            return false;
        }
    };
    assert!(is_same, "a table that was dropped was read");
    assert_eq!(read(&found), *old.rows, "table {name} as of {}", then.step);
    assert_eq!(found.version().number, old.commits.last().unwrap().0);
    let changes = table.changes_since(then.step, None).unwrap();
    assert_eq!(changes.is_replaced, new.incarnation > then.step);
    let mut rows = if changes.is_replaced {
        ModelRows::new()
    } else {
        (*old.rows).clone()
    };
    for batch in changes.deletes {
        let batch = batch.unwrap();
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let regions = batch.column(1).as_string::<i32>();
        for row in 0..batch.num_rows() {
            rows.remove(&(ids.value(row), regions.value(row).to_owned()));
        }
    }
    rows.extend(collect(changes.upserts));
    assert_eq!(rows, *new.rows, "table {name} changed since {}", then.step);
    true
}

/// Compares the history of every table with the model.
pub(crate) fn check_history(store: &Store, model: &Model) {
    for (name, expected) in &model.tables {
        let history = store.table(name).unwrap().history().unwrap();
        let skip = expected.commits.len() - history.len();
        for (found, expected) in history.iter().zip(&expected.commits[skip..]) {
            assert_eq!(found.version.number, expected.0, "table {name}");
            assert_eq!(found.kind, expected.1, "table {name} commit {}", expected.0);
            assert_eq!(
                found.counts,
                Some(expected.2),
                "table {name} commit {}",
                expected.0
            );
        }
        assert!(history.last().unwrap().is_readable);
    }
}
