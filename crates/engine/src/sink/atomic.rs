//! A file that is not there until it is complete.
//!
//! On Linux the bytes go to a file without a name (`O_TMPFILE`) in the target's directory, so that
//! nothing is left even by a kill -9. To finish: fsync the file, link it to a hidden name, rename
//! that over the target, fsync the directory. The detour by the hidden name is there because a link
//! never replaces, and a rename needs a name. Where the file system has no unnamed files, the hidden
//! name is there from the start.
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
    sync::atomic::{AtomicU64, Ordering},
};

/// What a new file's permissions are before the umask.
const NEW_FILE_MODE: u32 = 0o666;

/// Tells the hidden names of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file that replaces its target in one step, or leaves no trace.
pub(super) struct AtomicFile {
    file: File,
    target: PathBuf,
    directory: PathBuf,
    /// The hidden name, while there is one.
    hidden: Option<PathBuf>,
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
        self.file
            .sync_all()
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
        self.file.write(bytes)
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
