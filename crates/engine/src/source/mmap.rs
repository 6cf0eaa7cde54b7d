//! The one memory mapping of this crate, and its contract.
//!
//! # Contract
//! A mapped file must not be changed in place or truncated while a batch that was read from it is
//! alive. No operating system that Darner runs on can forbid that to other processes: a truncation
//! makes the next access fail with `SIGBUS`, and an overwrite changes arrays that were already
//! validated. Replacing a file by renaming another over it, as Darner's own sinks do, is safe: the
//! mapping keeps the old file. Whoever cannot promise this sets
//! [`SourceOptions::memory_map`](crate::SourceOptions::memory_map) to `false`; then the file is
//! read into memory first.

use arrow_buffer::Buffer;
use bytes::Bytes;
use memmap2::Mmap;
use std::{fs::File, io};

/// Maps a whole regular file as one buffer, without a copy.
///
/// # Shapes
/// The buffer starts on a page boundary, so whatever alignment the file's writer kept is kept.
/// An empty file is an empty buffer.
/// # Errors
/// Those of `mmap`, unchanged.
pub(super) fn map(file: &File) -> io::Result<Buffer> {
    if file.metadata()?.len() == 0 {
        return Ok(Buffer::from(Bytes::new()));
    }
    // That the file does not change meanwhile is the module's contract, which the option `memory_map`
    // passes on to the user; this code cannot enforce it.
    #[expect(unsafe_code, reason = "mapping a file is the zero-copy read")]
    // SAFETY: the mapping is never written through, and the buffer owns it for as long as it is read.
    let map = unsafe { Mmap::map(file)? };
    Ok(Buffer::from(Bytes::from_owner(map)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn mapped_bytes_equal_read_bytes() {
        for len in [0, 1, 4096, 10_000] {
            let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            assert_eq!(map(&file).unwrap().as_slice(), bytes);
        }
    }
}
