//! Private working directories: where Tonbo opens its databases.
//!
//! A writer's is below `live/` in the store, a reader's outside of the store (in memory where the system has
//! `/dev/shm`), because reading must leave the store untouched. Each holds a locked file for as long as it is used,
//! so that directories of killed processes are known and swept away by the next one.

use std::{
    hash::{BuildHasher, RandomState},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    disk::{self, OutFile},
    error::{Error, Result},
    lock,
    page::PageCache,
};

const LOCK: &str = "IN_USE";
const READER_PREFIX: &str = "darner-reader-";

/// A directory that goes when this is dropped, and what was read from the tables in it lately.
pub(crate) struct WorkDir {
    path: PathBuf,
    pages: PageCache,
    _lock: OutFile,
}

impl WorkDir {
    /// Makes a directory below `parent` for the writer of a store, and removes all that no process uses.
    pub(crate) fn for_writer(parent: &Path, page_cache_bytes: usize) -> Result<Self> {
        disk::make_dir(parent)?;
        for name in disk::list_dir(parent)?
            .into_iter()
            .filter(|name| is_our_name(name))
        {
            let dir = parent.join(name);
            let unused = lock::take_unused(&dir.join(LOCK));
            if unused.is_some() || !dir.join(LOCK).exists() {
                disk::remove_dir(&dir)?;
            }
        }
        Self::create(parent, "", page_cache_bytes)
    }

    /// Makes a directory for a reader in the first place that has room for it.
    pub(crate) fn for_reader(page_cache_bytes: usize) -> Result<Self> {
        let mut places = vec![PathBuf::from("/dev/shm")];
        places.push(std::env::temp_dir());
        let mut first_error = None;
        for place in places.iter().filter(|place| place.is_dir()) {
            sweep_readers(place);
            match Self::create(place, READER_PREFIX, page_cache_bytes) {
                Ok(dir) => return Ok(dir),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| {
            Error::not_found("no directory for temporary files; set TMPDIR to one")
        }))
    }

    fn create(parent: &Path, prefix: &str, page_cache_bytes: usize) -> Result<Self> {
        // Not to be guessed or met by others: readers' directories stand where everybody may write.
        let random = RandomState::new().hash_one(std::process::id());
        let name = format!("{prefix}{}-{random:016x}", std::process::id());
        // Locked before it has a name that others sweep.
        let hidden = parent.join(format!(".{name}.new"));
        disk::make_new_dir(&hidden)?;
        let lock_path = hidden.join(LOCK);
        let file = OutFile::create_new(&lock_path)?;
        flock(file.file(), FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            Error::io(
                format!("cannot lock `{}`", lock_path.display()),
                error.into(),
            )
        })?;
        let path = parent.join(name);
        disk::rename(&hidden, &path)?;
        Ok(Self {
            path,
            pages: PageCache::new(page_cache_bytes),
            _lock: file,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Pages of all tables that work here.
    pub(crate) fn pages(&self) -> &PageCache {
        &self.pages
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What stays is swept by the next process.
        let _ = disk::remove_dir(&self.path);
    }
}

/// Whether a name is `PID-RANDOM` or, while it is made, `.PID-RANDOM.new`.
fn is_our_name(name: &str) -> bool {
    let name = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".new"))
        .unwrap_or(name);
    name.split_once('-').is_some_and(|(pid, random)| {
        pid.bytes().all(|byte| byte.is_ascii_digit())
            && random.len() == 16
            && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Removes what killed readers of the same user left behind, as far as that can be done.
fn sweep_readers(place: &Path) {
    let uid = rustix::process::getuid().as_raw();
    for name in disk::list_dir(place).unwrap_or_default() {
        let dir = place.join(&name);
        let is_ours = name.starts_with(READER_PREFIX)
            && dir
                .symlink_metadata()
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
        if is_ours && let Some(_unused) = lock::take_unused(&dir.join(LOCK)) {
            let _ = disk::remove_dir(&dir);
        }
    }
}
