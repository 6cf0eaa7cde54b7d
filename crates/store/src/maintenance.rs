//! What a store does beside committing: checkpoints, and compactions when they pay.

use std::{
    collections::BTreeMap,
    sync::{Arc, TryLockError, atomic::Ordering},
    time::Instant,
};

use tracing::debug;

use crate::{
    apart::{Length, apart},
    checkpoint,
    error::Result,
    keyspace::{Keyspace, Wanted},
    namespace::{Namespace, StateOp, namespace_of, stored_name},
    retention::expire,
    settings::CompactionMode,
    state::{State, TableState},
    store::{Shared, Writer, lock},
    table::is_due,
};

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

/// How often a compaction takes over, before it stops all commits, what was committed since.
pub(crate) const CATCH_UPS: usize = 2;

/// How often what changes in a namespace is written ahead of a checkpoint, at most. Each round finds what has changed
/// during the one before, and takes a file of its own.
const FLUSHES_AHEAD_MAX: usize = 4;

/// So few changed entries are left to the checkpoint, which stops all commits meanwhile: a few milliseconds.
const FLUSH_AHEAD_MIN: usize = 4 << 10;

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
        let started = Instant::now();
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
        let number = writer.checkpoint_number + 1;
        let written = self
            .flush_namespaces(&mut state, &pending_ops, compacted, now_us)
            .and_then(|()| checkpoint::write(&self.dir, number, &mut state));
        writer.end_on_error(written)?;
        writer.checkpoint_number = number;
        writer.checkpoint_bytes = state.num_live_bytes();
        writer.log_page_bytes = 0;
        writer.log.clear(state.version.number + 1, 0);
        {
            let mut current = self.write_state();
            publish_namespaces(&mut state, pending_ops, now_us);
            *current = state;
        }
        for keyspace in dropped {
            keyspace.drop_later();
        }
        let seconds = started.elapsed().as_secs_f64();
        debug!(number, seconds, "checkpoint written");
        Ok(())
    }

    /// Gives back the space of what a checkpoint has made useless: older ones, and segments of the log. Space that cannot
    /// be given back now is given back after the next.
    ///
    /// `checkpointing` is held, so that no checkpoint is taken for an old one because it is not whole yet, and the writer
    /// is not: removing files takes milliseconds for each, and others commit meanwhile.
    pub(crate) fn remove_useless(&self) {
        let Ok(writer) = self.writer() else {
            return;
        };
        let (number, covered) = {
            let mut writer = lock(writer);
            (writer.checkpoint_number, writer.log.covered())
        };
        // First, because the log may be about to need the space.
        let removed = covered.remove();
        // Told by the next commit, which is refused.
        let _ = lock(writer).end_on_error(removed);
        let _ = checkpoint::remove_old(&self.dir, number);
    }

    /// Puts the namespaces among the tables of a state, with all that changed since the last checkpoint in their pages.
    pub(crate) fn flush_namespaces(
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

    pub(crate) fn find_stored(&self, name: &str) -> Option<TableState> {
        match namespace_of(name) {
            Some(namespace) => Some(self.find_namespace(namespace)?.table()),
            None => self.find_table(name),
        }
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
        self.wait_for_folding();
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
        // What was held when a checkpoint was made may be free by now.
        let _checkpointing = lock(&self.checkpointing);
        self.remove_useless();
    }

    /// Makes a checkpoint if the log is still so full.
    fn checkpoint_if(&self, least: LogFill) -> Result<()> {
        let writer = self.writer()?;
        let _checkpointing = lock(&self.checkpointing);
        if self.log_fill(&lock(writer)) < least {
            return Ok(());
        }
        self.flush_ahead();
        self.write_checkpoint_now(&mut lock(writer))?;
        self.remove_useless();
        Ok(())
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
    pub(crate) fn flush_state_ahead(&self, state: &State, except: Option<&Arc<Keyspace>>) {
        // What fails is met again by the checkpoint, which says so.
        for table in generations(state) {
            let is_excepted = except.is_some_and(|except| Arc::ptr_eq(&table.keyspace, except));
            if table.checkpointed.is_none() && !is_excepted {
                let wanted = Wanted::pages(table.pages.iter().map(|page| &**page));
                let _ = table.keyspace.flush_ahead(&wanted);
            }
        }
        for _ in 0..FLUSHES_AHEAD_MAX {
            // In each round all of them: one changes while another is written.
            let mut num_entries = 0;
            for namespace in state.namespaces.values() {
                let flushed = namespace.flush_ahead(state.version, self.options.page_bytes);
                num_entries += flushed.unwrap_or_default();
            }
            if num_entries < FLUSH_AHEAD_MIN {
                break;
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
}

/// All tables of a state, with their earlier incarnations.
pub(crate) fn generations(state: &State) -> impl Iterator<Item = &TableState> {
    let tables = state.tables.values();
    tables.flat_map(|table| table.older.iter().chain([table]))
}

/// Brings the namespaces, which a checkpoint has among its tables, to their new pages.
pub(crate) fn publish_namespaces(
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
