//! Commits: threads that commit at the same time share one write and one fsync of the log.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread::Thread,
    time::Instant,
};

use tracing::trace;

use crate::{
    change::{self, Change, Overlay},
    error::{Error, Result},
    log::NewFrame,
    namespace::{Namespace, StateOp},
    settings::{Durability, WAITING_BYTES_MAX},
    store::{Shared, Writer, lock},
    version::Version,
};

/// Commits that wait to be written.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Vec<Queued>,
    /// Somebody is writing a group, or was told to.
    has_leader: bool,
    /// How many commits the next group is likely to have: those of the last one, whose threads are about to come again,
    /// and those that came meanwhile.
    expected_len: usize,
}

/// How often a leader lets other threads run, without a new commit coming, before it writes fewer commits than
/// are expected.
const LEADER_YIELDS_MAX: usize = 32;

struct Queued {
    changes: Vec<Change>,
    answer: Answer,
}

/// A thread that waits for its commit.
struct Waiter {
    thread: Thread,
    told: Mutex<Option<Told>>,
}

/// What a thread that waits is told.
enum Told {
    /// To write the group that waits, its own commit included.
    Lead,
    Answer(Result<Version>),
}

impl Waiter {
    fn tell(&self, told: Told) {
        *lock(&self.told) = Some(told);
        self.thread.unpark();
    }

    /// Returns once this thread, whose waiter it is, was told something.
    fn wait(&self) -> Told {
        loop {
            if let Some(told) = lock(&self.told).take() {
                return told;
            }
            std::thread::park();
        }
    }
}

/// The duty to answer a commit. `None` for that of the thread that leads.
struct Answer(Option<Arc<Waiter>>);

impl Answer {
    fn give(mut self, answer: Result<Version>) {
        if let Some(waiter) = self.0.take() {
            waiter.tell(Told::Answer(answer));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Whoever had to give it has panicked.
        if let Some(waiter) = self.0.take() {
            let error = Error::internal("commit was not answered");
            waiter.tell(Told::Answer(Err(error)));
        }
    }
}

impl Shared {
    /// Commits changes, together with those of other threads that wait at the same time.
    ///
    /// One thread leads: it takes all that wait, and with one fsync answers all. The others sleep until they are
    /// answered, or told to lead.
    pub(crate) fn commit(&self, changes: Vec<Change>, is_bulk: bool) -> Result<Version> {
        if is_bulk {
            return self.commit_bulk(changes);
        }
        let writer = self.writer()?;
        let mut queue = lock(&self.queue);
        let not_answered = || Err(Error::internal("commit was not answered"));
        if !queue.has_leader {
            queue.has_leader = true;
            // Nobody has to be told: what becomes of it is known here.
            let answer = Answer(None);
            let own = Queued { changes, answer };
            let result = self.lead(writer, queue, Some(own));
            return result.unwrap_or_else(not_answered);
        }
        let waiter = Arc::new(Waiter {
            thread: std::thread::current(),
            told: Mutex::default(),
        });
        queue.waiting.push(Queued {
            changes,
            answer: Answer(Some(Arc::clone(&waiter))),
        });
        drop(queue);
        let mut told = waiter.wait();
        if matches!(told, Told::Lead) {
            // The group has this thread's own commit.
            self.lead(writer, lock(&self.queue), None);
            told = waiter.wait();
        }
        match told {
            Told::Answer(answer) => answer,
            Told::Lead => not_answered(),
        }
    }

    /// Writes the commits that wait, after the leader's `own` if that does not wait among them, and answers all.
    /// Returns the answer to `own`.
    fn lead(
        &self,
        writer: &Mutex<Writer>,
        queue: MutexGuard<'_, Queue>,
        own: Option<Queued>,
    ) -> Option<Result<Version>> {
        let leading = Leading(self);
        // Let go of before `leading`, which locks it, should this thread panic.
        let mut queue = queue;
        // Those who were answered just now are about to come again: an fsync for all of them is worth a short wait.
        let num_own = usize::from(own.is_some());
        let (mut num_yields, mut num_waiting) = (0, queue.waiting.len());
        while num_own + num_waiting < queue.expected_len && num_yields < LEADER_YIELDS_MAX {
            drop(queue);
            std::thread::yield_now();
            queue = lock(&self.queue);
            num_yields = if queue.waiting.len() > num_waiting {
                0
            } else {
                num_yields + 1
            };
            num_waiting = queue.waiting.len();
        }
        drop(queue);
        let (answers, fill) = {
            let mut writer = lock(writer);
            let mut group: Vec<Queued> = own.into_iter().collect();
            group.append(&mut lock(&self.queue).waiting);
            (
                self.commit_group(&mut writer, group),
                self.log_fill(&writer),
            )
        };
        {
            let mut queue = lock(&self.queue);
            queue.expected_len = answers.len() + queue.waiting.len();
        }
        drop(leading);
        // Now, so that the first of them who comes again can lead at once.
        let mut own_result = None;
        for (answer, result) in answers {
            match answer.0 {
                None => own_result = Some(result),
                Some(_) => answer.give(result),
            }
        }
        self.make_room(fill);
        own_result
    }

    /// Commits changes of one namespace of keyed state.
    pub(crate) fn commit_state(
        &self,
        namespace: &str,
        is_new: bool,
        ops: Vec<StateOp>,
    ) -> Result<Version> {
        self.writer()?;
        if ops.is_empty() {
            return Ok(self.read_state().version);
        }
        let num_bytes: usize = ops.iter().map(StateOp::num_bytes).sum();
        let change = Change::State {
            name: namespace.to_owned(),
            // Whoever makes it needs a number; it has one otherwise.
            id: if is_new {
                self.namespace_id(namespace)
            } else {
                0
            },
            ops,
        };
        self.commit(vec![change], num_bytes > self.options.bulk_bytes)
    }

    /// Writes a group of commits. Returns what is to be answered.
    fn commit_group(
        &self,
        writer: &mut Writer,
        group: Vec<Queued>,
    ) -> Vec<(Answer, Result<Version>)> {
        let mut answers = Vec::with_capacity(group.len());
        let mut admitted = Vec::with_capacity(group.len());
        let mut frames = Vec::with_capacity(group.len());
        let mut page_bytes = 0;
        {
            let state = self.read_state();
            let mut overlay = Overlay::new(&state);
            let mut version = state.version;
            for Queued {
                mut changes,
                answer,
            } in group
            {
                let checked = writer
                    .check()
                    .and_then(|()| change::follow_compaction(&state, &mut changes))
                    .and_then(|()| change::prepare(&changes))
                    .and_then(|()| overlay.admit(&changes));
                if let Err(error) = checked {
                    answers.push((answer, Err(error)));
                    continue;
                }
                version = version.next(self.options.clock.now_us());
                page_bytes += change::num_page_bytes(&changes);
                let payload = change::encode(&changes, version);
                frames.push(NewFrame {
                    version: version.number,
                    time_us: version.time_us,
                    payload,
                });
                admitted.push((version, changes, answer));
            }
        }
        if admitted.is_empty() {
            return answers;
        }
        // If this thread panics from here on, the log may have more than the state, and nothing may follow.
        writer.failure = Some("a thread panicked while it committed".into());
        let sync = self.options.durability == Durability::Synced;
        let started = tracing::enabled!(tracing::Level::TRACE).then(Instant::now);
        let result = writer.log.append(&frames, sync);
        if let Some(started) = started {
            let seconds = started.elapsed().as_secs_f64();
            trace!(commits = frames.len(), sync, seconds, "commits written");
        }
        drop(frames);
        if result.is_ok() {
            writer.log_page_bytes += page_bytes;
        }
        for (version, mut changes, answer) in admitted {
            let result = match &result {
                Ok(()) => {
                    change::write_pages(&mut changes);
                    // What cannot be flushed stays in memory, and is safe in the log. So does what is committed while
                    // somebody else makes a checkpoint, which is not to find later pages in the files.
                    if let Ok(_checkpointing) = self.checkpointing.try_lock() {
                        let _ = change::relieve(&changes, WAITING_BYTES_MAX);
                    }
                    self.apply(version, changes);
                    Ok(version)
                }
                Err(error) => Err(error.duplicate()),
            };
            answers.push((answer, result));
        }
        writer.failure = match &result {
            Err(error) if writer.log.has_failed() => Some(error.to_string().into()),
            _ => None,
        };
        answers
    }

    /// Brings a commit that is durable into the state, all at once for whoever reads.
    fn apply(&self, version: Version, mut changes: Vec<Change>) {
        let state_changes = change::take_state(&mut changes);
        let mut state = self.write_state();
        change::apply(&mut state, version, changes);
        if !state_changes.is_empty() {
            let memory = self.options.state_memory_bytes;
            let open = |id| {
                let table = self.new_namespace_table(id, version);
                Arc::new(Namespace::new(table, memory))
            };
            // Not the commit's time, which does not go back when the clock does.
            let now_us = self.options.clock.now_us();
            change::apply_state(&mut state, state_changes, open, now_us);
        }
    }

    /// Commits changes whose pages are, for the most part, in the tables' files: a checkpoint is the commit.
    fn commit_bulk(&self, mut changes: Vec<Change>) -> Result<Version> {
        let result = self.commit_bulk_pages(&mut changes);
        match result {
            Ok(version) => {
                self.after_checkpoint();
                Ok(version)
            }
            Err(error) => {
                change::forget(&changes);
                Err(error)
            }
        }
    }

    /// As [`commit_bulk`](Self::commit_bulk). After an error the changes are still there.
    fn commit_bulk_pages(&self, changes: &mut Vec<Change>) -> Result<Version> {
        change::check(changes)?;
        change::write_pages(changes);
        // What takes long is done before others are kept from committing.
        let state = self.read_state().clone();
        change::follow_compaction(&state, changes)?;
        drop(state);
        change::flush_ahead(changes)?;
        let _checkpointing = lock(&self.checkpointing);
        self.flush_ahead();
        let version = {
            let mut writer = lock(self.writer()?);
            writer.check()?;
            let mut state = {
                let state = self.read_state();
                change::follow_compaction(&state, changes)?;
                Overlay::new(&state).admit(changes)?;
                state.clone()
            };
            let version = state.version.next(self.options.clock.now_us());
            let mut changes = std::mem::take(changes);
            let state_changes = change::take_state(&mut changes);
            change::apply(&mut state, version, changes);
            self.write_checkpoint(&mut writer, state, state_changes, None)?;
            version
        };
        self.remove_useless();
        Ok(version)
    }
}

/// Held by the thread that writes a group of commits. However that comes to an end, the next who waits leads.
struct Leading<'s>(&'s Shared);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        let next = queue.waiting.first();
        match next.and_then(|next| next.answer.0.as_ref()) {
            Some(next) => next.tell(Told::Lead),
            None => queue.has_leader = false,
        }
    }
}
