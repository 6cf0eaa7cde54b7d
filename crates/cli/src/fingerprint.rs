//! How a file is known again: by size, time and the end of its content; a remote one by what the server calls its
//! content.

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use darner_engine::{Error, Result};
use darner_remote::Stat;
use serde::{Deserialize, Serialize};

use crate::storage::{is_url, shown, stat};

/// Bytes at the end of a file that are compared: formats that are written in one go have their index there.
const TAIL_BYTES: u64 = 64 << 10;

/// What a file was when it was read or written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    path: PathBuf,
    num_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
    /// Of a remote file that of its tag.
    tail_crc: u32,
}

impl Fingerprint {
    /// Looks at a file.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        if is_url(path) {
            return Ok(Self::of_remote(path, &stat(path)?));
        }
        let failed = |error| Error::io(format!("cannot read `{}`", path.display()), error);
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let num_bytes = meta.len();
        let start = num_bytes.saturating_sub(TAIL_BYTES);
        let mut tail = vec![0; usize::try_from(num_bytes - start).unwrap_or_default()];
        file.read_exact_at(&mut tail, start).map_err(failed)?;
        Ok(Self {
            path: std::path::absolute(path).map_err(failed)?,
            num_bytes,
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
            tail_crc: crc32c::crc32c(&tail),
        })
    }

    fn of_remote(path: &Path, stat: &Stat) -> Self {
        let (modified_s, modified_ns) = if stat.tag.is_empty() && stat.modified_s == 0 {
            // A server that tells neither: the file is taken for another one each time.
            let now = UNIX_EPOCH.elapsed().unwrap_or_default();
            let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            (seconds, i64::from(now.subsec_nanos()))
        } else {
            (stat.modified_s, 0)
        };
        Self {
            // A signature is another each time.
            path: shown(path).into(),
            num_bytes: stat.num_bytes,
            modified_s,
            modified_ns,
            tail_crc: crc32c::crc32c(stat.tag.as_bytes()),
        }
    }

    /// Where the file is, from the root.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at those of some files that may change while they are read: no pipes, and no remote files, which are of one
    /// content when they are fetched.
    pub(crate) fn of_regular(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let is_regular =
            |path: &&PathBuf| !is_url(path) && path.as_os_str() != "-" && path.is_file();
        paths
            .iter()
            .filter(is_regular)
            .map(|path| Self::of(path))
            .collect()
    }

    /// Looks at several files, in order.
    pub(crate) fn of_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        paths.iter().map(|path| Self::of(path)).collect()
    }
}
