//! A namespace in memory: every entry, or those that changed since the last checkpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table};

use super::{
    entry::Entry,
    key::Key,
    op::StateOp,
    pages::{PageCache, encode_pages, read_all},
};
use crate::{
    apart::{Length, apart},
    error::Result,
    keyspace::{Keyspace, Wanted},
    page::EncodedPage,
    state::TableState,
    version::Version,
};

/// What an entry costs beside its key and value: the map's slot, its header, its place among the changed.
const ENTRY_BYTES: usize = 96;

/// Changed entries that are read at once while others wait.
const FLUSH_KEYS: usize = 1 << 10;

/// Entries by key; `None` is a deleted one.
pub(super) type Changed = BTreeMap<Key, Option<Entry>>;

/// The same, once in order, on the way into pages.
pub(super) type ChangedEntries = Vec<(Key, Option<Entry>)>;

/// One namespace of keyed state.
pub(crate) struct Namespace {
    memory_bytes_max: usize,
    inner: RwLock<Inner>,
    cache: Mutex<PageCache>,
}

pub(super) struct Inner {
    /// The pages, as of the last checkpoint.
    pub(super) table: TableState,
    /// Emptied since the last checkpoint: the pages do not count.
    pub(super) is_cleared: bool,
    pub(super) entries: Entries,
    /// Changes are on their way into pages that are not in `table` yet.
    is_flushing: bool,
    /// It was looked at whether all entries fit the budget.
    is_decided: bool,
}

pub(super) enum Entries {
    Resident(Resident),
    Paged(Changed),
}

pub(super) struct Resident {
    map: HashTable<Entry>,
    hasher: RandomState,
    /// The same keys in order, once somebody has asked for an order.
    sorted: Option<BTreeSet<Key>>,
    /// When entries end.
    expiries: BTreeSet<(i64, Key)>,
    /// Keys that were put or deleted and are not in pages yet, some twice.
    changed: Vec<Key>,
    /// Counts how often `changed` was begun anew, from 1. Entries of this round are among them.
    round: u32,
    num_bytes: usize,
}

impl Default for Resident {
    fn default() -> Self {
        Self {
            map: HashTable::new(),
            hasher: RandomState::default(),
            sorted: None,
            expiries: BTreeSet::new(),
            changed: Vec::new(),
            round: 1,
            num_bytes: 0,
        }
    }
}

impl Namespace {
    pub(crate) fn new(table: TableState, memory_bytes_max: usize) -> Self {
        let entries = if table.pages.is_empty() {
            Entries::Resident(Resident::default())
        } else {
            Entries::Paged(Changed::new())
        };
        Self {
            memory_bytes_max,
            inner: RwLock::new(Inner {
                table,
                is_cleared: false,
                is_decided: matches!(entries, Entries::Resident(_)),
                entries,
                is_flushing: false,
            }),
            cache: Mutex::new(PageCache::new(memory_bytes_max / 2)),
        }
    }

    /// The pages, as of the last checkpoint.
    pub(crate) fn table(&self) -> TableState {
        self.read_raw().table.clone()
    }

    /// Goes over to a new checkpoint, which was made while entries changed. What it has of them beyond the pages that are
    /// here is left out, and written again by the next.
    pub(crate) fn follow_checkpoint(&self, written: &TableState) {
        let table = &mut self.write().table;
        if table.generation == written.generation {
            let is_same = Arc::ptr_eq(&table.pages, &written.pages);
            table.checkpointed = written.checkpointed.clone().filter(|_| is_same);
        }
    }

    pub(super) fn cache(&self) -> &Mutex<PageCache> {
        &self.cache
    }

    fn read_raw(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks in, after all entries were brought into memory if they fit.
    pub(super) fn read(&self) -> Result<RwLockReadGuard<'_, Inner>> {
        let inner = self.read_raw();
        if inner.is_decided {
            return Ok(inner);
        }
        drop(inner);
        let mut inner = self.write();
        if !inner.is_decided {
            let loaded = &mut *inner;
            apart(Length::Short, || loaded.load(self.memory_bytes_max))?;
        }
        drop(inner);
        Ok(self.read_raw())
    }

    /// Looks in, with the keys in order if they are all in memory.
    pub(super) fn read_sorted(&self) -> Result<RwLockReadGuard<'_, Inner>> {
        loop {
            let inner = self.read()?;
            match &inner.entries {
                Entries::Resident(resident) if resident.sorted.is_none() => {}
                _ => return Ok(inner),
            }
            drop(inner);
            // Somebody may clear the namespace in between: then the answer is not sorted yet, and this begins again.
            if let Entries::Resident(resident) = &mut self.write().entries {
                resident.sorted = Some(
                    resident
                        .map
                        .iter()
                        .map(|entry| entry.key().into())
                        .collect(),
                );
            }
        }
    }

    /// Brings the changes of one commit in, all at once for whoever reads.
    pub(crate) fn apply(&self, ops: Vec<StateOp>, now_us: i64) {
        let mut inner = self.write();
        inner.apply(ops, now_us);
        inner.keep_budget(self.memory_bytes_max);
    }

    /// Does ahead of a checkpoint what takes long: writes what has changed by now into pages and brings them to disk,
    /// while others go on changing entries. Returns how many entries that were. `checkpointing` is held, so that nobody
    /// else flushes or publishes.
    pub(crate) fn flush_ahead(&self, version: Version, page_bytes: usize) -> Result<usize> {
        let Some(flushing) = Flushing::begin(self) else {
            return Ok(0);
        };
        let num_entries = flushing.changed.len();
        let pages = encode_pages(&flushing.changed, page_bytes)?;
        let Some((keyspace, wanted)) = flushing.end(pages, version) else {
            return Ok(0);
        };
        keyspace.flush_ahead(&wanted)?;
        Ok(num_entries)
    }

    /// Writes what changed since the last checkpoint, and the `pending` changes that are not in memory yet, into pages
    /// of `base`, the table as it is or as a compaction leaves it. Returns the table with them, for
    /// [`publish`](Self::publish) once it is in a checkpoint.
    ///
    /// `open` makes the files of a new generation, for a namespace that was cleared.
    pub(crate) fn flush(
        &self,
        base: &TableState,
        pending: &[StateOp],
        version: Version,
        page_bytes: usize,
        now_us: i64,
        open: impl FnOnce(u32) -> Arc<Keyspace>,
    ) -> Result<TableState> {
        let inner = self.read_raw();
        let mut is_cleared = inner.is_cleared;
        let mut changed = inner.changed();
        drop(inner);
        if !pending.is_empty() {
            let mut by_key: Changed = changed.into_iter().collect();
            is_cleared |= add_pending(&mut by_key, pending);
            changed = by_key.into_iter().collect();
        }
        for (_, entry) in &mut changed {
            entry.take_if(|entry| !entry.is_live(|| now_us));
        }
        let mut table = if is_cleared {
            changed.retain(|(_, entry)| entry.is_some());
            let keyspace = open(base.id);
            let generation = keyspace.generation();
            TableState::new(
                base.id,
                generation,
                Arc::clone(&base.spec),
                keyspace,
                version,
            )
        } else if changed.is_empty() {
            return Ok(base.clone());
        } else {
            base.clone()
        };
        let pages = encode_pages(&changed, page_bytes)?;
        append_pages(&mut table, pages, is_cleared, version);
        Ok(table)
    }

    /// Goes over to the pages of a new checkpoint. `pending` are the changes that [`flush`](Self::flush) was given.
    pub(crate) fn publish(&self, table: TableState, pending: Vec<StateOp>, now_us: i64) {
        let mut inner = self.write();
        inner.apply(pending, now_us);
        if inner.table.generation != table.generation {
            inner.table.keyspace.drop_later();
            // After a compaction the entries may fit.
            inner.is_decided = matches!(inner.entries, Entries::Resident(_));
        }
        inner.table = table;
        inner.is_cleared = false;
        match &mut inner.entries {
            Entries::Paged(changed) => changed.clear(),
            Entries::Resident(resident) => drop(resident.take_changed()),
        }
        inner.keep_budget(self.memory_bytes_max);
    }
}

/// Adds changes that are not in memory yet. Returns whether one of them empties the namespace.
fn add_pending(changed: &mut Changed, pending: &[StateOp]) -> bool {
    let mut is_cleared = false;
    for op in pending {
        match op {
            StateOp::Put(entry) => {
                changed.insert(entry.key().into(), Some(entry.clone()));
            }
            StateOp::Delete(key) => {
                changed.insert(key.clone(), None);
            }
            StateOp::Clear => {
                changed.clear();
                is_cleared = true;
            }
        }
    }
    is_cleared
}

/// Adds pages at the end of a table. They wait in memory.
///
/// Their version is never before that of the pages that are there: whoever makes a checkpoint of the past meets a
/// namespace that others have flushed since.
fn append_pages(
    table: &mut TableState,
    pages: Vec<EncodedPage>,
    is_distinct: bool,
    version: Version,
) {
    let version = if version.number < table.changed.number {
        table.changed
    } else {
        version
    };
    let ids = table.keyspace.take_page_ids(pages.len())..;
    let metas = ids.clone().zip(&pages);
    let metas = metas
        .map(|(id, page)| page.meta(id, version.number))
        .collect();
    table
        .keyspace
        .write(ids.zip(pages.into_iter().map(|page| page.bytes)));
    table.append(metas, is_distinct, version);
}

/// Changes on their way into pages. However that comes to an end, none of them is forgotten.
struct Flushing<'n> {
    namespace: &'n Namespace,
    /// Of a namespace in memory: the changed keys.
    keys: Vec<Key>,
    changed: ChangedEntries,
}

impl<'n> Flushing<'n> {
    /// Takes what has changed. `None` if nothing has, or if all of it goes to files of its own with the checkpoint.
    fn begin(namespace: &'n Namespace) -> Option<Self> {
        let mut inner = namespace.write();
        if inner.is_cleared {
            return None;
        }
        let (mut keys, changed) = match &mut inner.entries {
            Entries::Paged(changed) => (Vec::new(), entries_of(changed)),
            Entries::Resident(resident) => (resident.take_changed(), Vec::new()),
        };
        if keys.is_empty() && changed.is_empty() {
            return None;
        }
        inner.is_flushing = true;
        drop(inner);
        keys.sort_unstable();
        keys.dedup();
        let mut flushing = Self {
            namespace,
            keys,
            changed,
        };
        let mut entries = Vec::with_capacity(flushing.keys.len());
        for keys in flushing.keys.chunks(FLUSH_KEYS) {
            // Who changes entries waits for a few of them only. What is changed meanwhile goes into pages twice.
            let inner = namespace.read_raw();
            if let Entries::Resident(resident) = &inner.entries {
                entries.extend(
                    keys.iter()
                        .map(|key| (key.clone(), resident.get(key).cloned())),
                );
            }
        }
        flushing.changed.extend(entries);
        Some(flushing)
    }

    /// Puts pages with the changes into the table. The answer tells what has to go to files. `None` if the namespace was
    /// cleared meanwhile, so that they do not count.
    fn end(mut self, pages: Vec<EncodedPage>, version: Version) -> Option<(Arc<Keyspace>, Wanted)> {
        let changed = std::mem::take(&mut self.changed);
        self.keys.clear();
        let mut inner = self.namespace.write();
        inner.is_flushing = false;
        if inner.is_cleared {
            return None;
        }
        append_pages(&mut inner.table, pages, false, version);
        if let Entries::Paged(waiting) = &mut inner.entries {
            // Those that changed again wait for the next pages.
            waiting.retain(|key, entry| {
                let at = changed.binary_search_by(|(flushed, _)| flushed.cmp(key));
                !at.is_ok_and(|at| is_one(changed[at].1.as_ref(), entry.as_ref()))
            });
        }
        inner.keep_budget(self.namespace.memory_bytes_max);
        let wanted = Wanted::pages(inner.table.pages.iter().map(|page| &**page));
        Some((Arc::clone(&inner.table.keyspace), wanted))
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        let mut inner = self.namespace.write();
        inner.is_flushing = false;
        // These did not come into pages.
        if let Entries::Resident(resident) = &mut inner.entries {
            resident.changed.append(&mut self.keys);
        }
    }
}

fn entries_of(changed: &Changed) -> ChangedEntries {
    changed
        .iter()
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect()
}

/// Whether this is one and the same change, not two of which the later has the value of the earlier.
fn is_one(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.is_same(b),
        (None, None) => true,
        _ => false,
    }
}

impl Inner {
    fn apply(&mut self, ops: Vec<StateOp>, now_us: i64) {
        let num_ops = ops.len();
        for op in ops {
            if matches!(op, StateOp::Clear) {
                self.is_cleared = true;
                self.is_decided = true;
                self.entries = Entries::Resident(Resident {
                    sorted: None,
                    ..Resident::default()
                });
                continue;
            }
            match (&mut self.entries, op) {
                (Entries::Resident(resident), StateOp::Put(entry)) => resident.put(entry, true),
                (Entries::Resident(resident), StateOp::Delete(key)) => resident.delete(&key),
                (Entries::Paged(changed), StateOp::Put(entry)) => {
                    changed.insert(entry.key().into(), Some(entry));
                }
                (Entries::Paged(changed), StateOp::Delete(key)) => {
                    changed.insert(key, None);
                }
                (_, StateOp::Clear) => {}
            }
        }
        if let Entries::Resident(resident) = &mut self.entries {
            // A few for each change, so that what has ended goes as fast as new entries come.
            resident.remove_ended(now_us, 2 * num_ops);
        }
    }

    /// What the next checkpoint has to write.
    fn changed(&self) -> ChangedEntries {
        match &self.entries {
            Entries::Paged(changed) => entries_of(changed),
            Entries::Resident(resident) => {
                let mut keys = resident.changed.clone();
                keys.sort_unstable();
                keys.dedup();
                let entries: Vec<_> = keys.iter().map(|key| resident.get(key).cloned()).collect();
                keys.into_iter().zip(entries).collect()
            }
        }
    }

    /// Leaves the entries that are in pages to the pages once all of them together are too many.
    fn keep_budget(&mut self, memory_bytes_max: usize) {
        // What is on its way into pages is not found there yet.
        if let Entries::Resident(resident) = &self.entries
            && resident.num_bytes > memory_bytes_max
            && !self.is_flushing
        {
            self.entries = Entries::Paged(self.changed().into_iter().collect());
        }
    }

    /// Brings all entries into memory if they fit.
    fn load(&mut self, memory_bytes_max: usize) -> Result<()> {
        let Entries::Paged(changed) = &self.entries else {
            self.is_decided = true;
            return Ok(());
        };
        // Pages hold keys and values as they are, beside what they hold twice.
        if self.table.num_bytes() / 2 > memory_bytes_max as u64 {
            self.is_decided = true;
            return Ok(());
        }
        let mut resident = Resident::default();
        let fits = read_all(&self.table, |key, entry| {
            match entry {
                Some(entry) => resident.put(entry, false),
                None => {
                    resident.delete_clean(key);
                }
            }
            resident.num_bytes <= memory_bytes_max
        })?;
        if fits {
            for (key, entry) in changed {
                if let Some(entry) = entry {
                    resident.put(entry.clone(), true);
                } else {
                    // Also a key that is in no page: there the deletion costs a few bytes and does no harm.
                    resident.delete_clean(key);
                    resident.changed.push(key.clone());
                }
            }
        }
        if fits && resident.num_bytes <= memory_bytes_max {
            self.entries = Entries::Resident(resident);
        }
        self.is_decided = true;
        Ok(())
    }
}

impl Resident {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.map
            .find(self.hasher.hash_one(key), |entry| entry.key() == key)
    }

    /// The keys that are not in pages yet, which are about to be.
    fn take_changed(&mut self) -> Vec<Key> {
        self.round = self.round.wrapping_add(1).max(1);
        std::mem::take(&mut self.changed)
    }

    /// All keys in order; empty if nobody has asked for an order before.
    pub(super) fn sorted(&self) -> Option<&BTreeSet<Key>> {
        self.sorted.as_ref()
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    /// The number of entries that have not ended.
    pub(super) fn len(&self, now_us: i64) -> usize {
        self.map.len() - self.ended(now_us).count()
    }

    fn ended(&self, now_us: i64) -> impl Iterator<Item = &(i64, Key)> {
        self.expiries
            .iter()
            .take_while(move |(expires_us, _)| *expires_us <= now_us)
    }

    fn put(&mut self, entry: Entry, is_changed: bool) {
        let (key, expires_us) = (entry.key(), entry.expires_us());
        if expires_us != 0 {
            self.expiries.insert((expires_us, key.into()));
        }
        let place = self.map.entry(
            self.hasher.hash_one(key),
            |other| other.key() == key,
            |other| self.hasher.hash_one(other.key()),
        );
        match place {
            hash_table::Entry::Occupied(mut place) => {
                let before = place.get();
                self.num_bytes += entry.num_bytes();
                self.num_bytes -= before.num_bytes();
                let expired_us = before.expires_us();
                if expired_us != 0 && expired_us != expires_us {
                    self.expiries.remove(&(expired_us, key.into()));
                }
                entry.set_round(before.round());
                if is_changed && before.round() != self.round {
                    entry.set_round(self.round);
                    self.changed.push(key.into());
                }
                *place.get_mut() = entry;
            }
            hash_table::Entry::Vacant(place) => {
                self.num_bytes += entry.num_bytes() + ENTRY_BYTES;
                entry.set_round(if is_changed { self.round } else { 0 });
                if is_changed {
                    self.changed.push(key.into());
                }
                if let Some(sorted) = &mut self.sorted {
                    sorted.insert(key.into());
                }
                place.insert(entry);
            }
        }
    }

    fn delete(&mut self, key: &Key) {
        if self.delete_clean(key) {
            self.changed.push(key.clone());
        }
    }

    /// Deletes without a note for the next checkpoint. Returns whether there was something.
    fn delete_clean(&mut self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let Ok(place) = self.map.find_entry(hash, |entry| entry.key() == key) else {
            return false;
        };
        let (entry, _) = place.remove();
        self.num_bytes -= entry.num_bytes() + ENTRY_BYTES;
        if let Some(sorted) = &mut self.sorted {
            sorted.remove(key);
        }
        if entry.expires_us() != 0 {
            self.expiries.remove(&(entry.expires_us(), key.into()));
        }
        true
    }

    fn remove_ended(&mut self, now_us: i64, num_max: usize) {
        if self.expiries.is_empty() {
            return;
        }
        let ended: Vec<Key> = self
            .ended(now_us)
            .take(num_max)
            .map(|(_, key)| key.clone())
            .collect();
        for key in ended {
            self.delete(&key);
        }
    }
}
