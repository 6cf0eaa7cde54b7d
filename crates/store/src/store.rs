//! The store: opening, committing, checkpointing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{
    change::{self, Change, Overlay, TableId},
    checkpoint::{self, Current},
    disk,
    error::{Error, ErrorKind, Result},
    keyspace::{Attach, Keyspace},
    lock::WriterLock,
    log::{LogEnd, LogWriter, NewFrame, ReplayedFrame, read_log},
    settings::{Durability, StoreOptions},
    state::{State, TableState, Watermark, table_dir_name},
    table::TableSnapshot,
    transaction::Transaction,
    version::Version,
    workdir::WorkDir,
};

const LOG_DIR: &str = "log";
const LIVE_DIR: &str = "live";

/// How often a reader looks again when a writer replaces the checkpoint under its hands.
const READ_ATTEMPTS_MAX: usize = 100;

/// How often a reader meets an unreadable log below the same checkpoint before it believes it, and the pause between.
const READ_SAME_MAX: usize = 5;
const READ_PAUSE: Duration = Duration::from_millis(5);

/// Smaller logs are left for the next open to replay: that takes less time than a checkpoint.
const CLOSE_CHECKPOINT_BYTES: u64 = 1 << 20;

/// An open store: a directory of durable tables.
///
/// One process writes at a time, any number read. All methods may be called from several threads at once.
///
/// # Examples
/// See [`Transaction`] and [`TableSnapshot`].
pub struct Store {
    dir: PathBuf,
    options: StoreOptions,
    work_dir: Arc<WorkDir>,
    state: RwLock<State>,
    next_table_id: AtomicU32,
    next_generation: AtomicU32,
    /// Commits that wait for whoever holds `role`.
    queue: Mutex<Vec<Queued>>,
    role: Role,
}

enum Role {
    Writer(
        Mutex<Writer>,
        #[expect(dead_code, reason = "held, not read")] WriterLock,
    ),
    Reader,
}

struct Writer {
    log: LogWriter,
    checkpoint_number: u64,
    /// Why no more commits are taken.
    failure: Option<String>,
}

struct Queued {
    changes: Vec<Change>,
    answer: Arc<Mutex<Option<Result<Version>>>>,
}

impl Store {
    /// Opens the store in `dir` for reading and writing. Makes one if the directory is missing or empty.
    ///
    /// Everything that was committed is there afterwards, however the last process ended. Tables are opened when they
    /// are first used.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another process has it open for writing (the message has its process id),
    /// [`ErrorKind::Invalid`] for a directory that is something else, [`ErrorKind::Data`] for damage.
    pub fn open(dir: impl AsRef<Path>, options: StoreOptions) -> Result<Self> {
        let dir = absolute(dir.as_ref())?;
        make_store_dir(&dir)?;
        let lock = WriterLock::take(&dir)?;
        let log_dir = dir.join(LOG_DIR);
        disk::make_dir(&log_dir)?;
        let work_dir = Arc::new(WorkDir::for_writer(&dir.join(LIVE_DIR))?);
        let current = match Current::read(&dir)? {
            Some(current) => current,
            None => create(&dir)?,
        };
        let mut state = checkpoint::load(&dir, current, &work_dir, Attach::Link)?
            .ok_or_else(|| Error::internal("checkpoint changed under the writer's lock"))?;
        let end = replay(&log_dir, &mut state, &work_dir)?;
        let log = LogWriter::open(
            log_dir.clone(),
            options.log_segment_bytes,
            end.chain,
            end.last,
            end.num_bytes,
        )?;
        // What a process that was killed has renamed may not be on disk under its name. It is built upon from here on.
        for changed in [&*log_dir, &*dir].into_iter().chain(dir.parent()) {
            disk::sync_dir(changed)?;
        }
        checkpoint::remove_old(&dir, current.number)?;
        disk::remove_file(&dir.join("CURRENT.new"))?;
        let writer = Writer {
            log,
            checkpoint_number: current.number,
            failure: None,
        };
        let role = Role::Writer(Mutex::new(writer), lock);
        Ok(Self::with_state(dir, options, work_dir, state, role))
    }

    /// Opens the store in `dir` as it is now, for reading. The store is not changed, not even its directory's times.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no store, [`ErrorKind::Data`] for damage.
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = absolute(dir.as_ref())?;
        let work_dir = Arc::new(WorkDir::for_reader()?);
        let mut num_same = 0;
        for _ in 0..READ_ATTEMPTS_MAX {
            let Some(current) = Current::read(&dir)? else {
                return Err(Error::not_found(format!("no store in `{}`", dir.display())));
            };
            // `None`: replaced just now.
            let Some(mut state) = checkpoint::load(&dir, current, &work_dir, Attach::Symlink)?
            else {
                continue;
            };
            match replay(&dir.join(LOG_DIR), &mut state, &work_dir) {
                // A checkpoint made meanwhile has taken segments out of the log.
                Ok(_) if Current::read(&dir)? != Some(current) => {}
                Ok(_) => {
                    let options = StoreOptions::default();
                    return Ok(Self::with_state(
                        dir,
                        options,
                        work_dir,
                        state,
                        Role::Reader,
                    ));
                }
                // A writer may have dropped a segment just now, or be in the middle of writing a frame. What stays
                // as it is for a while is damage.
                Err(error) => {
                    num_same = if Current::read(&dir)? == Some(current) {
                        num_same + 1
                    } else {
                        0
                    };
                    if num_same == READ_SAME_MAX {
                        return Err(error);
                    }
                    std::thread::sleep(READ_PAUSE);
                }
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "store changes too fast to be read: store=`{}`; try again",
                dir.display()
            ),
        ))
    }

    fn with_state(
        dir: PathBuf,
        options: StoreOptions,
        work_dir: Arc<WorkDir>,
        state: State,
        role: Role,
    ) -> Self {
        let next_generation = state
            .tables
            .values()
            .map(|table| table.generation)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        Self {
            dir,
            options,
            work_dir,
            next_table_id: AtomicU32::new(state.next_table_id),
            next_generation: AtomicU32::new(next_generation),
            state: RwLock::new(state),
            queue: Mutex::default(),
            role,
        }
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the store was opened with [`open_read_only`](Self::open_read_only).
    pub fn is_read_only(&self) -> bool {
        matches!(self.role, Role::Reader)
    }

    /// The newest commit.
    pub fn version(&self) -> Version {
        self.read_state().version
    }

    /// The names of all tables, sorted.
    pub fn table_names(&self) -> Vec<String> {
        self.read_state().tables.keys().cloned().collect()
    }

    /// A table as it is now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn table(&self, name: &str) -> Result<TableSnapshot> {
        let table = self
            .find_table(name)
            .ok_or_else(|| self.no_such_table(name))?;
        Ok(TableSnapshot::new(name, table))
    }

    /// All tables as of one commit.
    pub fn tables(&self) -> Vec<TableSnapshot> {
        let state = self.read_state();
        state
            .tables
            .iter()
            .map(|(name, table)| TableSnapshot::new(name, table.clone()))
            .collect()
    }

    /// A watermark, or `None`.
    pub fn watermark(&self, name: &str) -> Option<Watermark> {
        self.read_state().watermarks.get(name).cloned()
    }

    /// The names of all watermarks, sorted.
    pub fn watermark_names(&self) -> Vec<String> {
        self.read_state().watermarks.keys().cloned().collect()
    }

    /// Starts a transaction.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the store was opened read-only.
    pub fn begin(&self) -> Result<Transaction<'_>> {
        self.writer().map(|_| Transaction::new(self))
    }

    /// Writes everything that is in the log only to files of its own, and empties the log.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the store was opened read-only; [`ErrorKind::Unavailable`] if the disk failed or is
    /// full: all that was committed is safe in the log, but this store takes no more commits until it is opened again.
    pub fn checkpoint(&self) -> Result<()> {
        let mut writer = lock(self.writer()?);
        let state = self.read_state().clone();
        self.write_checkpoint(&mut writer, state)
    }

    /// Ends the use of the store. A large log is checkpointed, so that the next open is fast.
    ///
    /// Dropping the store instead loses nothing, and nor does an error: all that was committed is safe.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if that checkpoint failed, for instance on a full disk.
    pub fn close(self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        {
            let mut writer = lock(self.writer()?);
            if !writer.log.has_failed() && self.options.durability == Durability::Buffered {
                writer.log.sync()?;
            }
            if writer.failure.is_some() || writer.log.num_bytes() < CLOSE_CHECKPOINT_BYTES {
                return Ok(());
            }
        }
        self.checkpoint()
    }

    /// The sizes of all files of the store, in bytes, without the working directories.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if a directory cannot be listed.
    pub fn disk_bytes(&self) -> Result<u64> {
        let mut num_bytes = 0;
        for dir in ["checkpoint", LOG_DIR] {
            let files = disk::list_files(&self.dir.join(dir))?;
            num_bytes += files.iter().map(|(_, len)| len).sum::<u64>();
        }
        Ok(num_bytes)
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(crate) fn work_dir(&self) -> Arc<WorkDir> {
        Arc::clone(&self.work_dir)
    }

    pub(crate) fn take_table_id(&self) -> u32 {
        self.next_table_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn take_generation(&self) -> u32 {
        self.next_generation.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn find_table(&self, name: &str) -> Option<TableState> {
        self.read_state().tables.get(name).cloned()
    }

    pub(crate) fn no_such_table(&self, name: &str) -> Error {
        let names = self.table_names();
        let known = if names.is_empty() {
            "the store has no tables".to_owned()
        } else {
            format!("tables=`{}`", names.join(", "))
        };
        Error::not_found(format!("no such table: table=`{name}`; {known}"))
    }

    /// Commits changes, together with those of other threads that wait at the same time.
    ///
    /// Whoever gets the writer first takes the whole queue, and with one fsync answers all; the others find their
    /// answer when their turn comes.
    pub(crate) fn commit(&self, changes: Vec<Change>, is_bulk: bool) -> Result<Version> {
        if is_bulk {
            return self.commit_bulk(changes);
        }
        let answer = Arc::new(Mutex::new(None));
        lock(&self.queue).push(Queued {
            changes,
            answer: Arc::clone(&answer),
        });
        let mut writer = lock(self.writer()?);
        if let Some(answer) = lock(&answer).take() {
            return answer;
        }
        let group = std::mem::take(&mut *lock(&self.queue));
        self.commit_group(&mut writer, group);
        if writer.failure.is_none() && writer.log.num_bytes() >= self.options.checkpoint_log_bytes {
            let state = self.read_state().clone();
            // The commits are safe in the log: a failure is remembered for the next one, and is not theirs.
            let _ = self.write_checkpoint(&mut writer, state);
        }
        // The group held this thread's own entry, and every entry was answered.
        lock(&answer)
            .take()
            .unwrap_or_else(|| Err(Error::internal("commit was not answered")))
    }

    fn commit_group(&self, writer: &mut Writer, group: Vec<Queued>) {
        let mut admitted = Vec::with_capacity(group.len());
        let mut frames = Vec::with_capacity(group.len());
        {
            let state = self.read_state();
            let mut overlay = Overlay::new(&state);
            let mut version = state.version;
            for Queued { changes, answer } in group {
                let checked = writer
                    .check()
                    .and_then(|()| change::prepare(&changes))
                    .and_then(|()| overlay.admit(&changes));
                if let Err(error) = checked {
                    *lock(&answer) = Some(Err(error));
                    continue;
                }
                version = version.next();
                let payload = change::encode(&changes, version);
                frames.push(NewFrame {
                    version: version.number,
                    time_us: version.time_us,
                    payload,
                });
                admitted.push((version, changes, answer));
            }
        }
        let sync = self.options.durability == Durability::Synced;
        let mut result = writer.log.append(&frames, sync);
        drop(frames);
        if writer.log.has_failed()
            && let Err(error) = &result
        {
            writer.failure.get_or_insert_with(|| error.to_string());
        }
        for (version, mut changes, answer) in admitted {
            if result.is_ok() {
                // Durable by now. If the tables cannot take it, nothing may follow before the log is replayed.
                result = change::write_pages(&mut changes);
                // What cannot be flushed stays in memory, and is safe in the log.
                let _ = change::relieve(&changes);
                if let Err(error) = &result {
                    writer.failure.get_or_insert_with(|| error.to_string());
                }
            }
            *lock(&answer) = Some(match &result {
                Ok(()) => {
                    change::apply(&mut self.write_state(), version, changes);
                    Ok(version)
                }
                Err(error) => Err(error.duplicate()),
            });
        }
    }

    /// Commits changes whose pages are, for the most part, in the tables' files: a checkpoint is the commit.
    fn commit_bulk(&self, mut changes: Vec<Change>) -> Result<Version> {
        change::write_pages(&mut changes)?;
        change::relieve(&changes)?;
        let mut writer = lock(self.writer()?);
        writer.check()?;
        let mut state = {
            let state = self.read_state();
            Overlay::new(&state).admit(&changes)?;
            state.clone()
        };
        let version = state.version.next();
        change::apply(&mut state, version, changes);
        self.write_checkpoint(&mut writer, state)?;
        Ok(version)
    }

    /// Writes a checkpoint of `state` and makes it what this store holds. Steps 1 to 4 of `checkpoint.rs`.
    fn write_checkpoint(&self, writer: &mut Writer, mut state: State) -> Result<()> {
        writer.check()?;
        let number = writer.checkpoint_number + 1;
        if let Err(error) = checkpoint::write(&self.dir, number, &mut state) {
            // It may have been an fsync: what the system kept of those files is then unknown.
            writer.failure.get_or_insert_with(|| error.to_string());
            return Err(error);
        }
        writer.checkpoint_number = number;
        writer.log.clear(state.version.number + 1);
        *self.write_state() = state;
        // Space that cannot be given back now is given back by the next checkpoint.
        let _ = checkpoint::remove_old(&self.dir, number);
        Ok(())
    }

    fn writer(&self) -> Result<&Mutex<Writer>> {
        match &self.role {
            Role::Writer(writer, _) => Ok(writer),
            Role::Reader => Err(Error::invalid(format!(
                "store was opened read-only: store=`{}`",
                self.dir.display()
            ))),
        }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn check(&self) -> Result<()> {
        match &self.failure {
            None => Ok(()),
            Some(reason) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "store takes no more commits until it is opened again, because of: {reason}"
                ),
            )),
        }
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir)
        .map_err(|error| Error::io(format!("not a usable path=`{}`", dir.display()), error))
}

/// Makes the store's directory, or checks that what stands there may be a store.
fn make_store_dir(dir: &Path) -> Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(|error| {
            Error::io(
                format!("cannot make directory `{}`", parent.display()),
                error,
            )
        })?;
    }
    disk::make_dir(dir)?;
    let names = disk::list_dir(dir)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    // A store whose making was interrupted has a LOCK and nothing that is not ours.
    let is_begun = has("LOCK")
        && names.iter().all(|name| {
            ["LOCK", "CURRENT.new", "checkpoint", LOG_DIR, LIVE_DIR].contains(&name.as_str())
        });
    if let Some(stranger) = names.first()
        && !has("CURRENT")
        && !is_begun
    {
        return Err(Error::invalid(format!(
            "directory is not empty and not a store: dir=`{}` file=`{stranger}`",
            dir.display()
        )));
    }
    Ok(())
}

/// Writes the first checkpoint of a new store.
fn create(dir: &Path) -> Result<Current> {
    if !disk::list_dir(&dir.join(LOG_DIR))?
        .iter()
        .all(|name| name == "new")
    {
        return Err(Error::data(format!(
            "store has a log but no file CURRENT: store=`{}`; restore the store from a backup",
            dir.display()
        )));
    }
    let mut state = State::empty();
    checkpoint::write(dir, 1, &mut state)?;
    if let Some(parent) = dir.parent() {
        disk::sync_dir(parent)?;
    }
    Current::read(dir)?.ok_or_else(|| Error::internal("a new store has no CURRENT"))
}

/// Brings the commits that are in the log only into the state.
fn replay(log_dir: &Path, state: &mut State, work_dir: &Arc<WorkDir>) -> Result<LogEnd> {
    let first_version = state.version.number + 1;
    read_log(
        log_dir,
        first_version,
        |ReplayedFrame {
             version,
             time_us,
             payload,
         }| {
            let open = |table: TableId| {
                let name = table_dir_name(table.id, table.generation);
                Arc::new(Keyspace::new(Arc::clone(work_dir), &name, None, 0))
            };
            let find = |name: &str, table: TableId| {
                state
                    .tables
                    .get(name)
                    .filter(|found| found.id == table.id && found.generation == table.generation)
                    .map(|found| Arc::clone(&found.keyspace))
            };
            let mut changes = change::decode(&payload, open, find)?;
            Overlay::new(state).admit(&changes).map_err(|error| {
                Error::data("log does not fit the checkpoint").with_source(error)
            })?;
            change::write_pages(&mut changes)?;
            change::apply(
                state,
                Version {
                    number: version,
                    time_us,
                },
                changes,
            );
            Ok(())
        },
    )
}
