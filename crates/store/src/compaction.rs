//! Compactions: how they run beside commits, and the checkpoint that each ends with. The work on one table's pages is in
//! `table/compact.rs`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tracing::debug;

use crate::{
    apart::{Length, apart},
    checkpoint,
    error::{Error, ErrorKind, Result},
    keyspace::{Keyspace, Wanted},
    maintenance::{CATCH_UPS, generations, publish_namespaces},
    namespace::{namespace_of, stored_name},
    retention::{num_expired, trim},
    state::{State, TableState},
    store::{Shared, Writer, lock},
    table::{Compaction, copy_pages},
    version::Version,
};

/// Compactions that make room in the log before long.
#[derive(Default)]
pub(crate) struct Folds {
    begun: u64,
    ended: u64,
}

/// A compaction that reads so many times what the log has of pages, or less, is waited for when the log is overfull.
const FOLD_FACTOR_MAX: u64 = 8;

impl Shared {
    /// Up to which version a compaction folds a table.
    pub(crate) fn fold_to(&self, table: &TableState) -> u64 {
        let now_us = self.options.clock.now_us();
        let oldest_kept = table.retention.oldest_kept(&table.history, now_us);
        // Not what an earlier compaction has folded already, although the table may be told to keep more since.
        let least = table.oldest.max(table.begun.number);
        oldest_kept.clamp(least, table.changed.number.max(least))
    }

    /// Compacts one table or namespace. `compacting` is held.
    pub(crate) fn compact_stored(&self, name: &str) -> Result<()> {
        let started = Instant::now();
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
        let _checkpointing = lock(&self.checkpointing);
        self.remove_useless();
        let seconds = started.elapsed().as_secs_f64();
        debug!(table = name, seconds, "compacted");
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
        let ended = writer.log.end_segment();
        writer.end_on_error(ended)?;
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

    /// Waits for the compaction under way if it makes room in the log soon.
    pub(crate) fn wait_for_folding(&self) {
        let folds = lock(&self.folds);
        let begun = folds.begun;
        drop(
            self.folded
                .wait_while(folds, |folds| folds.ended < begun)
                .unwrap_or_else(PoisonError::into_inner),
        );
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
            if self.write_past(&past, name, &compacted)? {
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
    /// False, with nothing done, if that [cannot be](Past::can_be_written).
    fn write_past(&self, past: &Past, name: &str, compacted: &TableState) -> Result<bool> {
        let now_us = self.options.clock.now_us();
        let before = past.state.tables.get(name).cloned();
        let before = before.ok_or_else(|| conflict(name))?;
        let mut state = past.state.clone();
        {
            let mut writer = lock(self.writer()?);
            writer.check()?;
            let current = self.read_state();
            let table = current.tables.get(name);
            if table.is_none_or(|table| table.generation != before.generation) {
                return Err(conflict(name));
            }
            // From here on nobody brings pages to files: that takes `checkpointing`.
            if !past.can_be_written(&writer, &current, now_us) {
                return Ok(false);
            }
            drop(current);
            // They may change as soon as somebody commits.
            let flushed = self.flush_namespaces(&mut state, &BTreeMap::new(), None, now_us);
            writer.end_on_error(flushed)?;
        }
        state
            .tables
            .insert(name.to_owned(), as_compacted(&before, compacted));
        state.tables.values_mut().for_each(trim);
        let number = past.checkpoint_number + 1;
        let written = checkpoint::write(&self.dir, number, &mut state);
        let mut writer = lock(self.writer()?);
        writer.end_on_error(written)?;
        writer.checkpoint_number = number;
        writer.checkpoint_bytes = state.num_live_bytes();
        writer.log_page_bytes -= past.log_page_bytes;
        let left_bytes = writer.log.num_bytes() - past.log_bytes;
        let first_left = past.state.version.number + 1;
        writer.log.clear(first_left, left_bytes);
        self.publish_past(name, &before, compacted, state, now_us)?;
        Ok(true)
    }

    /// Has what the store holds now go on from a checkpoint of the past, which is `written`: there the table `name`, that
    /// was as `before`, is `compacted`.
    fn publish_past(
        &self,
        name: &str,
        before: &TableState,
        compacted: &TableState,
        mut written: State,
        now_us: i64,
    ) -> Result<()> {
        let mut current = self.write_state();
        if current.namespaces_changed <= written.version.number {
            publish_namespaces(&mut written, BTreeMap::new(), now_us);
        } else {
            // They go on with the pages that they had, and the next checkpoint writes all that changed since these.
            for (name, namespace) in &written.namespaces {
                let Some(written) = written.tables.get(&stored_name(name)) else {
                    continue;
                };
                if written.generation != namespace.table().generation {
                    written.keyspace.drop_later();
                }
                namespace.follow_checkpoint(written);
            }
        }
        current.checkpointed = written.checkpointed;
        let table = current.tables.get_mut(name);
        match table.filter(|table| table.generation == before.generation) {
            Some(table) => go_on(table, before, compacted)?,
            // Dropped or replaced just now: what may still be read of it is where it was.
            None => compacted.keyspace.drop_later(),
        }
        let written: HashMap<(u32, u32), &TableState> = generations(&written)
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
        Ok(())
    }
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

impl Past {
    /// Whether a checkpoint of this state can follow on the current one.
    ///
    /// Not if somebody else has made a checkpoint meanwhile, has changed a namespace, which is not known as it was, or has
    /// had to bring later pages to files, where they would be found beside those of the log; nor if an earlier incarnation
    /// of a table is to go, whose rows have to be counted first.
    fn can_be_written(&self, writer: &Writer, current: &State, now_us: i64) -> bool {
        let number = self.state.version.number;
        let mut tables = self.state.tables.values();
        writer.checkpoint_number == self.checkpoint_number
            && current.namespaces_changed <= number
            && generations(current).all(|table| waiting_since(table, number).is_some())
            && !has_relieved_dropped(&self.state, current)
            && tables.all(|table| num_expired(table, now_us) == 0)
    }
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

fn conflict(name: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("table was replaced or dropped while it was compacted: table=`{name}`"),
    )
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
        live: Arc::clone(&compacted.live),
        history: Arc::new(history),
        checkpointed: None,
        ..table.clone()
    }
}
