//! Who may do what with a store: one writer, any number of readers.
//!
//! All locks are `flock` locks: the system drops them with the process, however it ends.
//!
//! - The writer holds `LOCK` exclusively. The file holds its process id, for the message to a second one.
//! - A reader holds the `MANIFEST` of the checkpoint that it reads, shared. The writer removes an old checkpoint only
//!   when it gets that lock exclusively. So readers write nothing into the store, block nobody and are not blocked.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    disk::{self, Op},
    error::{Error, ErrorKind, Result},
};

/// The writer's lock on a store, held until it is dropped.
pub(crate) struct WriterLock {
    file: File,
}

/// A child that another thread is about to start has the file, too, until it becomes another program: to close ours would
/// not be the end of the lock.
fn let_go(file: &File) {
    // It goes with the last of them anyway.
    let _ = flock(file, FlockOperation::Unlock);
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        let_go(&self.file);
    }
}

impl WriterLock {
    /// Takes the lock of the store in `dir`, or says which process holds it.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("LOCK");
        let action = || format!("cannot lock `{}`", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = disk::observed(&Op::Open(&path), || options.mode(0o600).open(&path))
            .map_err(|error| Error::io(action(), error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The holder may be about to write its id; an empty answer is still an answer.
                let _ = file.read_to_string(&mut holder);
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "store is open for writing in another process: store=`{}` pid=`{}`; wait for it to end, or \
                         open the store read-only",
                        dir.display(),
                        holder.trim()
                    ),
                ));
            }
            Err(error) => return Err(Error::io(action(), error.into())),
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(|error| Error::io(action(), error))?;
        Ok(Self { file })
    }
}

/// A reader's hold on a checkpoint's manifest.
pub(crate) struct ReaderLock {
    file: File,
}

impl Drop for ReaderLock {
    fn drop(&mut self) {
        let_go(&self.file);
    }
}

impl ReaderLock {
    /// Takes a shared lock on an open file. `None` if a writer is about to remove it.
    pub(crate) fn take(file: File) -> Result<Option<Self>> {
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(Self { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::io(
                "cannot lock a checkpoint for reading",
                error.into(),
            )),
        }
    }
}

/// Takes the file's lock exclusively if nobody holds it: whoever gets it may remove what the file stands for.
/// `None` while it is in use, or if it cannot be opened.
pub(crate) fn take_unused(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .ok()
        .map(|()| file)
}
