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

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arrow_buffer::Buffer;
use bytes::Bytes;

use crate::{
    disk::{self, Op},
    error::{Error, Result},
    lock::ReaderLock,
    page::{EncodedPage, PageMeta},
    settings::FLUSH_BYTES,
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
    dir: PathBuf,
    /// Keeps the directory above `dir` for as long as this may look into it.
    _work_dir: Arc<WorkDir>,
    /// What the directory is made from on first use: where the newest checkpoint has it. `None` for a new generation.
    source: Mutex<Option<TableSource>>,
    database: OnceLock<Database>,
    /// Held while the database is opened, written or flushed. Readers do not take it.
    gate: Mutex<Unflushed>,
    next_page_id: AtomicU64,
    /// Set when nothing will ever open the directory again: it goes with the last user.
    is_dropped: AtomicBool,
}

#[derive(Default)]
struct Unflushed {
    num_bytes: usize,
}

impl Keyspace {
    /// The keyspace of a generation of a table, below a working directory.
    pub(crate) fn new(
        work_dir: Arc<WorkDir>,
        id: u32,
        generation: u32,
        source: Option<TableSource>,
        next_page_id: u64,
    ) -> Self {
        Self {
            generation,
            dir: work_dir.path().join(table_dir_name(id, generation)),
            _work_dir: work_dir,
            source: Mutex::new(source),
            database: OnceLock::new(),
            gate: Mutex::default(),
            next_page_id: AtomicU64::new(next_page_id),
            is_dropped: AtomicBool::new(false),
        }
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

    /// Makes sure that pages can be written: what can fail for lack of room or damage fails here.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.open(&self.gate.lock().unwrap_or_else(PoisonError::into_inner))
            .map(|_| ())
    }

    /// Writes pages, in memory, under numbers that nobody has written before.
    pub(crate) fn write(&self, pages: &[(u64, EncodedPage)]) -> Result<()> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let database = self.open(&gate)?;
        let records: Vec<(String, Bytes)> = pages
            .iter()
            .map(|(id, page)| (page_key(*id), page.bytes.clone()))
            .collect();
        disk::observed(&Op::Insert(&self.dir), || Ok(()))
            .map_err(|error| Error::io(self.cannot("write to a table"), error))?;
        database
            .insert(records)
            .map_err(|error| error.context(self.dir.display()))?;
        gate.num_bytes += pages
            .iter()
            .map(|(_, page)| page.bytes.len())
            .sum::<usize>();
        Ok(())
    }

    /// The beginning of a message about what cannot be done in the working directory.
    fn cannot(&self, action: &str) -> String {
        format!("cannot {action} in `{}`", self.dir.display())
    }

    /// Flushes if much is in memory.
    pub(crate) fn relieve(&self) -> Result<()> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if gate.num_bytes > FLUSH_BYTES {
            self.flush(&mut gate)?;
        }
        Ok(())
    }

    fn flush(&self, gate: &mut Unflushed) -> Result<()> {
        let database = self.open(gate)?;
        disk::observed(&Op::Flush(&self.dir), || Ok(()))
            .map_err(|error| Error::io(self.cannot("write a table to its files"), error))?;
        database.flush().map_err(|error| {
            // Tonbo keeps the reason to itself. A write of our own meets it too, if it is the disk's.
            disk::probe(&self.dir)
                .err()
                .unwrap_or(error)
                .context(self.cannot("write a table to its files"))
        })?;
        gate.num_bytes = 0;
        Ok(())
    }

    /// Flushes, then calls `copy` while nothing else writes: the directory holds every page then.
    pub(crate) fn flush_and<T>(&self, copy: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush(&mut gate)?;
        copy()
    }

    /// Reads pages; the answer has their bytes in the order of `pages`.
    ///
    /// Cheapest when the numbers of the pages lie close together.
    pub(crate) fn read(&self, pages: &[&PageMeta]) -> Result<Vec<Buffer>> {
        let Some(first) = pages.iter().map(|page| page.id).min() else {
            return Ok(Vec::new());
        };
        let last = pages.iter().map(|page| page.id).max().unwrap_or(first);
        let wanted: HashMap<u64, usize> = pages
            .iter()
            .enumerate()
            .map(|(at, page)| (page.id, at))
            .collect();
        let database = match self.database.get() {
            Some(database) => database,
            None => self.open(&self.gate.lock().unwrap_or_else(PoisonError::into_inner))?,
        };
        let found = database.scan(page_key(first), page_key(last), move |key, bytes| {
            let at = *wanted.get(&u64::from_str_radix(key, 16).ok()?)?;
            Some((at, Buffer::from(bytes)))
        })?;
        let mut buffers = vec![None; pages.len()];
        for (at, buffer) in found.into_iter().flatten() {
            buffers[at] = Some(buffer);
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

    /// The directory that a message about this table's files should name.
    pub(crate) fn place(&self) -> String {
        let dir = self
            .source()
            .map_or_else(|| self.dir.clone(), |source| source.dir);
        format!("table files in `{}`", dir.display())
    }

    /// Opens the database if it is not open. Taking the gate is the caller's part.
    fn open(&self, _gate: &Unflushed) -> Result<&Database> {
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
        crate::ErrorKind::NotFound => Error::data(format!(
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
