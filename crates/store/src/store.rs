//! The store: opening it, what it shows, and what its users ask of it.

use std::{
    borrow::Cow,
    collections::HashSet,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tracing::debug;

use crate::{
    change::{self, Overlay, TableId},
    checkpoint::{self, Current},
    commit::Queue,
    compaction::Folds,
    disk,
    error::{Error, ErrorKind, Result},
    keyspace::{Attach, Keyspace},
    lock::WriterLock,
    log::{LogEnd, LogWriter, ReplayedFrame, is_begun_segment, read_log},
    namespace::{KeyedState, Namespace, namespace_of, namespace_spec},
    settings::{CompactionMode, Durability, StoreOptions},
    state::{State, TableState, Watermark},
    table::TableSnapshot,
    transaction::Transaction,
    version::{AsOf, Version},
    workdir::WorkDir,
};

pub(crate) const LOG_DIR: &str = "log";
const LIVE_DIR: &str = "live";

/// How often a reader looks again when a writer replaces the checkpoint under its hands.
pub(crate) const READ_ATTEMPTS_MAX: usize = 100;

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
    shared: Arc<Shared>,
    background: Option<Background>,
}

/// What the users of a store share with the thread that keeps it in shape.
pub struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) options: StoreOptions,
    work_dir: Arc<WorkDir>,
    state: RwLock<State>,
    next_table_id: AtomicU32,
    next_generation: AtomicU32,
    pub(crate) queue: Mutex<Queue>,
    /// Held by whoever compacts. Taken before `checkpointing`, and that before the writer.
    pub(crate) compacting: Mutex<()>,
    /// Held by whoever makes a checkpoint, so that others need not make one too, and so that the pages of commits go to
    /// files for one checkpoint at a time.
    pub(crate) checkpointing: Mutex<()>,
    /// Compactions that make room in the log before long.
    pub(crate) folds: Mutex<Folds>,
    /// Told when one of them has ended.
    pub(crate) folded: Condvar,
    /// Set when compactions are to end early.
    pub(crate) is_ending: AtomicBool,
    /// The thread that keeps the store in shape was called and has not come to it yet.
    pub(crate) is_called: AtomicBool,
    /// Tells that thread that there may be work.
    pub(crate) wake: Mutex<Option<Sender<()>>>,
    role: Role,
}

enum Role {
    Writer(
        Box<Mutex<Writer>>,
        #[expect(dead_code, reason = "held, not read")] WriterLock,
    ),
    Reader,
}

pub(crate) struct Writer {
    pub(crate) log: LogWriter,
    pub(crate) checkpoint_number: u64,
    /// Encoded bytes of the live rows in the checkpoint.
    pub(crate) checkpoint_bytes: u64,
    /// Encoded bytes of the pages that are in the log only.
    pub(crate) log_page_bytes: u64,
    /// Why no more commits are taken.
    pub(crate) failure: Option<Cow<'static, str>>,
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
        let started = Instant::now();
        let dir = absolute(dir.as_ref())?;
        make_store_dir(&dir)?;
        let lock = WriterLock::take(&dir)?;
        if Current::read(&dir)?.is_none() {
            // Whatever is found of a store whose making was interrupted, LOCK is there and says that it is one.
            disk::sync_dir(&dir)?;
        }
        let log_dir = dir.join(LOG_DIR);
        disk::make_dir(&log_dir)?;
        let work_dir = Arc::new(WorkDir::for_writer(
            &dir.join(LIVE_DIR),
            options.page_cache_bytes,
        )?);
        let current = match Current::read(&dir)? {
            Some(current) => current,
            None => create(&dir)?,
        };
        let mut state = checkpoint::load(&dir, current, &work_dir, Attach::Link)?
            .ok_or_else(|| Error::internal("checkpoint changed under the writer's lock"))?;
        let checkpoint_bytes = state.num_live_bytes();
        take_namespaces(&mut state, options.state_memory_bytes);
        let end = replay(&log_dir, &mut state, &work_dir, &options)?;
        let mut log = LogWriter::open(log_dir.clone(), options.log_segment_bytes, &end)?;
        if options.compaction == CompactionMode::Background {
            log.make_ahead();
        }
        // What a process that was killed has renamed may not be on disk under its name. It is built upon from here on.
        for changed in [&*log_dir, &*dir].into_iter().chain(dir.parent()) {
            disk::sync_dir(changed)?;
        }
        checkpoint::remove_old(&dir, current.number)?;
        disk::remove_file(&dir.join("CURRENT.new"))?;
        let writer = Writer {
            log,
            checkpoint_number: current.number,
            checkpoint_bytes,
            log_page_bytes: end.num_bytes,
            failure: None,
        };
        debug!(
            dir = %dir.display(),
            version = state.version.number,
            log_bytes = end.num_bytes,
            seconds = started.elapsed().as_secs_f64(),
            "store opened"
        );
        let role = Role::Writer(Box::new(Mutex::new(writer)), lock);
        Ok(Self::with_state(dir, options, work_dir, state, role))
    }

    /// Opens the store in `dir` as it is now, for reading. The store is not changed, not even its directory's times.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no store, [`ErrorKind::Data`] for damage.
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_read_only_with(dir, StoreOptions::default())
    }

    /// As [`open_read_only`](Self::open_read_only), with settings of those that matter to a reader: the clock, and the
    /// memory for keyed state and for pages.
    ///
    /// # Errors
    /// As for [`open_read_only`](Self::open_read_only).
    pub fn open_read_only_with(dir: impl AsRef<Path>, options: StoreOptions) -> Result<Self> {
        let dir = absolute(dir.as_ref())?;
        let work_dir = Arc::new(WorkDir::for_reader(options.page_cache_bytes)?);
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
            take_namespaces(&mut state, options.state_memory_bytes);
            match replay(&dir.join(LOG_DIR), &mut state, &work_dir, &options) {
                // A checkpoint made meanwhile has taken segments out of the log.
                Ok(_) if Current::read(&dir)? != Some(current) => {}
                Ok(_) => {
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
        let tables = state.tables.values();
        let tables = tables.flat_map(|table| table.older.iter().chain([table]));
        let next_generation = tables
            .map(|table| table.generation)
            .chain(
                state
                    .namespaces
                    .values()
                    .map(|namespace| namespace.table().generation),
            )
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let is_writer = matches!(role, Role::Writer(..));
        let shared = Arc::new(Shared {
            dir,
            options,
            work_dir,
            next_table_id: AtomicU32::new(state.next_table_id),
            next_generation: AtomicU32::new(next_generation),
            state: RwLock::new(state),
            queue: Mutex::default(),
            compacting: Mutex::default(),
            checkpointing: Mutex::default(),
            folds: Mutex::default(),
            folded: Condvar::new(),
            is_ending: AtomicBool::new(false),
            is_called: AtomicBool::new(false),
            wake: Mutex::default(),
            role,
        });
        let is_background = is_writer && shared.options.compaction == CompactionMode::Background;
        let background = is_background.then(|| Background::start(&shared));
        Self { shared, background }
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

    /// The last commit that is in the current checkpoint; what came later is in the log only.
    pub fn last_checkpoint(&self) -> Version {
        self.read_state().checkpointed
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

    /// A table as it was at an earlier version or time.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such table, it was made later, or that version is not kept any more;
    /// [`ErrorKind::Invalid`] for a version or a time that is still to come.
    pub fn table_at(&self, name: &str, as_of: AsOf) -> Result<TableSnapshot> {
        let newest = self.version();
        match as_of {
            AsOf::Version(number) if number > newest.number => {
                return Err(Error::invalid(format!(
                    "version is still to come: version=`{number}` newest=`{newest}`"
                )));
            }
            // What a table will be like then cannot be told.
            AsOf::Time(time_us)
                if time_us > newest.time_us && time_us > self.options.clock.now_us() =>
            {
                return Err(Error::invalid(format!("time is still to come: {as_of}")));
            }
            _ => {}
        }
        self.table(name)?.at(as_of)
    }

    /// A namespace of keyed state; it need not be there yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that cannot be one.
    pub fn state(&self, namespace: &str) -> Result<KeyedState<'_>> {
        KeyedState::new(self, namespace)
    }

    /// The names of all namespaces of keyed state, sorted.
    pub fn namespaces(&self) -> Vec<String> {
        self.read_state().namespaces.keys().cloned().collect()
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
        let writer = self.writer()?;
        {
            let _checkpointing = lock(&self.checkpointing);
            self.flush_ahead();
            self.write_checkpoint_now(&mut lock(writer))?;
            self.remove_useless();
        }
        self.after_checkpoint();
        Ok(())
    }

    /// Compacts a table: its live rows become full pages in key order, and the space of all others is given back.
    ///
    /// Versions that the table's [`Retention`] keeps stay readable, older ones go. Other threads read and commit
    /// meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such table, [`ErrorKind::Conflict`] if it is replaced or dropped meanwhile,
    /// [`ErrorKind::Data`] for damage, and those of [`checkpoint`](Self::checkpoint).
    pub fn compact_table(&self, name: &str) -> Result<()> {
        self.writer()?;
        if self.find_table(name).is_none() {
            return Err(self.no_such_table(name));
        }
        let _compacting = lock(&self.compacting);
        self.compact_stored(name)
    }

    /// Compacts all tables and namespaces of keyed state.
    ///
    /// # Errors
    /// As for [`compact_table`](Self::compact_table). What was compacted before the error stays so.
    pub fn compact(&self) -> Result<()> {
        self.writer()?;
        let _compacting = lock(&self.compacting);
        for name in self.stored_names() {
            match self.compact_stored(&name) {
                // Dropped or replaced meanwhile: nothing is left to compact.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Ends the use of the store. A large log is checkpointed, so that the next open is fast.
    ///
    /// Dropping the store instead loses nothing, and nor does an error: all that was committed is safe.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if that checkpoint failed, for instance on a full disk.
    pub fn close(mut self) -> Result<()> {
        self.end_background(false);
        if self.is_read_only() {
            return Ok(());
        }
        let mut writer = lock(self.writer()?);
        if !writer.log.has_failed() && self.options.durability == Durability::Buffered {
            writer.log.sync()?;
        }
        let result = if writer.failure.is_some() || writer.log.num_bytes() < CLOSE_CHECKPOINT_BYTES
        {
            Ok(())
        } else {
            self.write_checkpoint_now(&mut writer)
        };
        drop(writer);
        // Also what snapshots have kept that were held when newer checkpoints were made.
        let _checkpointing = lock(&self.checkpointing);
        self.remove_useless();
        result
    }

    /// The sizes of all files of the store, in bytes, without the working directories. A file that two checkpoints
    /// share counts once.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if a directory cannot be listed.
    pub fn disk_bytes(&self) -> Result<u64> {
        let mut num_bytes = 0;
        let mut seen = HashSet::new();
        for dir in ["checkpoint", LOG_DIR] {
            for (path, len) in disk::list_files(&self.dir.join(dir))? {
                // One that is gone by now takes no space.
                if disk::file_id(&path).is_some_and(|id| seen.insert(id)) {
                    num_bytes += len;
                }
            }
        }
        Ok(num_bytes)
    }
}

impl Deref for Store {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The thread that compacts. It ends with the store.
struct Background(Option<JoinHandle<()>>);

impl Background {
    fn start(shared: &Arc<Shared>) -> Self {
        let (sender, receiver) = mpsc::channel();
        let weak = Arc::downgrade(shared);
        let work = move || {
            while receiver.recv().is_ok() {
                // Many calls are one.
                while receiver.try_recv().is_ok() {}
                let Some(shared) = weak.upgrade() else {
                    return;
                };
                // A panic has been printed, and the store is as it was before that compaction. The next call tries again.
                let _ = catch_unwind(AssertUnwindSafe(|| shared.upkeep()));
            }
        };
        let thread = std::thread::Builder::new().name("darner-compact".to_owned());
        let handle = thread.spawn(work).ok();
        // Without a thread to do it, `after_checkpoint` does it itself.
        *lock(&shared.wake) = handle.is_some().then_some(sender);
        Self(handle)
    }
}

impl Store {
    /// Ends the thread that compacts, after what it was called for, or at once.
    fn end_background(&mut self, at_once: bool) {
        self.shared.is_ending.store(at_once, Ordering::Relaxed);
        lock(&self.shared.wake).take();
        if let Some(handle) = self
            .background
            .take()
            .and_then(|mut background| background.0.take())
        {
            // A panic in there has been printed, and the store is as it was before that compaction.
            let _ = handle.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end_background(true);
    }
}

impl Shared {
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

    /// Returns when no commit is half applied.
    pub(crate) fn wait_for_apply(&self) {
        drop(self.read_state());
    }

    pub(crate) fn find_namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.read_state().namespaces.get(name).cloned()
    }

    /// The number of a namespace: the one it has, or a new one.
    pub(crate) fn namespace_id(&self, name: &str) -> u32 {
        match self.find_namespace(name) {
            Some(namespace) => namespace.table().id,
            None => self.take_table_id(),
        }
    }

    pub(crate) fn no_such_table(&self, name: &str) -> Error {
        let names: Vec<String> = self.read_state().tables.keys().cloned().collect();
        let known = if names.is_empty() {
            "the store has no tables".to_owned()
        } else {
            format!("tables=`{}`", names.join(", "))
        };
        Error::not_found(format!("no such table: table=`{name}`; {known}"))
    }

    pub(crate) fn new_namespace_table(&self, id: u32, version: Version) -> TableState {
        let generation = self.take_generation();
        let keyspace = Keyspace::new(self.work_dir(), id, generation, None, 0);
        TableState::new(
            id,
            generation,
            namespace_spec(),
            Arc::new(keyspace),
            version,
        )
    }

    pub(crate) fn writer(&self) -> Result<&Mutex<Writer>> {
        match &self.role {
            Role::Writer(writer, _) => Ok(writer),
            Role::Reader => Err(Error::invalid(format!(
                "store was opened read-only: store=`{}`",
                self.dir.display()
            ))),
        }
    }

    pub(crate) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(crate) fn check(&self) -> Result<()> {
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

    /// Takes no more commits after an error: it may have been an fsync, and what the system kept of those files
    /// is then unknown.
    pub(crate) fn end_on_error<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            self.failure
                .get_or_insert_with(|| Cow::Owned(error.to_string()));
        })
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is changed in single steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir)
        .map_err(|error| Error::io(format!("not a usable path=`{}`", dir.display()), error))
}

/// Makes the store's directory, or checks that what stands there may be a store.
fn make_store_dir(dir: &Path) -> Result<()> {
    if let Some(parent) = dir.parent() {
        disk::make_dirs(parent)?;
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
        .all(|name| is_begun_segment(name))
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

/// Takes the namespaces out from among the tables of a checkpoint.
fn take_namespaces(state: &mut State, memory_bytes_max: usize) {
    let tables = std::mem::take(&mut state.tables);
    for (name, table) in tables {
        if let Some(namespace) = namespace_of(&name) {
            let shared = Arc::new(Namespace::new(table, memory_bytes_max));
            state.namespaces.insert(namespace.to_owned(), shared);
        } else {
            state.tables.insert(name, table);
        }
    }
}

/// Brings the commits that are in the log only into the state.
fn replay(
    log_dir: &Path,
    state: &mut State,
    work_dir: &Arc<WorkDir>,
    options: &StoreOptions,
) -> Result<LogEnd> {
    let first_version = state.version.number + 1;
    read_log(log_dir, first_version, |frame| {
        let ReplayedFrame {
            version,
            time_us,
            payload,
        } = frame;
        let version = Version {
            number: version,
            time_us,
        };
        let new_keyspace = |id: u32, generation: u32| {
            Arc::new(Keyspace::new(Arc::clone(work_dir), id, generation, None, 0))
        };
        let open = |table: TableId| new_keyspace(table.id, table.incarnation);
        let find = |name: &str, table: TableId| {
            state
                .tables
                .get(name)
                .filter(|found| found.id == table.id && found.incarnation == table.incarnation)
                .map(|found| Arc::clone(&found.keyspace))
        };
        let mut changes = change::decode(&payload, open, find)?;
        Overlay::new(state)
            .admit(&changes)
            .map_err(|error| Error::data("log does not fit the checkpoint").with_source(error))?;
        change::write_pages(&mut changes);
        let state_changes = change::take_state(&mut changes);
        change::apply(state, version, changes);
        let open = |id: u32| {
            // The first generation of a namespace that no checkpoint has yet.
            let keyspace = new_keyspace(id, 0);
            let table = TableState::new(id, 0, namespace_spec(), keyspace, version);
            Arc::new(Namespace::new(table, options.state_memory_bytes))
        };
        // Nothing ends while the log is read: what has ended by then is looked at when it is read.
        change::apply_state(state, state_changes, open, i64::MIN);
        Ok(())
    })
}
