//! Where encoded bytes go.

use super::atomic::AtomicFile;
use crate::{Error, ErrorKind, Result};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A byte-counting writer over a file that appears at the end, or over anything else.
pub(super) struct Output {
    target: Target,
    /// Bytes written. Whoever began the output may look at it.
    num_bytes: Arc<AtomicU64>,
}

enum Target {
    Atomic(AtomicFile),
    /// A pipe or a device: there is nothing to replace.
    Direct(File),
    Writer(Box<dyn Write + Send>),
}

impl Output {
    /// Begins a file, or opens what stands at `path` if that is a pipe or a device.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let cannot = |error| Error::io("cannot create the output", error);
        let target = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Error::invalid("is a directory; name a file in it"));
            }
            Ok(metadata) if !metadata.is_file() => {
                Target::Direct(OpenOptions::new().write(true).open(path).map_err(cannot)?)
            }
            _ => Target::Atomic(AtomicFile::create(path)?),
        };
        Ok(Self {
            target,
            num_bytes: Arc::default(),
        })
    }

    pub(super) fn writer(writer: Box<dyn Write + Send>) -> Self {
        Self {
            target: Target::Writer(writer),
            num_bytes: Arc::default(),
        }
    }

    /// Counts the bytes written in a place that others can look at.
    pub(super) fn with_counter(mut self, num_bytes: Arc<AtomicU64>) -> Self {
        self.num_bytes = num_bytes;
        self
    }

    /// Makes the output visible; gives its length.
    pub(super) fn commit(mut self) -> Result<u64> {
        let cannot = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, "cannot write").with_source(error)
        };
        self.flush().map_err(cannot)?;
        if let Target::Atomic(file) = self.target {
            file.commit()?;
        }
        Ok(self.num_bytes.load(Ordering::Relaxed))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = match &mut self.target {
            Target::Atomic(file) => file.write(bytes),
            Target::Direct(file) => file.write(bytes),
            Target::Writer(writer) => writer.write(bytes),
        }?;
        self.num_bytes.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            // Files have no buffer of their own.
            Target::Atomic(_) | Target::Direct(_) => Ok(()),
            Target::Writer(writer) => writer.flush(),
        }
    }
}
