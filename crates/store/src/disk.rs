//! Every operation of the store on files and directories, except those that Tonbo does in its working directory.
//!
//! Files are made readable by their owner alone. The functions that make something durable say so in their name.
//!
//! **Observers.** Each operation is told to an [`Observer`] of the directory that it works in, if there is one, before
//! it is done and after. Tests use that to fail the n-th operation, and to work out what a disk may hold when the
//! power goes. Tonbo's calls are told as [`Op::Insert`] and [`Op::Flush`]; the files that it writes first appear as the
//! source of a link. Without an observer this costs one load of an atomic.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{ErrorKind as IoErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use crate::error::{Error, Result};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// One operation on files.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// Makes a directory.
    MakeDir(&'a Path),
    /// Removes a directory and all in it.
    RemoveDir(&'a Path),
    /// Removes a file.
    RemoveFile(&'a Path),
    /// Makes a file, or opens and empties it.
    Create(&'a Path),
    /// Opens a file for writing; its content stays.
    Open(&'a Path),
    /// Gives a file blocks that read as zeros up to a length in bytes.
    Allocate(&'a Path, u64),
    /// Writes bytes at an offset.
    Write(&'a Path, u64, &'a [u8]),
    /// Makes the content of a file durable.
    SyncFile(&'a Path),
    /// Makes the entries of a directory durable.
    SyncDir(&'a Path),
    /// Renames the first to the second.
    Rename(&'a Path, &'a Path),
    /// Gives the file of the first name a second one.
    Link(&'a Path, &'a Path),
    /// Copies the first to the second.
    Copy(&'a Path, &'a Path),
    /// Reads a file, or a part of it.
    Read(&'a Path),
    /// Lists a directory.
    List(&'a Path),
    /// Tonbo takes records into memory; the directory is its own.
    Insert(&'a Path),
    /// Tonbo writes files; the directory is its own.
    Flush(&'a Path),
}

impl<'a> Op<'a> {
    /// Where it works: the second path of two.
    pub fn path(&self) -> &'a Path {
        match *self {
            Self::MakeDir(path)
            | Self::RemoveDir(path)
            | Self::RemoveFile(path)
            | Self::Create(path)
            | Self::Open(path)
            | Self::Allocate(path, _)
            | Self::Write(path, ..)
            | Self::SyncFile(path)
            | Self::SyncDir(path)
            | Self::Rename(_, path)
            | Self::Link(_, path)
            | Self::Copy(_, path)
            | Self::Read(path)
            | Self::List(path)
            | Self::Insert(path)
            | Self::Flush(path) => path,
        }
    }
}

/// Sees, and may refuse, the operations below one directory.
pub trait Observer: Send + Sync {
    /// Called before an operation. An error is what the operation fails with; it is not done then.
    ///
    /// # Errors
    /// Whatever the operation is to fail with.
    fn before(&self, op: &Op<'_>) -> std::io::Result<()>;

    /// Called after an operation that was done.
    fn after(&self, op: &Op<'_>);
}

static NUM_OBSERVERS: AtomicUsize = AtomicUsize::new(0);
static OBSERVERS: RwLock<Vec<(PathBuf, Arc<dyn Observer>)>> = RwLock::new(Vec::new());

/// Shows an observer every operation below `dir`, an absolute path, until the answer is dropped.
#[must_use = "the observer sees nothing once this is dropped"]
pub fn observe(dir: &Path, observer: Arc<dyn Observer>) -> Observed {
    let mut observers = OBSERVERS.write().unwrap_or_else(PoisonError::into_inner);
    observers.push((dir.to_owned(), observer));
    NUM_OBSERVERS.store(observers.len(), Ordering::Release);
    Observed(dir.to_owned())
}

/// Ends an observation when it is dropped.
pub struct Observed(PathBuf);

impl Drop for Observed {
    fn drop(&mut self) {
        let mut observers = OBSERVERS.write().unwrap_or_else(PoisonError::into_inner);
        observers.retain(|(dir, _)| *dir != self.0);
        NUM_OBSERVERS.store(observers.len(), Ordering::Release);
    }
}

fn observer(path: &Path) -> Option<Arc<dyn Observer>> {
    if NUM_OBSERVERS.load(Ordering::Acquire) == 0 {
        return None;
    }
    let observers = OBSERVERS.read().unwrap_or_else(PoisonError::into_inner);
    let found = observers.iter().find(|(dir, _)| path.starts_with(dir));
    found.map(|(_, observer)| Arc::clone(observer))
}

/// Does an operation under the eyes of the observer, if there is one.
pub(crate) fn observed<T>(
    op: &Op<'_>,
    action: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    let Some(observer) = observer(op.path()) else {
        return action();
    };
    observer.before(op)?;
    let result = action()?;
    observer.after(op);
    Ok(result)
}

/// What is said of an operation that fails. Made up only then: to print a path takes as long as a tenth of a small write.
fn failed(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::io(format!("cannot {action} `{}`", path.display()), error)
}

/// A file that is open for writing.
pub(crate) struct OutFile {
    path: PathBuf,
    file: File,
}

impl OutFile {
    /// Makes a file, which must not exist.
    pub(crate) fn create_new(path: &Path) -> Result<Self> {
        Self::open_with(path, &Op::Create(path), |options| options.create_new(true))
    }

    /// Makes a file, or empties it.
    fn create(path: &Path) -> Result<Self> {
        Self::open_with(path, &Op::Create(path), |options| {
            options.create(true).truncate(true)
        })
    }

    /// Opens a file that exists.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, &Op::Open(path), |options| options)
    }

    fn open_with(
        path: &Path,
        op: &Op<'_>,
        set: impl FnOnce(&mut OpenOptions) -> &mut OpenOptions,
    ) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        set(&mut options);
        let file = observed(op, || options.open(path)).map_err(failed("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Renames it (durable after [`sync_dir`]). Messages name the new path from here on.
    pub(crate) fn rename(self, to: &Path) -> Result<Self> {
        rename(&self.path, to)?;
        Ok(Self {
            path: to.to_owned(),
            ..self
        })
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> Result<u64> {
        let meta = self.file.metadata();
        Ok(meta.map_err(failed("read", &self.path))?.len())
    }

    /// Makes an empty file `len` bytes long, with blocks that are on hand and read as zeros.
    pub(crate) fn allocate(&self, len: u64) -> Result<()> {
        let allocate = || match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.fill(0, len),
            Err(error) => Err(error.into()),
        };
        observed(&Op::Allocate(&self.path, len), allocate)
            .map_err(failed("make room in", &self.path))
    }

    /// Writes zeros from one offset to another.
    pub(crate) fn write_zeros(&self, from: u64, to: u64) -> Result<()> {
        const STEP: usize = 1 << 20;
        let zeros = vec![0; STEP];
        for at in (from..to).step_by(STEP) {
            let len = usize::try_from(to - at).map_or(STEP, |left| left.min(STEP));
            self.write_at(&zeros[..len], at)?;
        }
        Ok(())
    }

    fn fill(&self, from: u64, to: u64) -> std::io::Result<()> {
        let zeros = vec![0; 1 << 16];
        for at in (from..to).step_by(zeros.len()) {
            let len = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.file.write_all_at(&zeros[..len], at)?;
        }
        Ok(())
    }

    /// Writes all bytes at an offset.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        observed(&Op::Write(&self.path, offset, bytes), || {
            self.file.write_all_at(bytes, offset)
        })
        .map_err(failed("write", &self.path))
    }

    /// Makes the content durable, and the length.
    pub(crate) fn sync(&self) -> Result<()> {
        observed(&Op::SyncFile(&self.path), || self.file.sync_data())
            .map_err(failed("fsync", &self.path))
    }

    /// The open file, for its lock.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Makes a directory; it may exist.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let result = observed(&Op::MakeDir(path), || {
        DirBuilder::new().mode(DIR_MODE).create(path)
    });
    match result {
        Err(error) if error.kind() == IoErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result.map_err(failed("make directory", path)),
    }
}

/// Makes a directory and those above it, as far as they are missing, each durably. These get the usual mode: they are not
/// the store's.
pub(crate) fn make_dirs(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent();
    if let Some(parent) = parent {
        make_dirs(parent)?;
    }
    match observed(&Op::MakeDir(path), || std::fs::create_dir(path)) {
        // Somebody else is making it, too.
        Err(error) if error.kind() == IoErrorKind::AlreadyExists && path.is_dir() => {}
        result => result.map_err(failed("make directory", path))?,
    }
    parent.map_or(Ok(()), sync_dir)
}

/// Makes a directory that must not exist.
pub(crate) fn make_new_dir(path: &Path) -> Result<()> {
    observed(&Op::MakeDir(path), || {
        DirBuilder::new().mode(DIR_MODE).create(path)
    })
    .map_err(failed("make directory", path))
}

/// Removes a directory and all in it; it may be missing.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match observed(&Op::RemoveDir(path), || std::fs::remove_dir_all(path)) {
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove directory", path)),
    }
}

/// Removes a file; it may be missing.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match observed(&Op::RemoveFile(path), || std::fs::remove_file(path)) {
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// Makes renames, links and removals in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    observed(&Op::SyncDir(path), || {
        File::open(path).and_then(|dir| dir.sync_all())
    })
    .map_err(failed("fsync directory", path))
}

/// Makes the content of an existing file durable, and readable by its owner alone.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    observed(&Op::SyncFile(path), || {
        let file = File::open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))?;
        file.sync_all()
    })
    .map_err(failed("fsync", path))
}

/// Writes a new file and makes its content durable (its name is durable after [`sync_dir`]).
pub(crate) fn write_file_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = OutFile::create(path)?;
    file.write_at(bytes, 0)?;
    file.sync()
}

/// Renames within one file system, replacing what stands there (durable after [`sync_dir`]).
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    observed(&Op::Rename(from, to), || std::fs::rename(from, to))
        .map_err(failed("rename a file to", to))
}

/// Links a file under a second name; copies it where the file system refuses links. Returns whether it was linked.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> Result<bool> {
    match observed(&Op::Link(from, to), || std::fs::hard_link(from, to)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => Err(failed("link", to)(error)),
        Err(_) => copy(from, to).map(|()| false),
    }
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    observed(&Op::Copy(from, to), || std::fs::copy(from, to))
        .map(|_| ())
        .map_err(failed("copy a file to", to))
}

/// Copies a file and makes the copy's content durable. Returns the length and the CRC32C of what was copied.
pub(crate) fn copy_synced(from: &Path, to: &Path) -> Result<(u64, u32)> {
    let mut source =
        observed(&Op::Read(from), || File::open(from)).map_err(failed("read", from))?;
    let copy = OutFile::create_new(to)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut len, mut crc) = (0, 0);
    loop {
        let read = source.read(&mut buffer).map_err(failed("read", from))?;
        if read == 0 {
            copy.sync()?;
            return Ok((len, crc));
        }
        copy.write_at(&buffer[..read], len)?;
        len += read as u64;
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
    }
}

/// Whether the system lets a file be opened for writing. It stays as it is.
pub(crate) fn is_writable(path: &Path) -> bool {
    OpenOptions::new().append(true).open(path).is_ok()
}

/// Copies a file that may be read only, so that the copy may be written.
pub(crate) fn copy_writable(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(FILE_MODE))
        .map_err(failed("change the mode of", to))
}

/// Reads a whole file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    observed(&Op::Read(path), || std::fs::read(path)).map_err(failed("read", path))
}

/// Reads a file in pieces and returns its length and the CRC32C of its bytes.
pub(crate) fn checksum_file(path: &Path) -> Result<(u64, u32)> {
    observed(&Op::Read(path), || {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        let (mut len, mut crc) = (0, 0);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((len, crc));
            }
            len += read as u64;
            crc = crc32c::crc32c_append(crc, &buffer[..read]);
        }
    })
    .map_err(failed("read", path))
}

/// The names of a directory's entries, sorted; none if the directory is missing.
pub(crate) fn list_dir(path: &Path) -> Result<Vec<String>> {
    let entries = match observed(&Op::List(path), || std::fs::read_dir(path)) {
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(failed("list", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", path))?;
        // All names that the store makes are ASCII; others are not ours and are left alone.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The paths of all files below a directory, with their sizes in bytes, in no order.
pub(crate) fn list_files(path: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for name in list_dir(path)? {
        let child = path.join(name);
        let meta = match std::fs::symlink_metadata(&child) {
            // A writer may be removing it.
            Err(error) if error.kind() == IoErrorKind::NotFound => continue,
            result => result.map_err(failed("read", &child))?,
        };
        if meta.is_dir() {
            files.extend(list_files(&child)?);
        } else {
            files.push((child, meta.len()));
        }
    }
    Ok(files)
}

/// What two links to one file have in common: device and inode. `None` if there is no such file.
pub(crate) fn file_id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Makes a symbolic link to a file given by an absolute path.
pub(crate) fn symlink(target: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, link).map_err(failed("link", link))
}

/// Writes and removes a file in a directory, to find out why somebody else could not.
pub(crate) fn probe(dir: &Path) -> Result<()> {
    /// More than what is usually left on a disk that is called full.
    const NUM_MIB: usize = 64;
    let path = dir.join("probe");
    let write = || {
        let mut file = File::create(&path)?;
        let block = vec![1; 1 << 20];
        for _ in 0..NUM_MIB {
            file.write_all(&block)?;
        }
        file.sync_all()
    };
    let result = write();
    let removed = remove_file(&path);
    result.map_err(failed("write to", dir)).and(removed)
}
