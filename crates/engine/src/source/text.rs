//! Text inputs: decompression, and the cutting of a text into chunks of whole rows.
//!
//! A text is read twice. The first pass finds the column types and the places where chunks of rows
//! begin; the second gives each chunk to a worker. So types come from the whole input, and parsing is
//! parallel although only a sequential pass can tell a line break from one inside quotes.

use super::ipc::read_whole;
use crate::{Error, ErrorKind, Result};
use bytes::{Buf, Bytes};
use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
    rc::Rc,
    sync::Arc,
};

/// A chunk ends when it has this many bytes, even if a batch could hold more rows: it bounds the
/// memory of a piece whose rows are long.
const CHUNK_BYTES: u64 = 16 << 20;

/// The longest row. Without a bound a small compressed file could ask for any amount of memory.
pub(super) const ROW_BYTES_MAX: u64 = 256 << 20;

/// The most that is taken from standard input in a text format, which must be read twice.
pub(super) const STDIN_TEXT_BYTES_MAX: u64 = 4 << 30;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// How a text is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Gzip,
    Zstd,
}

impl Codec {
    /// What a file name's last extension promises.
    pub(super) fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// By the first bytes, which leave no doubt: no text starts with them.
    pub(super) fn of(head: &[u8]) -> Self {
        if head.starts_with(&[0x1F, 0x8B]) {
            Self::Gzip
        } else if head.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

/// The stored bytes of a text input.
#[derive(Clone)]
pub(super) struct TextInput {
    stored: Stored,
    codec: Codec,
    /// The length of the byte order mark, which belongs to no chunk.
    bom_len: u64,
}

#[derive(Clone)]
enum Stored {
    File(Arc<File>, u64),
    Bytes(Bytes),
}

impl TextInput {
    pub(super) fn file(file: File, codec: Codec) -> Result<Self> {
        let len = file
            .metadata()
            .map_err(|error| Error::io("cannot read", error))?
            .len();
        Self::new(Stored::File(Arc::new(file), len), codec)
    }

    /// Keeps all of a reader in memory.
    pub(super) fn reader(reader: &mut dyn Read) -> Result<Self> {
        let bytes = read_whole(reader, STDIN_TEXT_BYTES_MAX)?;
        let codec = Codec::of(&bytes);
        Self::new(Stored::Bytes(Bytes::from(bytes)), codec)
    }

    fn new(stored: Stored, codec: Codec) -> Result<Self> {
        let mut input = Self {
            stored,
            codec,
            bom_len: 0,
        };
        let mut head = Vec::new();
        input
            .open()?
            .take(3)
            .read_to_end(&mut head)
            .map_err(read_error)?;
        if head == BOM {
            input.bom_len = 3;
        }
        Ok(input)
    }

    /// The stored length, compressed or not.
    pub(super) fn num_bytes(&self) -> u64 {
        match &self.stored {
            Stored::File(_, len) => *len,
            Stored::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// The text from its start, decompressed, without a byte order mark.
    pub(super) fn open(&self) -> Result<Box<dyn Read + Send>> {
        let stored: Box<dyn Read + Send> = match &self.stored {
            Stored::File(file, _) => Box::new(FileFrom {
                file: Arc::clone(file),
                position: 0,
            }),
            Stored::Bytes(bytes) => Box::new(bytes.clone().reader()),
        };
        let mut text: Box<dyn Read + Send> = match self.codec {
            Codec::Plain => stored,
            Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stored)),
            Codec::Zstd => Box::new(
                zstd::stream::read::Decoder::new(stored)
                    .map_err(|error| Error::io("cannot decompress", error))?,
            ),
        };
        io::copy(&mut (&mut text).take(self.bom_len), &mut io::sink()).map_err(read_error)?;
        Ok(Box::new(BufReader::with_capacity(256 * 1024, text)))
    }

    /// The number of the line (from 1) in which the byte at `position` stands.
    pub(super) fn line_at(&self, position: u64) -> Result<u64> {
        let mut text = self.open()?.take(position.saturating_add(2));
        let (mut line, mut read, mut buffer) = (1, 0, [0; 8192]);
        let mut is_between_rows = true;
        loop {
            let len = text.read(&mut buffer).map_err(read_error)?;
            if len == 0 {
                return Ok(line);
            }
            for byte in &buffer[..len] {
                // A row's first bytes may be the line break that ended the row before.
                if read >= position {
                    is_between_rows &= matches!(byte, b'\r' | b'\n');
                }
                line += u64::from(is_between_rows && *byte == b'\n');
                read += 1;
            }
        }
    }
}

/// Turns an error of reading or decompressing into ours: what the system did not say is bad data.
pub(super) fn read_error(error: io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io("cannot read", error);
    }
    if error.kind() == io::ErrorKind::FileTooLarge {
        return Error::new(
            ErrorKind::Resource,
            format!("a row is too long: at most=`{ROW_BYTES_MAX}` bytes"),
        );
    }
    Error::data("malformed or cut off compressed data").with_source(error)
}

/// Reads a file by position, leaving its cursor alone: several readers share one file.
struct FileFrom {
    file: Arc<File>,
    position: u64,
}

impl Read for FileFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.position)?;
        self.position += len as u64;
        Ok(len)
    }
}

/// A reader that fails once more than [`ROW_BYTES_MAX`] bytes pass between two resets of `left`.
pub(super) struct RowLimited<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> RowLimited<R> {
    /// Gives the reader and the counter to be reset after each row.
    pub(super) fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let left = Rc::new(Cell::new(ROW_BYTES_MAX));
        (
            Self {
                inner,
                left: Rc::clone(&left),
            },
            left,
        )
    }
}

impl<R: Read> Read for RowLimited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(len as u64);
        self.left.set(left.ok_or(io::ErrorKind::FileTooLarge)?);
        Ok(len)
    }
}

/// A run of whole rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunk {
    /// Where it starts in the decompressed text.
    pub(super) start: u64,
    pub(super) len: u64,
    /// How many line breaks precede it.
    pub(super) lines_before: u64,
    pub(super) num_rows: usize,
}

/// Collects rows into chunks, in the first pass.
pub(super) struct Chunker {
    chunks: Vec<Chunk>,
    open: Chunk,
    batch_rows: usize,
}

impl Chunker {
    pub(super) fn new(batch_rows: usize) -> Self {
        Self {
            chunks: Vec::new(),
            open: Chunk::default(),
            batch_rows: batch_rows.max(1),
        }
    }

    /// Adds a row that reaches from `start` to `end`; `lines_before` precede it.
    pub(super) fn add(&mut self, start: u64, end: u64, lines_before: u64) {
        if self.open.num_rows == 0 {
            self.open.start = start;
            self.open.lines_before = lines_before;
        }
        self.open.num_rows += 1;
        self.open.len = end - self.open.start;
        if self.open.num_rows >= self.batch_rows || self.open.len >= CHUNK_BYTES {
            self.chunks.push(std::mem::take(&mut self.open));
        }
    }

    pub(super) fn finish(mut self) -> Vec<Chunk> {
        if self.open.num_rows > 0 {
            self.chunks.push(self.open);
        }
        self.chunks
    }
}

/// The second pass: the bytes of one chunk after the other.
pub(super) struct ChunkReader {
    input: TextInput,
    chunks: std::vec::IntoIter<Chunk>,
    /// For compressed text, which can't be read by position: the text, and where it stands.
    sequential: Option<(Box<dyn Read + Send>, u64)>,
}

impl ChunkReader {
    pub(super) fn new(input: TextInput, chunks: Vec<Chunk>) -> Result<Self> {
        let sequential = match input.codec {
            Codec::Plain => None,
            Codec::Gzip | Codec::Zstd => Some((input.open()?, 0)),
        };
        Ok(Self {
            input,
            chunks: chunks.into_iter(),
            sequential,
        })
    }

    pub(super) fn num_bytes(&self) -> u64 {
        self.input.num_bytes()
    }

    /// The next chunk, and how to get its bytes.
    pub(super) fn next_chunk(&mut self) -> Result<Option<(Chunk, ChunkBytes)>> {
        let Some(chunk) = self.chunks.next() else {
            return Ok(None);
        };
        let Some((text, position)) = &mut self.sequential else {
            return Ok(Some((chunk, ChunkBytes::Stored(self.input.clone()))));
        };
        let skipped = chunk.start - *position;
        io::copy(&mut text.take(skipped), &mut io::sink()).map_err(read_error)?;
        let mut bytes = Vec::new();
        text.take(chunk.len)
            .read_to_end(&mut bytes)
            .map_err(read_error)?;
        *position = chunk.start + chunk.len;
        Ok(Some((chunk, ChunkBytes::Loaded(bytes.into()))))
    }
}

/// The bytes of a chunk: read already, or to be read by the worker.
pub(super) enum ChunkBytes {
    Loaded(Bytes),
    Stored(TextInput),
}

impl ChunkBytes {
    /// # Errors
    /// `Data` when the input is shorter than in the first pass.
    pub(super) fn load(self, chunk: &Chunk) -> Result<Bytes> {
        let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
        let bytes = match self {
            Self::Loaded(bytes) => bytes,
            Self::Stored(input) => {
                let start = chunk.start + input.bom_len;
                match &input.stored {
                    Stored::File(file, _) => {
                        let mut bytes = vec![0; len];
                        match file.read_exact_at(&mut bytes, start) {
                            Ok(()) => bytes.into(),
                            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Bytes::new(),
                            Err(error) => return Err(Error::io("cannot read", error)),
                        }
                    }
                    Stored::Bytes(bytes) => {
                        let start = usize::try_from(start).unwrap_or(usize::MAX);
                        bytes.slice(start..start + len)
                    }
                }
            }
        };
        if bytes.len() != len {
            return Err(changed());
        }
        Ok(bytes)
    }
}

/// The error for an input that is not what the first pass saw.
pub(super) fn changed() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the file was changed while it was read; try again",
    )
}

/// Line breaks in `bytes` before the row that starts at `start`, whose own first bytes may be the
/// break that ended the row before.
pub(super) fn lines_before(bytes: &[u8], start: usize) -> u64 {
    let rest = bytes.get(start..).unwrap_or_default();
    let skipped = rest
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    bytes[..start + skipped]
        .split(|byte| *byte == b'\n')
        .count() as u64
        - 1
}
