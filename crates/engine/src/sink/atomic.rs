//! A file that is not there until it is complete.
//!
//! On Linux the bytes go to a file without a name (`O_TMPFILE`) in the target's directory, so that
//! nothing is left even by a kill -9. To finish: fsync the file, link it to a hidden name, rename
//! that over the target, fsync the directory. The detour by the hidden name is there because a link
//! never replaces, and a rename needs a name. Where the file system has no unnamed files, the hidden
//! name is there from the start.
//!
//! A long file is on its way to the disk while it is written: a thread syncs what is there, again and again, so that less is
//! left for the fsync at the end.
//!
//! | crash | what is left |
//! |---|---|
//! | before the link | nothing (or the hidden name, without `O_TMPFILE`) |
//! | between link and rename | the old target, and the hidden name |
//! | after the rename | the new target |

use crate::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

/// What a new file's permissions are before the umask.
const NEW_FILE_MODE: u32 = 0o666;

/// Bytes that are written between two syncs behind. Fewer, and the file system's journal has too much to do.
const BEHIND_BYTES: usize = 64 << 20;

/// Tells the hidden names of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file that replaces its target in one step, or leaves no trace.
pub(super) struct AtomicFile {
    file: File,
    target: PathBuf,
    directory: PathBuf,
    /// The hidden name, while there is one.
    hidden: Option<PathBuf>,
    /// Bytes that were written since a sync behind was asked for.
    num_unsynced: usize,
    behind: Option<Behind>,
}

/// A thread that syncs a file whenever it is asked to.
struct Behind {
    asks: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Behind {
    fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (asks, asked) = sync_channel(1);
        let sync = move || {
            while asked.recv().is_ok() {
                file.sync_data()?;
            }
            Ok(())
        };
        let thread = Builder::new().name("darner-sync".to_owned()).spawn(sync)?;
        Ok(Self { asks, thread })
    }

    /// Asks for a sync, unless one is waiting to begin. Fails if an earlier one has failed.
    fn ask(self) -> io::Result<Self> {
        match self.asks.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => Ok(self),
            // Only an error ends the thread before its time.
            Err(TrySendError::Disconnected(())) => Err(self.end().err().unwrap_or_else(ended)),
        }
    }

    /// Ends the thread. The system tells an error once: what it was told, nobody else is.
    fn end(self) -> io::Result<()> {
        drop(self.asks);
        self.thread.join().unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that syncs the output has ended")
}

impl AtomicFile {
    /// Begins the file that will replace `path`.
    ///
    /// # Errors
    /// `NotFound` for a missing directory, `Unavailable` for one that can't be written.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let target = resolve(path)?;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        match fs::metadata(&directory) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Error::invalid(format!(
                    "the output's parent is not a directory: parent=`{}`",
                    directory.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!(
                    "the output's directory does not exist, create it first: directory=`{}`",
                    directory.display()
                )));
            }
            Err(error) => return Err(cannot_create(&directory, error)),
        }
        let old_mode = fs::metadata(&target)
            .ok()
            .map(|metadata| metadata.permissions().mode());
        let unnamed = rustix::fs::open(
            &directory,
            OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(NEW_FILE_MODE),
        );
        let (file, hidden) = if let Ok(fd) = unnamed {
            (File::from(fd), None)
        } else {
            // Refused by this file system, or for another reason that the next call will tell.
            let hidden = hidden_name(&target);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(NEW_FILE_MODE)
                .open(&hidden)
                .map_err(|error| cannot_create(&directory, error))?;
            (file, Some(hidden))
        };
        let begun = Self {
            file,
            target,
            directory,
            hidden,
            num_unsynced: 0,
            behind: None,
        };
        if let Some(mode) = old_mode {
            begun
                .file
                .set_permissions(fs::Permissions::from_mode(mode & 0o7777))
                .map_err(|error| cannot_create(&begun.directory, error))?;
        }
        Ok(begun)
    }

    /// Puts the file, complete and on disk, in its target's place.
    pub(super) fn commit(mut self) -> Result<()> {
        let refused = |action: &'static str| {
            move |error: io::Error| Error::new(ErrorKind::Unavailable, action).with_source(error)
        };
        let behind = self.behind.take().map_or(Ok(()), Behind::end);
        behind
            .and_then(|()| self.file.sync_all())
            .map_err(refused("cannot bring the output to disk"))?;
        let hidden = if let Some(hidden) = &self.hidden {
            hidden.clone()
        } else {
            let hidden = hidden_name(&self.target);
            // The way to name an unnamed file that needs no privilege.
            let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, unnamed, CWD, &hidden, AtFlags::SYMLINK_FOLLOW)
                .map_err(|error| refused("cannot name the output")(error.into()))?;
            self.hidden = Some(hidden.clone());
            hidden
        };
        fs::rename(&hidden, &self.target).map_err(refused("cannot put the output in its place"))?;
        self.hidden = None;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(refused("cannot bring the output's directory to disk"))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let num_bytes = self.file.write(bytes)?;
        self.num_unsynced += num_bytes;
        if self.num_unsynced >= BEHIND_BYTES {
            self.num_unsynced = 0;
            // Without it the end takes longer, and that is all.
            let behind = self.behind.take();
            let behind = behind.or_else(|| Behind::start(&self.file).ok());
            self.behind = behind.map(Behind::ask).transpose()?;
        }
        Ok(num_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Nobody is left to be told of a failure, and the name says what the file is.
            let _ = fs::remove_file(hidden);
        }
    }
}

/// Follows symbolic links, also to a file that does not exist yet.
fn resolve(path: &Path) -> Result<PathBuf> {
    /// As many as Linux follows.
    const LINKS_MAX: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(link) => {
                let parent = path.parent().map(Path::to_path_buf).unwrap_or_default();
                path = parent.join(link);
            }
            Err(_) if path.file_name().is_some() => return Ok(path),
            Err(_) => break,
        }
    }
    Err(Error::invalid(
        "not a file name, or too many symbolic links",
    ))
}

/// `.NAME.darner-PID-N.tmp` beside the target.
fn hidden_name(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    // A name of 255 bytes, the usual limit, leaves no room for more: it is shortened.
    let stem: String = target
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .take(50)
        .collect();
    name.push(stem);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".darner-{}-{number}.tmp", process::id()));
    target.with_file_name(name)
}

fn cannot_create(directory: &Path, error: io::Error) -> Error {
    let action = format!(
        "cannot create a file in the directory `{}`",
        directory.display()
    );
    Error::io(action, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_synced_behind_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let mut file = AtomicFile::create(&path).unwrap();
        let len = BEHIND_BYTES / 3;
        let part = |number: u8| vec![number; len];
        for number in 0..7 {
            file.write_all(&part(number)).unwrap();
        }
        assert!(file.behind.is_some());
        assert!(!path.exists());
        file.commit().unwrap();
        let found = fs::read(&path).unwrap();
        assert_eq!(found.len(), 7 * len);
        for (found, number) in found.chunks(len).zip(0..) {
            assert!(found == part(number), "part {number}");
        }

        // One that is given up leaves the last one.
        let mut file = AtomicFile::create(&path).unwrap();
        for number in 1..8 {
            file.write_all(&part(number)).unwrap();
        }
        drop(file);
        assert!(fs::read(&path).unwrap() == found);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_sync_behind_is_told_fails_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "the last one").unwrap();
        // It cannot be synced, so that the thread ends with an error.
        let failing = || Behind::start(&File::open("/dev/null").unwrap()).unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"the next one").unwrap();
        file.behind = Some(failing().ask().unwrap());
        assert!(file.commit().is_err());

        let mut file = AtomicFile::create(&path).unwrap();
        let behind = failing().ask().unwrap();
        while !behind.thread.is_finished() {
            std::thread::yield_now();
        }
        file.behind = Some(behind);
        assert!(file.write_all(&vec![0; BEHIND_BYTES]).is_err());
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"the last one");
    }
}
