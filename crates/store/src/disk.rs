//! Every operation of the store on files and directories, except those that Tonbo does in its working directory.
//!
//! Files are made readable by their owner alone. The functions that make something durable say so in their name.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{ErrorKind as IoErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

fn failed(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let action = format!("cannot {action} `{}`", path.display());
    move |error| Error::io(action, error)
}

/// Makes a directory; it may exist.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(error) if error.kind() == IoErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result.map_err(failed("make directory", path)),
    }
}

/// Makes a directory that must not exist.
pub(crate) fn make_new_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .mode(DIR_MODE)
        .create(path)
        .map_err(failed("make directory", path))
}

/// Removes a directory and all in it; it may be missing.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove directory", path)),
    }
}

/// Removes a file; it may be missing.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// Makes renames, links and removals in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("fsync directory", path))
}

/// Makes the content of an existing file durable, and readable by its owner alone.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(failed("open", path))?;
    file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))
        .and_then(|()| file.sync_all())
        .map_err(failed("fsync", path))
}

/// Writes a new file and makes its content durable (its name is durable after [`sync_dir`]).
pub(crate) fn write_file_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(failed("make", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("fsync", path))
}

/// Renames within one file system, replacing what stands there (durable after [`sync_dir`]).
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(failed("rename a file to", to))
}

/// Links a file under a second name; copies it where the file system refuses links. Returns whether it was linked.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => Err(failed("link", to)(error)),
        Err(_) => copy(from, to).map(|()| false),
    }
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .map(|_| ())
        .map_err(failed("copy a file to", to))
}

/// Reads a whole file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(failed("read", path))
}

/// Reads a file in pieces and returns its length and the CRC32C of its bytes.
pub(crate) fn checksum_file(path: &Path) -> Result<(u64, u32)> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let mut buffer = vec![0; 1 << 20];
    let (mut len, mut crc) = (0, 0);
    loop {
        let read = file.read(&mut buffer).map_err(failed("read", path))?;
        if read == 0 {
            return Ok((len, crc));
        }
        len += read as u64;
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
    }
}

/// The names of a directory's entries, sorted; none if the directory is missing.
pub(crate) fn list_dir(path: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
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
