//! A text output, compressed as a whole or not.

use super::{Compression, Output, encode_error, no_such_compression};
use crate::{Error, ErrorKind, Result, source::Format};
use flate2::write::GzEncoder;
use std::io::{self, BufWriter, Write};

/// Bytes that are gathered before they go to the system.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// Zstandard's own default: a good ratio at several hundred megabytes a second.
const ZSTD_LEVEL: i32 = 3;

/// The bytes of a text on their way out.
pub(super) enum TextOutput {
    Plain(BufWriter<Output>),
    Gzip(BufWriter<GzEncoder<Output>>),
    Zstd(BufWriter<zstd::stream::write::Encoder<'static, Output>>),
}

impl TextOutput {
    pub(super) fn new(
        open: impl FnOnce() -> Result<Output>,
        format: Format,
        compression: Option<Compression>,
    ) -> Result<Self> {
        let wrap = match compression {
            None | Some(Compression::Uncompressed) => {
                return Ok(Self::Plain(BufWriter::with_capacity(BUFFER_BYTES, open()?)));
            }
            Some(compression @ (Compression::Gzip | Compression::Zstd)) => compression,
            Some(other) => return Err(no_such_compression(format, other)),
        };
        let output = open()?;
        if wrap == Compression::Gzip {
            let encoder = GzEncoder::new(output, flate2::Compression::default());
            return Ok(Self::Gzip(BufWriter::with_capacity(BUFFER_BYTES, encoder)));
        }
        let mut encoder =
            zstd::stream::write::Encoder::new(output, ZSTD_LEVEL).map_err(encode_error)?;
        encoder.include_checksum(true).map_err(encode_error)?;
        Ok(Self::Zstd(BufWriter::with_capacity(BUFFER_BYTES, encoder)))
    }

    /// Ends the compression; all bytes are in the output afterwards.
    pub(super) fn finish(self) -> Result<Output> {
        let cannot = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, "cannot write").with_source(error)
        };
        match self {
            Self::Plain(writer) => writer
                .into_inner()
                .map_err(|error| cannot(error.into_error())),
            Self::Gzip(writer) => writer
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .and_then(GzEncoder::finish)
                .map_err(cannot),
            Self::Zstd(writer) => writer
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .and_then(zstd::stream::write::Encoder::finish)
                .map_err(cannot),
        }
    }
}

impl Write for TextOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(bytes),
            Self::Gzip(writer) => writer.write(bytes),
            Self::Zstd(writer) => writer.write(bytes),
        }
    }

    /// Keeps the buffer: the writers of text flush after every batch, which would end a compressed
    /// block there.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
