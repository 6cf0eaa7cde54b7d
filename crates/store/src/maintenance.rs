//! What a store does beside committing: checkpoints, and compactions when they pay.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, TryLockError, atomic::Ordering},
};

use bytes::Bytes;

use crate::{
    apart::{Length, apart},
    checkpoint,
    error::{Error, ErrorKind, Result},
    keyspace::{Keyspace, Wanted},
    namespace::{Namespace, StateOp, namespace_of, stored_name},
    retention::{expire, num_expired, trim},
    settings::CompactionMode,
    state::{State, TableState},
    store::{Shared, Writer, lock},
    table::{Compaction, copy_pages, is_due},
    version::Version,
};

/// Compactions that make room in the log before long.
#[derive(Default)]
pub(crate) struct Folds {
    begun: u64,
    ended: u64,
}

/// How full the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogFill {
    /// There is room.
    Low,
    /// It is time for a checkpoint.
    Full,
    /// It is so full that whoever commits waits for one.
    Overfull,
}

/// How many times as full as full the log may get while a thread makes a checkpoint.
const OVERFULL: u64 = 2;

/// Tables that take so many times the space of their live rows have whoever commits wait for a compaction.
const SPACE_FACTOR_MAX: u64 = 4;

/// How often what pays is compacted in a row before a checkpoint.
const COMPACTIONS_MAX: usize = 8;

/// A compaction that reads so many times what the log has of pages, or less, is waited for when the log is overfull.
const FOLD_FACTOR_MAX: u64 = 8;

/// How often a compaction takes over, before it stops all commits, what was committed since; and how often what changes
/// in namespaces is written ahead of a checkpoint.
const CATCH_UPS: usize = 2;

/// A table with as many dead rows as live ones is compacted: so updating the same rows takes less than four times their
/// space, with the log and with the new files beside the old ones.
const TABLE_DEAD_FACTOR: u64 = 1;

/// A namespace is mostly written, and read from memory: there dead entries cost nothing but space.
const NAMESPACE_DEAD_FACTOR: u64 = 3;

impl Shared {
    /// Writes a checkpoint of `state` and makes it what this store holds. Steps 1 to 4 of `checkpoint.rs`.
    ///
    /// `pending` are changes of keyed state that are a part of `state` and are not in the namespaces yet. `compacted` is
    /// the namespace, if one was compacted, as the compaction leaves it.
    pub(crate) fn write_checkpoint(
        &self,
        writer: &mut Writer,
        mut state: State,
        pending: Vec<(String, u32, Vec<StateOp>)>,
        compacted: Option<(&str, TableState)>,
    ) -> Result<()> {
        writer.check()?;
        let now_us = self.options.clock.now_us();
        // Counting the rows of what goes is parallel work.
        let has_older = state.tables.values().any(|table| !table.older.is_empty());
        let tables = state.tables.values_mut();
        let expire_all =
            || -> Vec<Arc<Keyspace>> { tables.flat_map(|table| expire(table, now_us)).collect() };
        let dropped = if has_older {
            apart(Length::Short, expire_all)
        } else {
            expire_all()
        };
        let mut pending_ops: BTreeMap<String, Vec<StateOp>> = BTreeMap::new();
        for (name, id, ops) in pending {
            if !state.namespaces.contains_key(&name) {
                state.next_table_id = state.next_table_id.max(id.saturating_add(1));
                let table = self.new_namespace_table(id, state.version);
                let namespace = Namespace::new(table, self.options.state_memory_bytes);
                state.namespaces.insert(name.clone(), Arc::new(namespace));
            }
            pending_ops.entry(name).or_default().extend(ops);
        }
        self.write_files(writer, &mut state, &pending_ops, compacted, now_us)?;
        writer.log_page_bytes = 0;
        writer.log.clear(state.version.number + 1, 0);
        let number = writer.checkpoint_number;
        {
            let mut current = self.write_state();
            Self::publish_namespaces(&mut state, pending_ops, now_us);
            *current = state;
        }
        for keyspace in dropped {
            keyspace.drop_later();
        }
        // Space that cannot be given back now is given back by the next checkpoint.
        let _ = checkpoint::remove_old(&self.dir, number);
        Ok(())
    }

    /// Writes the files of a checkpoint, and makes it the current one.
    fn write_files(
        &self,
        writer: &mut Writer,
        state: &mut State,
        pending: &BTreeMap<String, Vec<StateOp>>,
        compacted: Option<(&str, TableState)>,
        now_us: i64,
    ) -> Result<()> {
        let number = writer.checkpoint_number + 1;
        let written = self
            .flush_namespaces(state, pending, compacted, now_us)
            .and_then(|()| checkpoint::write(&self.dir, number, state));
        if let Err(error) = written {
            // It may have been an fsync: what the system kept of those files is then unknown.
            writer.failure.get_or_insert_with(|| error.to_string());
            return Err(error);
        }
        writer.checkpoint_number = number;
        writer.checkpoint_bytes = state.num_live_bytes();
        Ok(())
    }

    /// Brings the namespaces, which a checkpoint has among its tables, to their new pages.
    fn publish_namespaces(
        state: &mut State,
        mut pending: BTreeMap<String, Vec<StateOp>>,
        now_us: i64,
    ) {
        for (name, namespace) in &state.namespaces {
            if let Some(table) = state.tables.remove(&stored_name(name)) {
                let ops = pending.remove(name).unwrap_or_default();
                namespace.publish(table, ops, now_us);
            }
        }
    }

    /// Puts the namespaces among the tables of a state, with all that changed since the last checkpoint in their pages.
    fn flush_namespaces(
        &self,
        state: &mut State,
        pending: &BTreeMap<String, Vec<StateOp>>,
        mut compacted: Option<(&str, TableState)>,
        now_us: i64,
    ) -> Result<()> {
        for (name, namespace) in &state.namespaces {
            let compacted = compacted.take_if(|(compacted, _)| compacted == name);
            let compacted = compacted.map(|(_, table)| table);
            let base = compacted.clone().unwrap_or_else(|| namespace.table());
            let ops = pending.get(name).map_or(&[][..], |ops| ops);
            let page_bytes = self.options.page_bytes;
            let open = |id| {
                let generation = self.take_generation();
                Arc::new(Keyspace::new(self.work_dir(), id, generation, None, 0))
            };
            let table = namespace.flush(&base, ops, state.version, page_bytes, now_us, open)?;
            // Cleared while it was compacted: it goes on in other files.
            if let Some(compacted) = compacted.filter(|c| c.generation != table.generation) {
                compacted.keyspace.drop_later();
            }
            state.tables.insert(stored_name(name), table);
        }
        Ok(())
    }

    /// The names of tables and namespaces, as a checkpoint has them.
    pub(crate) fn stored_names(&self) -> Vec<String> {
        let state = self.read_state();
        let namespaces = state.namespaces.keys().map(|name| stored_name(name));
        state.tables.keys().cloned().chain(namespaces).collect()
    }

    fn find_stored(&self, name: &str) -> Option<TableState> {
        match namespace_of(name) {
            Some(namespace) => Some(self.find_namespace(namespace)?.table()),
            None => self.find_table(name),
        }
    }

    /// Up to which version a compaction folds a table.
    fn fold_to(&self, table: &TableState) -> u64 {
        let now_us = self.options.clock.now_us();
        let oldest_kept = table.retention.oldest_kept(&table.history, now_us);
        // Not what an earlier compaction has folded already, although the table may be told to keep more since.
        let least = table.oldest.max(table.begun.number);
        oldest_kept.clamp(least, table.changed.number.max(least))
    }

    /// How full the log is.
    pub(crate) fn log_fill(&self, writer: &Writer) -> LogFill {
        if writer.failure.is_some() {
            // Nothing can be done about it.
            return LogFill::Low;
        }
        let most = self.options.checkpoint_log_bytes;
        let least = self.options.log_segment_bytes.min(most);
        // A small store is not to have a log that is much larger than itself.
        let pages_max = writer.checkpoint_bytes.clamp(least, most);
        let (num_bytes, page_bytes) = (writer.log.num_bytes(), writer.log_page_bytes);
        let is_over = |times: u64| {
            num_bytes >= most.saturating_mul(times) || page_bytes >= pages_max.saturating_mul(times)
        };
        match (is_over(1), is_over(OVERFULL)) {
            (_, true) => LogFill::Overfull,
            (true, false) => LogFill::Full,
            (false, false) => LogFill::Low,
        }
    }

    /// Does something about the log after a commit, if it is full: has a thread do it, or does it before it returns.
    ///
    /// A failure is no failure of the commit, which is safe in the log; it is remembered for the next one.
    pub(crate) fn make_room(&self, fill: LogFill) {
        if fill == LogFill::Low {
            return;
        }
        if self.options.compaction == CompactionMode::Never {
            let _ = self.checkpoint_if(LogFill::Full);
            return;
        }
        if !self.call_background() {
            self.upkeep();
            return;
        }
        if fill == LogFill::Full {
            return;
        }
        // That thread is behind. If what it does takes a share of the log away, that comes soon.
        let folds = lock(&self.folds);
        let begun = folds.begun;
        drop(
            self.folded
                .wait_while(folds, |folds| folds.ended < begun)
                .unwrap_or_else(PoisonError::into_inner),
        );
        // Otherwise it is busy with a long compaction.
        let _ = self.checkpoint_if(LogFill::Overfull);
        let is_behind = {
            let state = self.read_state();
            state.num_bytes() > SPACE_FACTOR_MAX.saturating_mul(state.num_live_bytes())
        };
        if is_behind {
            drop(lock(&self.compacting));
        }
    }

    /// Has what pays compacted after a checkpoint, now or by the thread that is there for it.
    pub(crate) fn after_checkpoint(&self) {
        if self.options.compaction != CompactionMode::Never && !self.call_background() {
            self.upkeep();
        }
    }

    /// Calls the thread that keeps the store in shape. False if there is none.
    fn call_background(&self) -> bool {
        let wake = lock(&self.wake);
        let Some(wake) = wake.as_ref() else {
            return false;
        };
        self.is_called.swap(true, Ordering::Relaxed) || wake.send(()).is_ok()
    }

    /// Compacts what has too much that is dead or small, and makes a checkpoint if the log is full. A failure is no
    /// failure of the commit that has led here, and a later one leads here again.
    pub(crate) fn upkeep(&self) {
        let is_background = lock(&self.wake).is_some();
        let compacting = if is_background {
            Some(lock(&self.compacting))
        } else {
            // Somebody compacts a table at length: whoever commits need not wait for that.
            match self.compacting.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        };
        self.is_called.store(false, Ordering::Relaxed);
        if self.options.compaction != CompactionMode::Never && compacting.is_some() {
            // First, because a compaction ends with a checkpoint, and its pages need not be written twice then. So much
            // may be written meanwhile that it pays again at once.
            for _ in 0..COMPACTIONS_MAX {
                if !self.compact_due() {
                    break;
                }
            }
        }
        if self.is_ending.load(Ordering::Relaxed) {
            // Whoever drops a store does not wait for files: the log has everything.
            return;
        }
        let _ = self.checkpoint_if(LogFill::Full);
        if let Ok(writer) = self.writer() {
            // What was held when a checkpoint was made may be free by now.
            let _ = checkpoint::remove_old(&self.dir, lock(writer).checkpoint_number);
        }
    }

    /// Makes a checkpoint if the log is still so full.
    fn checkpoint_if(&self, least: LogFill) -> Result<()> {
        let writer = self.writer()?;
        let _checkpointing = lock(&self.checkpointing);
        if self.log_fill(&lock(writer)) < least {
            return Ok(());
        }
        self.flush_ahead();
        self.write_checkpoint_now(&mut lock(writer))
    }

    /// Writes a checkpoint of all that was committed. What takes long should have been done by
    /// [`flush_ahead`](Self::flush_ahead): nobody commits meanwhile.
    pub(crate) fn write_checkpoint_now(&self, writer: &mut Writer) -> Result<()> {
        let state = self.read_state().clone();
        self.write_checkpoint(writer, state, Vec::new(), None)
    }

    /// Brings what has changed to files and on disk, while others commit. `checkpointing` is held, by whoever makes a
    /// checkpoint next.
    pub(crate) fn flush_ahead(&self) {
        let state = self.read_state().clone();
        self.flush_state_ahead(&state, None);
    }

    /// Brings the pages that a state has of all tables but one, and what has changed in namespaces, to files and on disk.
    fn flush_state_ahead(&self, state: &State, except: Option<&Arc<Keyspace>>) {
        // What fails is met again by the checkpoint, which says so.
        for table in generations(state) {
            let is_excepted = except.is_some_and(|except| Arc::ptr_eq(&table.keyspace, except));
            if table.checkpointed.is_none() && !is_excepted {
                let wanted = Wanted::pages(table.pages.iter().map(|page| &**page));
                let _ = table.keyspace.flush_ahead(&wanted);
            }
        }
        for _ in 0..CATCH_UPS {
            for namespace in state.namespaces.values() {
                let _ = namespace.flush_ahead(state.version, self.options.page_bytes);
            }
        }
    }

    /// Compacts what pays. Returns whether something was compacted.
    fn compact_due(&self) -> bool {
        let mut is_any = false;
        for name in self.stored_names() {
            is_any |= self.is_compaction_due(&name) && self.compact_stored(&name).is_ok();
        }
        is_any
    }

    fn is_compaction_due(&self, name: &str) -> bool {
        // Looked at under the lock: a copy would for a while hold a checkpoint that is to go.
        let state = self.read_state();
        let is_due = |table: &TableState, dead_factor: u64| {
            is_due(table, self.fold_to(table), dead_factor, &self.options)
        };
        match namespace_of(name) {
            Some(namespace) => state
                .namespaces
                .get(namespace)
                .is_some_and(|namespace| is_due(&namespace.table(), NAMESPACE_DEAD_FACTOR)),
            None => state
                .tables
                .get(name)
                .is_some_and(|table| is_due(table, TABLE_DEAD_FACTOR)),
        }
    }

    /// Compacts one table or namespace. `compacting` is held.
    pub(crate) fn compact_stored(&self, name: &str) -> Result<()> {
        let past = if namespace_of(name).is_none() {
            self.mark_past()?
        } else {
            None
        };
        let found = match &past {
            Some(past) => past.state.tables.get(name).cloned(),
            None => self.find_stored(name),
        };
        let table = found.ok_or_else(|| self.no_such_table(name))?;
        let generation = self.take_generation();
        let keyspace = Arc::new(table.keyspace.successor(table.id, generation));
        let folding = past
            .as_ref()
            .and_then(|past| self.begin_folding(past, &table));
        let result = self.compact_into(name, &table, past, &keyspace);
        drop(folding);
        if result.is_err() {
            keyspace.drop_later();
            return result;
        }
        // Until now this has held the checkpoint that was current before, with all the space that was to be given back.
        drop(table);
        let writer = lock(self.writer()?);
        // Space that cannot be given back now is given back by the next checkpoint.
        let _ = checkpoint::remove_old(&self.dir, writer.checkpoint_number);
        Ok(())
    }

    /// Notes what the store holds, so that a checkpoint of it can be made later.
    fn mark_past(&self) -> Result<Option<Past>> {
        let mut writer = lock(self.writer()?);
        writer.check()?;
        let state = self.read_state().clone();
        if state.namespaces_changed == state.version.number {
            // The next commits are likely to change them too: then they would be ahead of the tables.
            return Ok(None);
        }
        if let Err(error) = writer.log.end_segment() {
            writer.failure.get_or_insert_with(|| error.to_string());
            return Err(error);
        }
        Ok(Some(Past {
            state,
            checkpoint_number: writer.checkpoint_number,
            log_bytes: writer.log.num_bytes(),
            log_page_bytes: writer.log_page_bytes,
        }))
    }

    /// Notes, until the answer is dropped, that a compaction makes room in the log soon: if it does not take much longer
    /// than it took to fill the log.
    fn begin_folding(&self, past: &Past, table: &TableState) -> Option<Folding<'_>> {
        let is_soon = table.num_bytes() <= past.log_page_bytes.saturating_mul(FOLD_FACTOR_MAX);
        is_soon.then(|| {
            lock(&self.folds).begun += 1;
            Folding(self)
        })
    }

    fn compact_into(
        &self,
        name: &str,
        table: &TableState,
        past: Option<Past>,
        keyspace: &Arc<Keyspace>,
    ) -> Result<()> {
        let is_namespace = namespace_of(name).is_some();
        let compaction = Compaction {
            fold_to: self.fold_to(table),
            page_bytes: self.options.page_bytes,
            range_bytes: self.options.compact_bytes,
            is_ending: &self.is_ending,
            ended_us: is_namespace.then(|| self.options.clock.now_us()),
        };
        let mut compacted = apart(Length::Long, || compaction.run(table, Arc::clone(keyspace)))?;
        keyspace.flush_ahead(&Wanted::All)?;
        let _checkpointing = lock(&self.checkpointing);
        if let Some(past) = past {
            self.flush_state_ahead(&past.state, Some(&table.keyspace));
            if self.write_past(past, name, &compacted)? {
                return Ok(());
            }
        }
        // Commits that came meanwhile. When the last of them are taken over, nobody commits; so they should be few.
        let mut num_pages = table.pages.len();
        let mut take_over = || -> Result<TableState> {
            let current = self
                .find_stored(name)
                .filter(|current| current.generation == table.generation)
                .ok_or_else(|| conflict(name))?;
            let later = current.pages[num_pages..].iter();
            num_pages = current.pages.len();
            copy_pages(&current, later, &mut compacted)?;
            Ok(current)
        };
        for _ in 0..CATCH_UPS {
            take_over()?;
            keyspace.flush_ahead(&Wanted::All)?;
        }
        // Not the pages that go with the files that are left.
        let state = self.read_state().clone();
        self.flush_state_ahead(&state, Some(&table.keyspace));
        drop(state);
        let mut writer = lock(self.writer()?);
        writer.check()?;
        let current = take_over()?;
        let compacted = as_compacted(&current, &compacted);
        let mut state = self.read_state().clone();
        if let Some(namespace) = namespace_of(name) {
            let compacted = Some((namespace, compacted));
            return self.write_checkpoint(&mut writer, state, Vec::new(), compacted);
        }
        state.tables.insert(name.to_owned(), compacted);
        self.write_checkpoint(&mut writer, state, Vec::new(), None)?;
        current.keyspace.drop_later();
        Ok(())
    }

    /// Ends a compaction with a checkpoint of what the store was when the compaction began. Later commits stay in the
    /// log and, of the compacted table, in memory: their pages need neither be written twice nor be waited for, and
    /// others commit all the time. `checkpointing` is held.
    ///
    /// False, with nothing done, if that cannot be: somebody else has made a checkpoint meanwhile, has changed a
    /// namespace, which is not known as it was, or has had to bring later pages to files, where they would be found
    /// beside those of the log; or an earlier incarnation of a table is to go, whose rows have to be counted first.
    fn write_past(&self, past: Past, name: &str, compacted: &TableState) -> Result<bool> {
        let Past {
            mut state,
            checkpoint_number,
            log_bytes,
            log_page_bytes,
        } = past;
        let number = state.version.number;
        let now_us = self.options.clock.now_us();
        let before = state.tables.get(name).cloned();
        let before = before.ok_or_else(|| conflict(name))?;
        {
            let mut writer = lock(self.writer()?);
            writer.check()?;
            let current = self.read_state();
            let table = current.tables.get(name);
            if table.is_none_or(|table| table.generation != before.generation) {
                return Err(conflict(name));
            }
            // From here on nobody brings pages to files: that takes `checkpointing`.
            if writer.checkpoint_number != checkpoint_number
                || current.namespaces_changed > number
                || !generations(&current).all(|table| waiting_since(table, number).is_some())
                || has_relieved_dropped(&state, &current)
                || state
                    .tables
                    .values()
                    .any(|table| num_expired(table, now_us) > 0)
            {
                return Ok(false);
            }
            drop(current);
            // They may change as soon as somebody commits.
            if let Err(error) = self.flush_namespaces(&mut state, &BTreeMap::new(), None, now_us) {
                writer.failure.get_or_insert_with(|| error.to_string());
                return Err(error);
            }
        }
        state
            .tables
            .insert(name.to_owned(), as_compacted(&before, compacted));
        state.tables.values_mut().for_each(trim);
        let written = checkpoint::write(&self.dir, checkpoint_number + 1, &mut state);
        let mut writer = lock(self.writer()?);
        if let Err(error) = written {
            // As in `write_files`.
            writer.failure.get_or_insert_with(|| error.to_string());
            return Err(error);
        }
        writer.checkpoint_number = checkpoint_number + 1;
        writer.checkpoint_bytes = state.num_live_bytes();
        writer.log_page_bytes -= log_page_bytes;
        let left_bytes = writer.log.num_bytes() - log_bytes;
        writer.log.clear(number + 1, left_bytes);
        {
            let mut current = self.write_state();
            if current.namespaces_changed <= number {
                Self::publish_namespaces(&mut state, BTreeMap::new(), now_us);
            } else {
                // They go on with the pages that they had, and the next checkpoint writes all that changed since these.
                for (name, namespace) in &state.namespaces {
                    let Some(written) = state.tables.get(&stored_name(name)) else {
                        continue;
                    };
                    if written.generation != namespace.table().generation {
                        written.keyspace.drop_later();
                    }
                    namespace.follow_checkpoint(written);
                }
            }
            current.checkpointed = state.checkpointed;
            let table = current.tables.get_mut(name);
            match table.filter(|table| table.generation == before.generation) {
                Some(table) => go_on(table, &before, compacted)?,
                // Dropped or replaced just now: what may still be read of it is where it was.
                None => compacted.keyspace.drop_later(),
            }
            let written: HashMap<(u32, u32), &TableState> = generations(&state)
                .map(|table| ((table.id, table.generation), table))
                .collect();
            let follow = |table: &mut TableState| {
                if let Some(written) = written.get(&(table.id, table.generation)) {
                    table.follow_checkpoint(written);
                }
            };
            for table in current.tables.values_mut() {
                table.older.iter_mut().for_each(follow);
                follow(table);
                trim(table);
            }
        }
        // Space that cannot be given back now is given back by the next checkpoint.
        let _ = checkpoint::remove_old(&self.dir, writer.checkpoint_number);
        Ok(true)
    }
}

/// The pages that commits since a version have brought to a table, with their bytes, if all of them are in memory only.
fn waiting_since(table: &TableState, number: u64) -> Option<Vec<(u64, Bytes)>> {
    let later = table.pages.iter().filter(|page| page.version > number);
    table.keyspace.waiting(later)
}

/// Whether a table is gone whose later pages had to go to files, where a checkpoint of the past would find them.
fn has_relieved_dropped(past: &State, current: &State) -> bool {
    let left: HashSet<(u32, u32)> = generations(current)
        .map(|table| (table.id, table.generation))
        .collect();
    generations(past)
        .filter(|table| !left.contains(&(table.id, table.generation)))
        .any(|table| table.keyspace.is_relieved())
}

/// Takes a table over to the files of a compaction, with what was committed since it was as `before`.
fn go_on(table: &mut TableState, before: &TableState, compacted: &TableState) -> Result<()> {
    let later = &table.pages[before.pages.len()..];
    let bytes = table
        .keyspace
        .waiting(later)
        .ok_or_else(|| Error::internal("pages went to files while a checkpoint was made"))?;
    compacted.keyspace.write(bytes);
    let mut next = as_compacted(table, compacted);
    if !later.is_empty() {
        next.is_distinct = false;
        next.num_live = Arc::default();
        Arc::make_mut(&mut next.pages).extend(later.iter().cloned());
    }
    table.keyspace.drop_later();
    *table = next;
    Ok(())
}

/// What a store held at one moment, from which on the log has a segment of its own.
struct Past {
    state: State,
    /// The checkpoint that counted.
    checkpoint_number: u64,
    /// How much the log had.
    log_bytes: u64,
    log_page_bytes: u64,
}

/// While it lives, whoever commits waits for the compaction under way rather than fill the log further.
struct Folding<'s>(&'s Shared);

impl Drop for Folding<'_> {
    fn drop(&mut self) {
        {
            let mut folds = lock(&self.0.folds);
            // One at a time, whoever has `compacting`.
            folds.ended = folds.begun;
        }
        self.0.folded.notify_all();
    }
}

fn conflict(name: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("table was replaced or dropped while it was compacted: table=`{name}`"),
    )
}

/// All tables of a state, with their earlier incarnations.
fn generations(state: &State) -> impl Iterator<Item = &TableState> {
    let tables = state.tables.values();
    tables.flat_map(|table| table.older.iter().chain([table]))
}

/// A table as it goes on after a compaction, which has counted what its commits did.
fn as_compacted(table: &TableState, compacted: &TableState) -> TableState {
    let known = compacted
        .history
        .iter()
        .map(|entry| (entry.version, entry.counts));
    let known: HashMap<Version, _> = known.collect();
    let mut history = table.history.to_vec();
    for entry in &mut history {
        if entry.counts.is_none() {
            entry.counts = known.get(&entry.version).copied().flatten();
        }
    }
    TableState {
        generation: compacted.generation,
        keyspace: Arc::clone(&compacted.keyspace),
        pages: Arc::clone(&compacted.pages),
        num_sorted_pages: compacted.num_sorted_pages,
        is_distinct: compacted.is_distinct,
        counted: compacted.counted,
        oldest: compacted.oldest,
        num_live: Arc::clone(&compacted.num_live),
        history: Arc::new(history),
        checkpointed: None,
        ..table.clone()
    }
}
