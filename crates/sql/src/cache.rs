//! Dimensions that were built from tables, kept for the queries that come next.
//!
//! A dimension never changes, so one that was built for a version of a table serves every query that reads that
//! version, on any thread, for as long as it is kept. What is kept is bounded by bytes: when it is too much, versions
//! go first that are not the newest and that nobody uses, then whatever was used least recently. What goes is not
//! lost to those who still use it: as long as one of them does, another who asks gets the same.

use std::{
    cmp::Reverse,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use darner_engine::{Dimension, Result, load_dimension};
use darner_store::{TableSnapshot, Version};

/// The bytes that are kept unless a session says otherwise: a few dimensions of some million rows.
pub(crate) const CACHE_BYTES: usize = 1 << 30;

/// Dimensions of one store, by table, version and columns.
pub(crate) struct DimensionCache {
    state: Mutex<State>,
    /// Something that was being built is done, or failed.
    is_built: Condvar,
}

struct State {
    bytes_max: usize,
    kept: Vec<Entry>,
    /// What is being built now. Whoever wants one of these waits.
    building: Vec<Wanted>,
    /// How often the cache was asked: tells what was used last.
    num_uses: u64,
}

struct Entry {
    what: Wanted,
    held: Held,
    last_use: u64,
}

enum Held {
    /// Counts against the budget.
    Kept(Arc<Dimension>),
    /// Had to go, but somebody may still use it.
    Gone(Weak<Dimension>),
}

/// A table as of a commit, and columns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    table: String,
    /// A table that was dropped and made again is another one.
    created: Version,
    version: Version,
    /// Sorted, without those of the key, which every dimension has.
    columns: Vec<String>,
}

/// What [`DimensionCache::fetch`] found.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) dimension: Arc<Dimension>,
    /// Whether it had to be built by this call.
    pub(crate) is_new: bool,
}

/// Says nothing of what is kept: plans show their caches, and that would be tables.
impl fmt::Debug for DimensionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DimensionCache").finish_non_exhaustive()
    }
}

impl Default for DimensionCache {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                bytes_max: CACHE_BYTES,
                kept: Vec::new(),
                building: Vec::new(),
                num_uses: 0,
            }),
            is_built: Condvar::new(),
        }
    }
}

impl DimensionCache {
    /// The dimension of a table with at least these columns beside its key. Builds it if nobody has, and waits if
    /// another thread is at it.
    ///
    /// Reads pages, uses the current rayon pool and blocks: call it where one may block, and not from within that pool.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for an unknown column, and those of
    /// [`load_dimension`]. Nothing is kept then.
    pub(crate) fn get(
        &self,
        snapshot: &TableSnapshot,
        columns: &[String],
    ) -> Result<Arc<Dimension>> {
        Ok(self.fetch(snapshot, columns)?.dimension)
    }

    /// As [`get`](Self::get), and says whether it was there.
    ///
    /// # Errors
    /// As for `get`.
    pub(crate) fn fetch(&self, snapshot: &TableSnapshot, columns: &[String]) -> Result<Fetched> {
        let wanted = Wanted::new(snapshot, columns);
        let mut state = self.lock();
        loop {
            if let Some(dimension) = state.find(&wanted) {
                let is_new = false;
                return Ok(Fetched { dimension, is_new });
            }
            if !state.building.iter().any(|other| other.serves(&wanted)) {
                break;
            }
            let waited = self.is_built.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.building.push(wanted.clone());
        drop(state);
        // Ends the wait of the others also if this fails or panics.
        let building = Building {
            cache: self,
            wanted: &wanted,
        };
        let dimension = Arc::new(load_dimension(snapshot, Some(&wanted.columns))?);
        self.lock().keep(wanted.clone(), &dimension);
        drop(building);
        let is_new = true;
        Ok(Fetched { dimension, is_new })
    }

    /// Whether a dimension with these columns is there, and would not have to be built.
    pub(crate) fn has(&self, snapshot: &TableSnapshot, columns: &[String]) -> bool {
        let wanted = Wanted::new(snapshot, columns);
        let state = self.lock();
        let mut entries = state.kept.iter();
        entries.any(|entry| entry.what.serves(&wanted) && entry.dimension().is_some())
    }

    /// Sets how many bytes are kept. Sessions that share a store share this, and the last one to say decides.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        let mut state = self.lock();
        state.bytes_max = bytes_max;
        state.evict();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The dimension with the fewest columns that will do.
    fn find(&mut self, wanted: &Wanted) -> Option<Arc<Dimension>> {
        self.num_uses += 1;
        let serving = self.kept.iter_mut().filter_map(|entry| {
            let dimension = entry
                .what
                .serves(wanted)
                .then(|| entry.dimension())
                .flatten()?;
            Some((entry, dimension))
        });
        let (entry, dimension) = serving.min_by_key(|(entry, _)| entry.what.columns.len())?;
        entry.last_use = self.num_uses;
        Some(dimension)
    }

    fn keep(&mut self, what: Wanted, dimension: &Arc<Dimension>) {
        // The new one does for whatever those with fewer columns did.
        self.kept.retain(|entry| !what.serves(&entry.what));
        self.num_uses += 1;
        self.kept.push(Entry {
            what,
            held: Held::Kept(Arc::clone(dimension)),
            last_use: self.num_uses,
        });
        self.evict();
    }

    /// Lets go until what is kept is within bounds.
    fn evict(&mut self) {
        self.kept.retain(|entry| entry.dimension().is_some());
        // Dimensions grow while they are used, so this is asked for anew each time.
        let mut num_bytes: usize = self.kept.iter().map(Entry::num_bytes).sum();
        while num_bytes > self.bytes_max {
            let kept = 0..self.kept.len();
            let kept = kept.filter(|at| matches!(self.kept[*at].held, Held::Kept(_)));
            let victim = kept.min_by_key(|at| {
                let entry = &self.kept[*at];
                let is_old = self
                    .kept
                    .iter()
                    .any(|other| other.what.is_newer(&entry.what));
                (Reverse(is_old && !entry.is_used()), entry.last_use)
            });
            let Some(victim) = victim else { break };
            let entry = &mut self.kept[victim];
            num_bytes -= entry.num_bytes();
            if let Held::Kept(dimension) = &entry.held {
                entry.held = Held::Gone(Arc::downgrade(dimension));
            }
        }
        self.kept.retain(|entry| entry.dimension().is_some());
    }
}

impl Entry {
    fn dimension(&self) -> Option<Arc<Dimension>> {
        match &self.held {
            Held::Kept(dimension) => Some(Arc::clone(dimension)),
            Held::Gone(dimension) => dimension.upgrade(),
        }
    }

    /// Whether somebody beside the cache has it.
    fn is_used(&self) -> bool {
        match &self.held {
            Held::Kept(dimension) => Arc::strong_count(dimension) > 1,
            Held::Gone(dimension) => dimension.strong_count() > 0,
        }
    }

    /// Bytes that the cache answers for.
    fn num_bytes(&self) -> usize {
        match &self.held {
            Held::Kept(dimension) => dimension.memory_bytes(),
            Held::Gone(_) => 0,
        }
    }
}

impl Wanted {
    fn new(snapshot: &TableSnapshot, columns: &[String]) -> Self {
        let key = snapshot.key_names();
        let mut columns: Vec<String> = columns
            .iter()
            .filter(|column| !key.contains(&column.as_str()))
            .cloned()
            .collect();
        columns.sort_unstable();
        columns.dedup();
        Self {
            table: snapshot.name().to_owned(),
            created: snapshot.created(),
            version: snapshot.version(),
            columns,
        }
    }

    /// Whether who wants `other` can do with this.
    fn serves(&self, other: &Self) -> bool {
        let has = |column| self.columns.binary_search(column).is_ok();
        self.table == other.table
            && self.created == other.created
            && self.version == other.version
            && other.columns.iter().all(has)
    }

    /// Whether this is a later version of the same table, or of another that took its name.
    fn is_newer(&self, other: &Self) -> bool {
        self.table == other.table && self.version > other.version
    }
}

/// What is being built, until it is not any more.
struct Building<'c> {
    cache: &'c DimensionCache,
    wanted: &'c Wanted,
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.building.retain(|other| other != self.wanted);
        self.cache.is_built.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use darner_engine::ErrorKind;
    use darner_store::{Store, StoreOptions, TableSpec};

    use super::*;

    fn rows(keys: std::ops::Range<i64>) -> RecordBatch {
        let texts = keys.clone().map(|key| Some(format!("row {key}")));
        RecordBatch::try_from_iter([
            (
                "id",
                Arc::new(Int64Array::from_iter_values(keys.clone())) as ArrayRef,
            ),
            ("name", Arc::new(texts.collect::<StringArray>()) as ArrayRef),
            (
                "n",
                Arc::new(Int64Array::from_iter_values(keys)) as ArrayRef,
            ),
        ])
        .unwrap()
    }

    /// Adds these keys, in a table that is made if it is not there.
    fn commit(store: &Store, table: &str, keys: std::ops::Range<i64>) -> TableSnapshot {
        let rows = rows(keys);
        let mut transaction = store.begin().unwrap();
        if transaction.table_spec(table).is_none() {
            let spec = TableSpec::new(&rows.schema(), &["id"]).unwrap();
            transaction.create_table(table, spec).unwrap();
        }
        transaction.upsert(table, &rows).unwrap();
        transaction.commit().unwrap();
        store.table(table).unwrap()
    }

    fn names(columns: &[&str]) -> Vec<String> {
        columns.iter().map(|&column| column.to_owned()).collect()
    }

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_dimension_is_built_once_and_serves_those_who_want_less() {
        let (_dir, store) = open();
        let table = commit(&store, "t", 0..10);
        let cache = DimensionCache::default();
        assert!(!cache.has(&table, &[]));
        let name = cache.fetch(&table, &names(&["name"])).unwrap();
        assert!(name.is_new);
        assert_eq!(name.dimension.schema().fields().len(), 2);
        let again = cache
            .fetch(&table, &names(&["name", "id", "name"]))
            .unwrap();
        assert!(!again.is_new && Arc::ptr_eq(&name.dimension, &again.dimension));
        let keys = cache.fetch(&table, &[]).unwrap();
        assert!(Arc::ptr_eq(&name.dimension, &keys.dimension));
        let both = cache.fetch(&table, &names(&["name", "n"])).unwrap();
        assert!(both.is_new);
        // What has fewer columns is not needed any more.
        let name = cache.fetch(&table, &names(&["name"])).unwrap();
        assert!(Arc::ptr_eq(&name.dimension, &both.dimension));
        assert_eq!(cache.lock().kept.len(), 1);
    }

    #[test]
    fn versions_and_tables_are_not_mixed_up() {
        let (_dir, store) = open();
        let cache = DimensionCache::default();
        let num_rows =
            |table: &TableSnapshot| cache.fetch(table, &[]).unwrap().dimension.num_rows();
        let first = commit(&store, "t", 0..10);
        let second = commit(&store, "t", 5..20);
        assert_eq!((num_rows(&first), num_rows(&second)), (10, 20));
        let mut transaction = store.begin().unwrap();
        transaction.drop_table("t").unwrap();
        transaction.commit().unwrap();
        let third = commit(&store, "t", 0..3);
        let other = commit(&store, "other", 0..4);
        assert_eq!((num_rows(&third), num_rows(&other)), (3, 4));
        assert_eq!((num_rows(&first), num_rows(&second)), (10, 20));
    }

    #[test]
    fn old_versions_go_first_then_what_was_used_least_recently() {
        let (_dir, store) = open();
        let cache = DimensionCache::default();
        let tables: Vec<_> = ["a", "b", "c"]
            .map(|name| commit(&store, name, 0..1000))
            .into();
        let old = commit(&store, "old", 0..1000);
        let new = commit(&store, "old", 0..1000);
        let fetch = |table| drop(cache.fetch(table, &[]).unwrap());
        tables.iter().for_each(fetch);
        fetch(&new);
        fetch(&old);
        fetch(&tables[0]);
        let all: usize = cache.lock().kept.iter().map(Entry::num_bytes).sum();
        cache.set_bytes_max(all);
        assert!(tables.iter().chain([&old, &new]).all(|t| cache.has(t, &[])));
        cache.set_bytes_max(all - 1);
        assert!(!cache.has(&old, &[]) && cache.has(&tables[1], &[]));
        cache.set_bytes_max(all * 3 / 5);
        assert!(!cache.has(&tables[1], &[]));
        assert!(cache.has(&tables[0], &[]) && cache.has(&tables[2], &[]) && cache.has(&new, &[]));
    }

    #[test]
    fn what_had_to_go_is_shared_as_long_as_somebody_uses_it() {
        let (_dir, store) = open();
        let table = commit(&store, "t", 0..10);
        let cache = DimensionCache::default();
        cache.set_bytes_max(0);
        let used = cache.fetch(&table, &[]).unwrap();
        let again = cache.fetch(&table, &[]).unwrap();
        assert!(Arc::ptr_eq(&used.dimension, &again.dimension));
        drop((used, again));
        assert!(!cache.has(&table, &[]));
        assert!(cache.fetch(&table, &[]).unwrap().is_new);
    }

    #[test]
    fn many_at_once_build_once() {
        let (_dir, store) = open();
        let table = commit(&store, "t", 0..50_000);
        let cache = DimensionCache::default();
        let barrier = std::sync::Barrier::new(8);
        let num_new = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        cache.fetch(&table, &names(&["name"])).unwrap().is_new
                    })
                })
                .collect();
            let threads = threads.into_iter().map(|thread| thread.join().unwrap());
            threads.filter(|is_new| *is_new).count()
        });
        assert_eq!(num_new, 1);
        assert!(cache.lock().building.is_empty());
    }

    #[test]
    fn what_fails_is_not_kept_and_nobody_waits_for_it() {
        let (_dir, store) = open();
        let table = commit(&store, "t", 0..10);
        let cache = DimensionCache::default();
        for _ in 0..2 {
            let error = cache.fetch(&table, &names(&["nme"])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        assert!(cache.lock().building.is_empty() && cache.lock().kept.is_empty());
    }
}
