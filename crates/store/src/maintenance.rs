//! What a store does beside committing: checkpoints, and compactions when they pay.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    apart::apart,
    checkpoint,
    error::{Error, ErrorKind, Result},
    keyspace::Keyspace,
    namespace::{Namespace, StateOp, namespace_of, stored_name},
    retention,
    state::{State, TableState},
    store::{Shared, Writer, lock},
    table::{Compaction, Due, copy_pages, is_due},
    version::Version,
};

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
        let number = writer.checkpoint_number + 1;
        let now_us = self.options.clock.now_us();
        // Counting the rows of what goes is parallel work.
        let has_older = state.tables.values().any(|table| !table.older.is_empty());
        let tables = state.tables.values_mut();
        let expire = || -> Vec<Arc<Keyspace>> {
            tables
                .flat_map(|table| retention::expire(table, now_us))
                .collect()
        };
        let dropped = if has_older { apart(expire) } else { expire() };
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
        let written = self
            .flush_namespaces(&mut state, &pending_ops, compacted, now_us)
            .and_then(|()| checkpoint::write(&self.dir, number, &mut state));
        if let Err(error) = written {
            // It may have been an fsync: what the system kept of those files is then unknown.
            writer.failure.get_or_insert_with(|| error.to_string());
            return Err(error);
        }
        writer.checkpoint_number = number;
        writer.checkpoint_bytes = state.num_live_bytes();
        writer.log_page_bytes = 0;
        writer.log.clear(state.version.number + 1);
        {
            let mut current = self.write_state();
            for (name, namespace) in &state.namespaces {
                if let Some(table) = state.tables.remove(&stored_name(name)) {
                    let ops = pending_ops.remove(name).unwrap_or_default();
                    namespace.publish(table, ops, now_us);
                }
            }
            *current = state;
        }
        for keyspace in dropped {
            keyspace.drop_later();
        }
        // Space that cannot be given back now is given back by the next checkpoint.
        let _ = checkpoint::remove_old(&self.dir, number);
        Ok(())
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
            let base = match compacted.take_if(|(compacted, _)| compacted == name) {
                Some((_, table)) => table,
                None => namespace.table(),
            };
            let ops = pending.get(name).map_or(&[][..], |ops| ops);
            let page_bytes = self.options.page_bytes;
            let open = |id| {
                let generation = self.take_generation();
                Arc::new(Keyspace::new(self.work_dir(), id, generation, None, 0))
            };
            let table = namespace.flush(&base, ops, state.version, page_bytes, now_us, open)?;
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

    /// Compacts what has too much that is dead or small, after a checkpoint. A failure is no failure of the commit that
    /// has led here, and the next checkpoint leads here again.
    pub(crate) fn maintain(&self) {
        apart(|| self.maintain_apart());
    }

    fn maintain_apart(&self) {
        let _compacting = lock(&self.compacting);
        self.is_called.store(false, Ordering::Relaxed);
        for name in self.stored_names() {
            let Some(table) = self.find_stored(&name) else {
                continue;
            };
            let dead_factor = if namespace_of(&name).is_some() {
                NAMESPACE_DEAD_FACTOR
            } else {
                TABLE_DEAD_FACTOR
            };
            let fold_to = self.fold_to(&table);
            match is_due(&table, fold_to, dead_factor, &self.options) {
                Ok(Due::Yes) => {
                    drop(table);
                    let _ = self.compact_stored(&name);
                }
                Ok(Due::Counted(counted)) => {
                    if let Some(namespace) = namespace_of(&name) {
                        if let Some(namespace) = self.find_namespace(namespace) {
                            namespace.note_counted(table.generation, counted);
                        }
                        continue;
                    }
                    if let Some(found) = self.write_state().tables.get_mut(&name)
                        && found.generation == table.generation
                    {
                        found.counted = counted;
                    }
                }
                Ok(Due::No) | Err(_) => {}
            }
        }
    }

    /// Compacts one table or namespace. `compacting` is held.
    pub(crate) fn compact_stored(&self, name: &str) -> Result<()> {
        let table = self
            .find_stored(name)
            .ok_or_else(|| self.no_such_table(name))?;
        let generation = self.take_generation();
        let keyspace = Keyspace::new(self.work_dir(), table.id, generation, None, 0);
        let keyspace = Arc::new(keyspace);
        let result = self.compact_into(name, &table, &keyspace);
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

    fn compact_into(&self, name: &str, table: &TableState, keyspace: &Arc<Keyspace>) -> Result<()> {
        let is_namespace = namespace_of(name).is_some();
        let compaction = Compaction {
            fold_to: self.fold_to(table),
            page_bytes: self.options.page_bytes,
            range_bytes: self.options.compact_bytes,
            is_ending: &self.is_ending,
            ended_us: is_namespace.then(|| self.options.clock.now_us()),
        };
        let mut compacted = compaction.run(table, Arc::clone(keyspace))?;
        let mut writer = lock(self.writer()?);
        writer.check()?;
        let current = self
            .find_stored(name)
            .filter(|current| current.generation == table.generation)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Conflict,
                    format!("table was replaced or dropped while it was compacted: table=`{name}`"),
                )
            })?;
        // Commits that came meanwhile.
        copy_pages(
            &current,
            current.pages[table.pages.len()..].iter(),
            &mut compacted,
        )?;
        let known = compacted
            .history
            .iter()
            .map(|entry| (entry.version, entry.counts));
        let known: HashMap<Version, _> = known.collect();
        let mut history = current.history.to_vec();
        for entry in &mut history {
            if entry.counts.is_none() {
                entry.counts = known.get(&entry.version).copied().flatten();
            }
        }
        let compacted = TableState {
            generation: compacted.generation,
            keyspace: compacted.keyspace,
            pages: compacted.pages,
            num_sorted_pages: compacted.num_sorted_pages,
            is_distinct: compacted.is_distinct,
            counted: compacted.counted,
            oldest: compacted.oldest,
            num_live: compacted.num_live,
            history: Arc::new(history),
            checkpointed: None,
            ..current.clone()
        };
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
}
