//! Where the pages of one table generation live, and every key that this crate writes into Tonbo:
//!
//! ```text
//! page 0   "0000000000000000"  -> page bytes     sixteen hexadecimal digits, so that keys sort as numbers
//! page 1   "0000000000000001"  -> page bytes
//! ...
//! ```
//!
//! One [`Keyspace`] is one Tonbo database in a working directory of its own, `tIDgGENERATION`. The directory is made
//! from the current checkpoint when the table is first used, and is never trusted again after the process has ended.
//!
//! New pages wait in memory until there are many, or until a checkpoint needs them in files: Tonbo takes a thousand at
//! once in less time than it takes ten one by one. Until then they are in the log, or their commit is not done.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arrow_buffer::Buffer;
use bytes::Bytes;

use crate::{
    disk::{self, Op},
    error::{Error, ErrorKind, Result},
    lock::ReaderLock,
    page::{CachedPage, PageMeta},
    state::table_dir_name,
    tonbo::Database,
    workdir::WorkDir,
};

/// A file of a checkpoint that belongs to one table generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableFile {
    /// Relative to the table's directory in the checkpoint: `NAME` or `version/NAME`.
    pub(crate) name: String,
    pub(crate) num_bytes: u64,
    pub(crate) crc: u32,
}

/// How the names of Tonbo's files end that hold pages. They are written once.
pub(crate) const PAGES_SUFFIX: &str = ".parquet";

/// The directory of Tonbo's version logs inside a table's directory.
pub(crate) const VERSION_DIR: &str = "version";

/// How a working directory gets the immutable files of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attach {
    /// Hard links: the working directory is the writer's, in the store.
    Link,
    /// Symbolic links: the working directory is a reader's, outside the store.
    Symlink,
}

/// What a working directory is made from.
#[derive(Clone)]
pub(crate) struct TableSource {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<TableFile>,
    pub(crate) attach: Attach,
    /// Keeps the checkpoint for as long as somebody may still look into it.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) lock: Arc<ReaderLock>,
}

/// The pages of one table generation.
pub(crate) struct Keyspace {
    generation: u32,
    /// A number that no other keyspace of this process has.
    number: u64,
    dir: PathBuf,
    /// Keeps the directory above `dir` for as long as this may look into it.
    work_dir: Arc<WorkDir>,
    /// What the directory is made from on first use: where the newest checkpoint has it. `None` for a new generation.
    source: Mutex<Option<TableSource>>,
    database: OnceLock<Database>,
    /// Pages that the database does not have yet. One that is taken out is in the database by then.
    waiting: RwLock<Waiting>,
    /// Held while the database is opened, written or flushed. Neither readers nor commits take it, once it is open.
    gate: Mutex<Gate>,
    /// The database has refused pages, and has some of them perhaps; a key must not be written twice. Or files could
    /// not be written or brought to disk: what they hold is unknown then, even if it works the next time.
    has_failed: AtomicBool,
    /// Shared with the generations that compactions have made of the same table, so that a page that is taken over by a
    /// new generation keeps its number there.
    next_page_id: Arc<AtomicU64>,
    /// Pages went to files to give memory back, before any checkpoint wanted them.
    is_relieved: AtomicBool,
    /// Set when nothing will ever open the directory again: it goes with the last user.
    is_dropped: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    pages: BTreeMap<u64, Bytes>,
    num_bytes: usize,
}

impl Waiting {
    fn remove(&mut self, id: u64) {
        if let Some(bytes) = self.pages.remove(&id) {
            self.num_bytes -= bytes.len();
        }
    }
}

/// Which of the pages that wait are to be in files.
pub(crate) enum Wanted {
    All,
    Some(HashSet<u64>),
}

impl Wanted {
    /// These pages.
    pub(crate) fn pages<'a>(pages: impl IntoIterator<Item = &'a PageMeta>) -> Self {
        Self::Some(pages.into_iter().map(|page| page.id).collect())
    }

    fn has(&self, id: u64) -> bool {
        match self {
            Self::All => true,
            Self::Some(ids) => ids.contains(&id),
        }
    }
}

#[derive(Default)]
struct Gate {
    /// Files of the working directory that are on disk already, with their checksums.
    synced: Vec<TableFile>,
}

/// Bytes of pages that go to the database at once.
const INSERT_BYTES: usize = 16 << 20;

impl Keyspace {
    /// The keyspace of a generation of a table, below a working directory.
    pub(crate) fn new(
        work_dir: Arc<WorkDir>,
        id: u32,
        generation: u32,
        source: Option<TableSource>,
        next_page_id: u64,
    ) -> Self {
        static NUM_KEYSPACES: AtomicU64 = AtomicU64::new(0);
        Self {
            generation,
            number: NUM_KEYSPACES.fetch_add(1, Ordering::Relaxed),
            dir: work_dir.path().join(table_dir_name(id, generation)),
            work_dir,
            source: Mutex::new(source),
            database: OnceLock::new(),
            waiting: RwLock::default(),
            gate: Mutex::default(),
            has_failed: AtomicBool::new(false),
            next_page_id: Arc::new(AtomicU64::new(next_page_id)),
            is_relieved: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
        }
    }

    /// An empty generation that follows this one, in the same working directory.
    pub(crate) fn successor(&self, id: u32, generation: u32) -> Self {
        let mut next = Self::new(Arc::clone(&self.work_dir), id, generation, None, 0);
        next.next_page_id = Arc::clone(&self.next_page_id);
        next
    }

    /// The number of the generation.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The working directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the newest checkpoint has this generation.
    pub(crate) fn source(&self) -> Option<TableSource> {
        self.source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes that a newer checkpoint has this generation: the older one is about to go.
    pub(crate) fn set_source(&self, source: TableSource) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    /// The number that the next page will get.
    pub(crate) fn next_page_id(&self) -> u64 {
        self.next_page_id.load(Ordering::Relaxed)
    }

    /// Takes the numbers of `num_pages` new pages; returns the first.
    pub(crate) fn take_page_ids(&self, num_pages: usize) -> u64 {
        self.next_page_id
            .fetch_add(num_pages as u64, Ordering::Relaxed)
    }

    /// Notes that a page with this number exists, found in the log.
    pub(crate) fn reserve_page_id(&self, id: u64) {
        self.next_page_id
            .fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }

    /// Lets the directory go with the last user of this keyspace.
    pub(crate) fn drop_later(&self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }

    /// Makes sure that the database can be opened: what is damaged, or has no room, is to be known before a commit.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.open_database().map(|_| ())
    }

    /// Takes pages in, under numbers that nobody has used before.
    pub(crate) fn write(&self, pages: impl IntoIterator<Item = (u64, Bytes)>) {
        let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
        for (id, bytes) in pages {
            waiting.num_bytes += bytes.len();
            waiting.pages.insert(id, bytes);
        }
    }

    /// Pages that are in memory only, with their bytes. `None` if one of them is in the database.
    pub(crate) fn waiting<'a>(
        &self,
        pages: impl IntoIterator<Item = &'a Arc<PageMeta>>,
    ) -> Option<Vec<(u64, Bytes)>> {
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
        let found = pages.into_iter().map(|page| {
            let bytes = waiting.pages.get(&page.id)?;
            Some((page.id, bytes.clone()))
        });
        found.collect()
    }

    /// Gives memory back if more than so many bytes wait: brings those pages to the database that are `wanted` there.
    pub(crate) fn relieve(&self, bytes_max: usize, wanted: &Wanted) -> Result<()> {
        let num_bytes = || {
            let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
            waiting.num_bytes
        };
        if num_bytes() > bytes_max {
            let gate = self.lock_gate();
            // Another thread may have done it.
            if num_bytes() > bytes_max {
                self.is_relieved.store(true, Ordering::Relaxed);
                self.flush(&gate, wanted)?;
            }
        }
        Ok(())
    }

    /// Gives memory back while a load goes on: brings the `wanted` pages to files and these to the disk.
    pub(crate) fn relieve_to_disk(&self, wanted: &Wanted) -> Result<()> {
        self.is_relieved.store(true, Ordering::Relaxed);
        self.flush_ahead(wanted)
    }

    /// Whether pages went to files to give memory back.
    pub(crate) fn is_relieved(&self) -> bool {
        self.is_relieved.load(Ordering::Relaxed)
    }

    fn lock_gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The beginning of a message about what cannot be done in the working directory.
    fn cannot(&self, action: &str) -> String {
        format!("cannot {action} in `{}`", self.dir.display())
    }

    /// Writes what is `wanted` and waits to files. They are not on disk yet.
    fn flush(&self, gate: &Gate, wanted: &Wanted) -> Result<()> {
        let database = self.open(gate)?;
        self.check()?;
        while let Some(pages) = self.next_waiting(wanted) {
            let records = pages
                .iter()
                .map(|(id, bytes)| (page_key(*id), bytes.clone()))
                .collect();
            disk::observed(&Op::Insert(&self.dir), || Ok(()))
                .map_err(|error| Error::io(self.cannot("write to a table"), error))?;
            database
                .insert(records)
                .inspect_err(|_| self.note_failure())
                .map_err(|error| error.context(self.dir.display()))?;
            let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
            for (id, _) in &pages {
                waiting.remove(*id);
            }
        }
        disk::observed(&Op::Flush(&self.dir), || Ok(()))
            .map_err(|error| Error::io(self.cannot("write a table to its files"), error))?;
        database.flush().map_err(|error| {
            self.note_failure();
            // Tonbo keeps the reason to itself. A write of our own meets it too, if it is the disk's.
            disk::probe(&self.dir)
                .err()
                .unwrap_or(error)
                .context(self.cannot("write a table to its files"))
        })
    }

    fn note_failure(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// Fails if pages can never be written to files any more.
    pub(crate) fn check(&self) -> Result<()> {
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                self.cannot("write a table to its files, because that has failed before,"),
            ));
        }
        Ok(())
    }

    /// Gives up pages that no commit will ever have, as far as they wait.
    pub(crate) fn forget(&self, ids: &[u64]) {
        if ids.is_empty() {
            // The common case, which has nothing to wait for.
            return;
        }
        // While they are on their way into the database they are to stay.
        let _gate = self.lock_gate();
        let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            waiting.remove(*id);
        }
    }

    /// Some of the wanted pages that wait, those with the smallest numbers. `None` if none do.
    fn next_waiting(&self, wanted: &Wanted) -> Option<Vec<(u64, Bytes)>> {
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
        let mut num_bytes = 0;
        let pages: Vec<(u64, Bytes)> = waiting
            .pages
            .iter()
            .filter(|(id, _)| wanted.has(**id))
            .take_while(|(_, bytes)| {
                let is_taken = num_bytes < INSERT_BYTES;
                num_bytes += bytes.len();
                is_taken
            })
            .map(|(id, bytes)| (*id, bytes.clone()))
            .collect();
        (!pages.is_empty()).then_some(pages)
    }

    /// Does ahead of a checkpoint what takes long and can be done while others commit: the pages that it will want are in
    /// files afterwards, and these are on disk.
    pub(crate) fn flush_ahead(&self, wanted: &Wanted) -> Result<()> {
        let names = {
            let mut gate = self.lock_gate();
            self.flush(&gate, wanted)?;
            let known = self.source().map_or_else(Vec::new, |source| source.files);
            gate.synced.retain(|file| !known.contains(file));
            let mut names = disk::list_dir(&self.dir)?;
            names.retain(|name| {
                let mut known = known.iter().chain(&gate.synced);
                name.ends_with(PAGES_SUFFIX) && !known.any(|file| file.name == *name)
            });
            names
        };
        // These files stay as they are, and a checkpoint need not wait for the disk with them.
        for name in names {
            let path = self.dir.join(&name);
            disk::sync_file(&path).inspect_err(|_| self.note_failure())?;
            let (num_bytes, crc) = disk::checksum_file(&path)?;
            let synced = &mut self.lock_gate().synced;
            if !synced.iter().any(|file| file.name == name) {
                synced.push(TableFile {
                    name,
                    num_bytes,
                    crc,
                });
            }
        }
        Ok(())
    }

    /// Flushes, then calls `copy` while nothing else writes: the directory holds every wanted page then. `copy` is shown
    /// those files that are on disk already.
    pub(crate) fn flush_and<T>(
        &self,
        wanted: &Wanted,
        copy: impl FnOnce(&[TableFile]) -> Result<T>,
    ) -> Result<T> {
        let gate = self.lock_gate();
        self.flush(&gate, wanted)?;
        let mut known = self.source().map_or_else(Vec::new, |source| source.files);
        known.extend(gate.synced.iter().cloned());
        copy(&known)
    }

    /// Reads pages; the answer has their bytes in the order of `pages`.
    ///
    /// Cheapest when the numbers of the pages lie close together.
    pub(crate) fn read(&self, pages: &[&PageMeta]) -> Result<Vec<Buffer>> {
        let mut buffers: Vec<Option<Buffer>> = {
            let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
            pages
                .iter()
                .map(|page| waiting.pages.get(&page.id))
                .map(|bytes| bytes.map(|bytes| Buffer::from(bytes.clone())))
                .collect()
        };
        let wanted: HashMap<u64, usize> = pages
            .iter()
            .zip(0..)
            .filter(|(_, at)| buffers[*at].is_none())
            .map(|(page, at)| (page.id, at))
            .collect();
        if let (Some(first), Some(last)) = (wanted.keys().min(), wanted.keys().max()) {
            let (first, last) = (page_key(*first), page_key(*last));
            let found = self.open_database()?.scan(first, last, move |key, bytes| {
                let at = *wanted.get(&u64::from_str_radix(key, 16).ok()?)?;
                Some((at, Buffer::from(bytes)))
            })?;
            for (at, buffer) in found.into_iter().flatten() {
                buffers[at] = Some(buffer);
            }
        }
        buffers
            .into_iter()
            .zip(pages)
            .map(|(buffer, page)| {
                buffer.ok_or_else(|| Error::data(format!("page is missing: page=`{}`", page.id)))
            })
            .collect::<Result<_>>()
            .map_err(|error| error.context(self.place()))
    }

    /// As [`read`](Self::read), but takes pages that queries have read lately from memory, and leaves there what it had to
    /// read.
    pub(crate) fn read_cached(&self, pages: &[&PageMeta]) -> Result<Vec<Arc<CachedPage>>> {
        let cache = self.work_dir.pages();
        let place = |page: &PageMeta| (self.number, page.id);
        let mut found = cache.get(pages.iter().map(|page| place(page)));
        let missing: Vec<usize> = (0..pages.len()).filter(|at| found[*at].is_none()).collect();
        let metas: Vec<&PageMeta> = missing.iter().map(|at| pages[*at]).collect();
        if !metas.is_empty() {
            let buffers = self.read(&metas)?;
            for ((at, meta), bytes) in missing.into_iter().zip(metas).zip(buffers) {
                let page = CachedPage::check(meta, bytes);
                let page = Arc::new(page.map_err(|error| error.context(self.place()))?);
                cache.put(place(meta), &page);
                found[at] = Some(page);
            }
        }
        found
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| Error::internal("page was read without an answer"))
    }

    /// The directory that a message about this table's files should name.
    pub(crate) fn place(&self) -> String {
        let dir = self
            .source()
            .map_or_else(|| self.dir.clone(), |source| source.dir);
        format!("table files in `{}`", dir.display())
    }

    fn open_database(&self) -> Result<&Database> {
        match self.database.get() {
            Some(database) => Ok(database),
            None => self.open(&self.lock_gate()),
        }
    }

    /// Opens the database if it is not open. Taking the gate is the caller's part.
    fn open(&self, _gate: &Gate) -> Result<&Database> {
        if let Some(database) = self.database.get() {
            return Ok(database);
        }
        disk::remove_dir(&self.dir)?;
        disk::make_dir(&self.dir)?;
        let version_dir = self.dir.join(VERSION_DIR);
        disk::make_dir(&version_dir)?;
        if let Some(source) = self.source() {
            for file in &source.files {
                check_file(&source.dir.join(&file.name), file)?;
                let (from, to) = (source.dir.join(&file.name), self.dir.join(&file.name));
                if to.parent() == Some(version_dir.as_path()) {
                    // Tonbo writes to these, and the checkpoint must stay as it is.
                    disk::copy(&from, &to)?;
                } else if source.attach == Attach::Link {
                    disk::link_or_copy(&from, &to)?;
                } else if disk::is_writable(&from) {
                    disk::symlink(&from, &to)?;
                } else {
                    // Tonbo opens for appending what it only reads, which a read-only file system refuses.
                    disk::copy_writable(&from, &to)?;
                }
            }
        }
        let database = Database::open(&self.dir)?;
        Ok(self.database.get_or_init(|| database))
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        self.work_dir.pages().forget(self.number);
        if self.is_dropped.load(Ordering::Relaxed) {
            // What stays is removed when the store is opened next.
            let _ = disk::remove_dir(&self.dir);
        }
    }
}

/// The key of a page in Tonbo.
fn page_key(id: u64) -> String {
    format!("{id:016x}")
}

/// Fails unless a checkpoint's file is as it was written.
///
/// A page has a checksum of its own. This one covers the rest of the file, which Tonbo reads without any.
pub(crate) fn check_file(path: &Path, file: &TableFile) -> Result<()> {
    let (num_bytes, crc) = disk::checksum_file(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::data(format!(
            "file of the store is missing: file=`{}`",
            path.display()
        )),
        _ => error,
    })?;
    check_copied(path, file, (num_bytes, crc))
}

/// Fails unless the length and checksum that were read from a checkpoint's file are those that were written.
pub(crate) fn check_copied(
    path: &Path,
    file: &TableFile,
    (num_bytes, crc): (u64, u32),
) -> Result<()> {
    if num_bytes != file.num_bytes || crc != file.crc {
        return Err(Error::data(format!(
            "file of the store is damaged: file=`{}` num_bytes=`{num_bytes}` expected_bytes=`{}` crc=`{crc:08x}` \
             expected_crc=`{:08x}`; restore the store from a backup",
            path.display(),
            file.num_bytes,
            file.crc
        )));
    }
    Ok(())
}
