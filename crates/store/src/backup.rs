//! Copies of a store that are stores.
//!
//! A backup is the current checkpoint, copied file by file and checked on the way, and a log with the commits that came
//! after it. The checkpoint is held by its lock while it is copied, so a writer goes on meanwhile. `CURRENT` is written
//! last: before that the copy is not a store, and nobody takes it for one.

use std::{path::Path, sync::Arc};

use crate::{
    checkpoint::{self, Current, Pinned},
    disk,
    error::{Error, ErrorKind, Result},
    keyspace::Attach,
    log::{LogEnd, LogWriter, NewFrame, read_log},
    state::State,
    store::{LOG_DIR, READ_ATTEMPTS_MAX, Store, absolute},
    version::Version,
    workdir::WorkDir,
};

/// Frames that are written with one fsync.
const GROUP_FRAMES: usize = 1000;

/// What a backup or a restore has copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// The last commit in the copy.
    pub version: Version,
    /// Files of the copy.
    pub num_files: u64,
    /// Their bytes.
    pub num_bytes: u64,
}

impl Store {
    /// Copies the store, as of its last commit, into a directory that is empty or does not exist. The copy is a store:
    /// it can be opened where it is, or brought back with [`restore`](Self::restore).
    ///
    /// Commits of other threads and processes go on; those that are made meanwhile are not in the copy. The copy is
    /// durable when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if there is something in the directory already, [`ErrorKind::Data`] if a file of the store
    /// is damaged, [`ErrorKind::Unavailable`] if the disk is full. What was copied by then is removed.
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<BackupReport> {
        let dir = absolute(dir.as_ref())?;
        if dir.starts_with(self.dir()) {
            return Err(Error::invalid(format!(
                "backup would be inside the store: dir=`{}` store=`{}`",
                dir.display(),
                self.dir().display()
            )));
        }
        copy_store(self.dir(), &dir)
    }

    /// Makes a store from a backup, in a directory that is empty or does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no backup; otherwise as for [`backup`](Self::backup).
    pub fn restore(backup: impl AsRef<Path>, dir: impl AsRef<Path>) -> Result<BackupReport> {
        copy_store(&absolute(backup.as_ref())?, &absolute(dir.as_ref())?)
    }
}

fn copy_store(from: &Path, to: &Path) -> Result<BackupReport> {
    if !disk::list_dir(to)?.is_empty() {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "directory is not empty: dir=`{}`; name a new one, or move what is there away",
                to.display()
            ),
        ));
    }
    let work_dir = Arc::new(WorkDir::for_reader(0)?);
    let source = Source::take(from, &work_dir)?;
    let is_new = !to.exists();
    if let Some(parent) = to.parent() {
        disk::make_dirs(parent)?;
    }
    disk::make_dir(to)?;
    let result = source.write(to);
    if result.is_err() && Current::read(to).is_ok_and(|current| current.is_none()) {
        // Half a copy is of no use, and would be in the way of the next one.
        for name in ["checkpoint", LOG_DIR] {
            let _ = disk::remove_dir(&to.join(name));
        }
        let _ = disk::remove_file(&to.join("CURRENT.new"));
        if is_new {
            let _ = disk::remove_dir(to);
        }
    }
    result
}

/// A store as of one commit.
struct Source {
    pinned: Pinned,
    state: State,
    frames: Vec<NewFrame>,
}

impl Source {
    fn take(dir: &Path, work_dir: &Arc<WorkDir>) -> Result<Self> {
        let mut last_error = None;
        for _ in 0..READ_ATTEMPTS_MAX {
            let Some(current) = Current::read(dir)? else {
                return Err(Error::not_found(format!("no store in `{}`", dir.display())));
            };
            let Some(pinned) = checkpoint::pin(dir, current)? else {
                continue;
            };
            let state = pinned.state(work_dir, Attach::Symlink)?;
            let mut frames = Vec::new();
            let read = read_log(&dir.join(LOG_DIR), state.version.number + 1, |frame| {
                frames.push(NewFrame {
                    version: frame.version,
                    time_us: frame.time_us,
                    payload: frame.payload,
                });
                Ok(())
            });
            // A checkpoint made meanwhile has taken segments out of the log; a frame may be half written.
            if Current::read(dir)? != Some(current) {
                continue;
            }
            match read {
                Ok(_) => {
                    return Ok(Self {
                        pinned,
                        state,
                        frames,
                    });
                }
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| {
            Error::new(
                ErrorKind::Conflict,
                format!(
                    "store changes too fast to be read: store=`{}`; try again",
                    dir.display()
                ),
            )
        }))
    }

    fn write(&self, to: &Path) -> Result<BackupReport> {
        let log_dir = to.join(LOG_DIR);
        disk::make_dir(&log_dir)?;
        let mut log = LogWriter::open(log_dir.clone(), 0, &LogEnd::default())?;
        for group in self.frames.chunks(GROUP_FRAMES) {
            log.append(group, true)?;
        }
        disk::sync_dir(&log_dir)?;
        let (num_files, num_bytes) = self.pinned.copy_to(&self.state, to)?;
        if let Some(parent) = to.parent() {
            disk::sync_dir(parent)?;
        }
        let segments = disk::list_files(&log_dir)?;
        let last = self.frames.last().map(|frame| Version {
            number: frame.version,
            time_us: frame.time_us,
        });
        Ok(BackupReport {
            version: last.unwrap_or(self.state.version),
            num_files: num_files + segments.len() as u64,
            num_bytes: num_bytes + segments.iter().map(|(_, len)| len).sum::<u64>(),
        })
    }
}
