//! Pages of a large transaction on their way to the disk, while the transaction stages more of them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use crate::{
    change::Change,
    error::{Error, Result},
    keyspace::{Keyspace, Wanted},
};

/// Brings pages to files and these to the disk, one round after the other.
///
/// A round begins when so many bytes were staged since the last one, not when the disk is done: so a load does the same
/// in the same order each time, and two rounds of pages are the most that is in memory.
#[derive(Default)]
pub(crate) struct Behind {
    /// What was staged since its last round, by generation: numbers of generations are those of one store.
    staged: BTreeMap<u32, Staged>,
    round: Option<JoinHandle<Result<()>>>,
}

struct Staged {
    keyspace: Arc<Keyspace>,
    num_bytes: usize,
}

impl Behind {
    /// Notes that pages of so many bytes were staged.
    pub(crate) fn note(&mut self, keyspace: &Arc<Keyspace>, num_bytes: usize) {
        let staged = self.staged.entry(keyspace.generation());
        let staged = staged.or_insert_with(|| Staged {
            keyspace: Arc::clone(keyspace),
            num_bytes: 0,
        });
        staged.num_bytes += num_bytes;
    }

    /// Begins the next round if more than so many bytes were staged for it. The pages of `changes` are in their keyspaces.
    ///
    /// # Errors
    /// What went wrong in the round before, or in this one where no thread can be had for it.
    pub(crate) fn go_on(&mut self, changes: &[Change], round_bytes: usize) -> Result<()> {
        let is_due = |staged: &&mut Staged| staged.num_bytes > round_bytes;
        let mut due = Vec::new();
        for staged in self.staged.values_mut().filter(is_due) {
            staged.num_bytes = 0;
            let keyspace = Arc::clone(&staged.keyspace);
            let wanted = wanted(changes, &keyspace);
            due.push((keyspace, wanted));
        }
        if due.is_empty() {
            return Ok(());
        }
        self.end()?;
        let due = Arc::new(due);
        let round = {
            let due = Arc::clone(&due);
            move || flush(&due)
        };
        match Builder::new().name("darner-load".to_owned()).spawn(round) {
            Ok(round) => self.round = Some(round),
            Err(_) => flush(&due)?,
        }
        Ok(())
    }

    /// Waits for the round that is under way.
    ///
    /// # Errors
    /// What went wrong in it: not all pages are in files.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(round) = self.round.take() else {
            return Ok(());
        };
        round
            .join()
            .unwrap_or_else(|_| Err(Error::internal("thread that writes a load panicked")))
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // What a transaction has begun ends with it. Who wants to know what came of it has called `end`.
        let _ = self.end();
    }
}

fn wanted(changes: &[Change], keyspace: &Arc<Keyspace>) -> Wanted {
    let mut ids = HashSet::new();
    for change in changes {
        if let Change::Write {
            keyspace: other,
            pages,
            ..
        } = change
            && Arc::ptr_eq(other, keyspace)
        {
            ids.extend(pages.iter().map(|page| page.meta.id));
        }
    }
    Wanted::Some(ids)
}

fn flush(due: &[(Arc<Keyspace>, Wanted)]) -> Result<()> {
    due.iter()
        .try_for_each(|(keyspace, wanted)| keyspace.relieve_to_disk(wanted))
}
