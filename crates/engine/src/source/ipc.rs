//! Arrow IPC files (random access) and IPC streams (one message after the other).

use super::{
    Piece, Source, SourceOptions,
    guard::guarded,
    ipc_message::{Dictionaries, IpcMessage, aligned, schema_of},
    malformed,
    options::project,
    split,
};
use crate::{Error, Result};
use arrow_buffer::Buffer;
use arrow_ipc::{Block, MessageHeader, root_as_footer};
use arrow_schema::SchemaRef;
use std::{
    collections::HashSet,
    io::{self, Read},
    sync::Arc,
};

/// `ARROW1`, then two bytes of padding: how an IPC file starts.
const FILE_HEADER_LEN: usize = 8;
/// The footer's length (4 bytes) and `ARROW1`: how it ends.
const FILE_TRAILER_LEN: usize = 10;
/// Precedes each message since format version 5.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// The most bytes that a message's flatbuffer may claim in a stream whose length is not known. A
/// batch of 10,000 string columns needs less than 1 MiB.
const STREAM_METADATA_BYTES_MAX: u64 = 256 << 20;

/// What all pieces of one input share.
struct Shared {
    /// The schema of the stored batches, before projection.
    stored: SchemaRef,
    projection: Option<Vec<usize>>,
    batch_rows: usize,
}

impl Shared {
    fn piece(
        self: &Arc<Self>,
        name: &Arc<str>,
        batch_idx: usize,
        num_bytes: u64,
        message: IpcMessage,
        dictionaries: Arc<Dictionaries>,
    ) -> Piece {
        let shared = Arc::clone(self);
        Piece::new(Arc::clone(name), num_bytes, move || {
            let batch = message
                .record_batch(&shared.stored, &dictionaries, shared.projection.as_deref())
                .map_err(|error| error.context(format_args!("record batch {batch_idx}")))?;
            let mut batches = Vec::new();
            split(&batch, shared.batch_rows, &mut batches);
            Ok(batches)
        })
    }
}

/// An Arrow IPC file, wholly in memory or mapped.
pub(super) struct IpcFileSource {
    name: Arc<str>,
    data: Buffer,
    schema: SchemaRef,
    shared: Arc<Shared>,
    dictionaries: Arc<Dictionaries>,
    blocks: Vec<Block>,
    next: usize,
}

impl IpcFileSource {
    /// Reads the footer and the dictionaries; record batches are left to the pieces.
    ///
    /// # Errors
    /// `Data` for a damaged file, `Invalid` for a projection that it cannot give. The caller adds the
    /// file's name.
    pub(super) fn new(name: Arc<str>, data: Buffer, options: &SourceOptions) -> Result<Self> {
        guarded(|| {
            let (stored, dictionary_blocks, blocks) = read_footer(&data)?;
            let stored = Arc::new(stored);
            let (projection, schema) = project(&stored, options.projection.as_deref())?;
            let mut dictionaries = Dictionaries::new();
            let mut complete = HashSet::new();
            for (idx, block) in dictionary_blocks.iter().enumerate() {
                let mut read = || -> Result<()> {
                    let message = read_block(&data, block)?;
                    let (id, is_delta) = message.dictionary_id()?;
                    // A second whole dictionary would silently change the meaning of the batches
                    // that were written with the first one; the format forbids it.
                    if !is_delta && !complete.insert(id) {
                        return Err(Error::data(format!(
                            "two dictionaries for one column: dictionary id=`{id}`"
                        )));
                    }
                    message.read_dictionary(&stored, &mut dictionaries)
                };
                read().map_err(|error| error.context(format_args!("dictionary {idx}")))?;
            }
            let batch_rows = options.batch_rows;
            let shared = Arc::new(Shared {
                stored,
                projection,
                batch_rows,
            });
            let dictionaries = Arc::new(dictionaries);
            Ok(Self {
                name,
                data,
                schema,
                shared,
                dictionaries,
                blocks,
                next: 0,
            })
        })
    }
}

impl Source for IpcFileSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        let Some(block) = self.blocks.get(self.next) else {
            return Ok(None);
        };
        let batch_idx = self.next;
        self.next += 1;
        let message = guarded(|| read_block(&self.data, block)).map_err(|error| {
            self.next = usize::MAX;
            error.context(format_args!("{}: record batch {batch_idx}", self.name))
        })?;
        let num_bytes = u64::try_from(block.bodyLength()).unwrap_or(0);
        Ok(Some(self.shared.piece(
            &self.name,
            batch_idx,
            num_bytes,
            message,
            Arc::clone(&self.dictionaries),
        )))
    }

    fn num_bytes(&self) -> Option<u64> {
        Some(self.data.len() as u64)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The schema, the dictionary blocks and the record batch blocks that a file's footer lists.
fn read_footer(data: &Buffer) -> Result<(arrow_schema::Schema, Vec<Block>, Vec<Block>)> {
    let cut_off = || {
        Error::data(
            "the Arrow IPC file has no footer: it is cut off, or its writer was not finished; \
             write it again",
        )
    };
    if data.len() < FILE_HEADER_LEN + FILE_TRAILER_LEN || !data.ends_with(b"ARROW1") {
        return Err(cut_off());
    }
    let trailer = data.len() - FILE_TRAILER_LEN;
    let len_bytes = data[trailer..].first_chunk::<4>().ok_or_else(cut_off)?;
    let footer_len = i32::from_le_bytes(*len_bytes);
    let start = usize::try_from(footer_len)
        .ok()
        .and_then(|len| trailer.checked_sub(len))
        .filter(|start| *start >= FILE_HEADER_LEN)
        .ok_or_else(|| {
            Error::data(format!(
                "the footer's length does not fit the file: footer length=`{footer_len}`, file \
                 length=`{}`",
                data.len()
            ))
        })?;
    let footer_bytes = aligned(data.slice_with_length(start, trailer - start));
    let footer =
        root_as_footer(&footer_bytes).map_err(|error| malformed("footer", error.to_string()))?;
    let schema = footer
        .schema()
        .ok_or_else(|| Error::data("the footer has no schema"))?;
    let schema = schema_of(schema)?;
    let dictionaries = footer
        .dictionaries()
        .into_iter()
        .flatten()
        .copied()
        .collect();
    let batches = footer
        .recordBatches()
        .into_iter()
        .flatten()
        .copied()
        .collect();
    Ok((schema, dictionaries, batches))
}

/// The message that a block of the footer points to. No copy.
fn read_block(data: &Buffer, block: &Block) -> Result<IpcMessage> {
    let outside = || {
        Error::data(format!(
            "a block lies outside the file: offset=`{}`, metadata length=`{}`, body \
             length=`{}`, file length=`{}`",
            block.offset(),
            block.metaDataLength(),
            block.bodyLength(),
            data.len()
        ))
    };
    let offset = usize::try_from(block.offset()).map_err(|_| outside())?;
    let metadata_len = usize::try_from(block.metaDataLength()).map_err(|_| outside())?;
    let body_len = usize::try_from(block.bodyLength()).map_err(|_| outside())?;
    let body_start = offset.checked_add(metadata_len).ok_or_else(outside)?;
    let end = body_start.checked_add(body_len).ok_or_else(outside)?;
    if end > data.len() {
        return Err(outside());
    }
    let framed = &data[offset..body_start];
    let prefix_len = if framed.starts_with(&CONTINUATION) {
        8
    } else {
        4
    };
    if framed.len() < prefix_len {
        return Err(outside());
    }
    let metadata = aligned(data.slice_with_length(offset + prefix_len, metadata_len - prefix_len));
    let announced = IpcMessage::body_len(&metadata)?;
    if announced > body_len as u64 {
        return Err(Error::data(format!(
            "footer and message disagree: body length=`{announced}`, in the footer=`{body_len}`"
        )));
    }
    IpcMessage::new(metadata, data.slice_with_length(body_start, body_len))
}

/// Where the messages of a stream come from.
pub(super) enum StreamInput {
    /// All bytes are there (mapped or read); messages are slices of them.
    Whole {
        /// The bytes.
        data: Buffer,
        /// How many of them have been consumed.
        position: usize,
    },
    /// A pipe.
    Reader(Box<dyn Read + Send>),
}

impl StreamInput {
    /// The next `len` bytes, or fewer at the end of the input.
    fn take(&mut self, len: u64) -> Result<Buffer> {
        match self {
            Self::Whole { data, position } => {
                let rest = data.len() - *position;
                let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest);
                let bytes = data.slice_with_length(*position, len);
                *position += len;
                Ok(bytes)
            }
            Self::Reader(reader) => {
                // Grows with what arrives, never with what was announced.
                let mut bytes = Vec::new();
                reader
                    .take(len)
                    .read_to_end(&mut bytes)
                    .map_err(|error| Error::io("cannot read", error))?;
                Ok(Buffer::from_vec(bytes))
            }
        }
    }
}

/// An Arrow IPC stream.
pub(super) struct IpcStreamSource {
    name: Arc<str>,
    input: StreamInput,
    num_bytes: Option<u64>,
    schema: SchemaRef,
    shared: Arc<Shared>,
    dictionaries: Arc<Dictionaries>,
    batch_idx: usize,
    done: bool,
}

impl IpcStreamSource {
    /// Reads the schema message.
    ///
    /// # Errors
    /// As [`IpcFileSource::new`].
    pub(super) fn new(
        name: Arc<str>,
        mut input: StreamInput,
        options: &SourceOptions,
    ) -> Result<Self> {
        let num_bytes = match &input {
            StreamInput::Whole { data, .. } => Some(data.len() as u64),
            StreamInput::Reader(_) => None,
        };
        guarded(|| {
            let Some(message) = next_message(&mut input)? else {
                return Err(Error::data(
                    "the Arrow IPC stream is empty: it has no schema",
                ));
            };
            let stored = Arc::new(message.schema()?);
            let (projection, schema) = project(&stored, options.projection.as_deref())?;
            let shared = Arc::new(Shared {
                stored,
                projection,
                batch_rows: options.batch_rows,
            });
            Ok(Self {
                name,
                input,
                num_bytes,
                schema,
                shared,
                dictionaries: Arc::default(),
                batch_idx: 0,
                done: false,
            })
        })
    }

    fn advance(&mut self) -> Result<Option<Piece>> {
        loop {
            let Some(message) = next_message(&mut self.input)? else {
                self.done = true;
                return Ok(None);
            };
            match message.kind()? {
                MessageHeader::RecordBatch => {
                    let num_bytes = message.num_bytes();
                    self.batch_idx += 1;
                    return Ok(Some(self.shared.piece(
                        &self.name,
                        self.batch_idx - 1,
                        num_bytes,
                        message,
                        Arc::clone(&self.dictionaries),
                    )));
                }
                // Pieces that are still to be decoded keep the dictionaries they were framed with.
                MessageHeader::DictionaryBatch => message
                    .read_dictionary(&self.shared.stored, Arc::make_mut(&mut self.dictionaries))?,
                MessageHeader::NONE => {}
                MessageHeader::Schema => {
                    return Err(Error::data(
                        "a second schema: two streams were written one after the other; give \
                         them as two files",
                    ));
                }
                other => {
                    return Err(Error::data(format!("unexpected message: kind=`{other:?}`")));
                }
            }
        }
    }
}

impl Source for IpcStreamSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        if self.done {
            return Ok(None);
        }
        guarded(|| self.advance()).map_err(|error| {
            self.done = true;
            error.context(format_args!(
                "{}: after record batch {}",
                self.name, self.batch_idx
            ))
        })
    }

    fn num_bytes(&self) -> Option<u64> {
        self.num_bytes
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Frames the next message; `None` at the end of the stream.
fn next_message(input: &mut StreamInput) -> Result<Option<IpcMessage>> {
    let cut_off = |what: &str, got: usize, expected: u64| {
        Error::data(format!(
            "the Arrow IPC stream is cut off in a message's {what}: bytes=`{got}`, \
             expected=`{expected}`"
        ))
    };
    let mut prefix = input.take(4)?;
    if prefix.is_empty() {
        // The format lets a writer leave the marker out. All writers in use write it, so that its absence means that
        // the writer has died, and rows would be missing without a word.
        return Err(Error::data(
            "the Arrow IPC stream ends without its end marker: its writer did not finish; write it again",
        ));
    }
    if prefix.as_slice() == CONTINUATION {
        prefix = input.take(4)?;
    }
    let Some(len_bytes) = prefix.first_chunk::<4>() else {
        return Err(cut_off("length", prefix.len(), 4));
    };
    let metadata_len = i32::from_le_bytes(*len_bytes);
    if metadata_len == 0 {
        return end_of_stream(input).map(|()| None);
    }
    let metadata_len = u64::try_from(metadata_len)
        .ok()
        .filter(|len| *len <= STREAM_METADATA_BYTES_MAX)
        .ok_or_else(|| {
            Error::data(format!(
                "implausible message length, perhaps not an Arrow IPC stream: \
                 length=`{metadata_len}`"
            ))
        })?;
    let metadata = input.take(metadata_len)?;
    if (metadata.len() as u64) < metadata_len {
        return Err(cut_off("metadata", metadata.len(), metadata_len));
    }
    let metadata = aligned(metadata);
    let body_len = IpcMessage::body_len(&metadata)?;
    let body = input.take(body_len)?;
    if (body.len() as u64) < body_len {
        return Err(cut_off("body", body.len(), body_len));
    }
    IpcMessage::new(metadata, body).map(Some)
}

/// Nothing may follow the end marker: a second stream behind it would silently be left out.
fn end_of_stream(input: &mut StreamInput) -> Result<()> {
    let rest = input.take(1)?;
    if rest.is_empty() {
        return Ok(());
    }
    Err(Error::data(
        "bytes follow the end of the Arrow IPC stream: were two streams written one after the \
         other? give them as two files",
    ))
}

/// Reads everything that a reader holds, for formats that need all of it at once.
pub(super) fn read_whole(reader: &mut dyn Read, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error: io::Error| Error::io("cannot read", error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Error::new(
            crate::ErrorKind::Resource,
            format!(
                "the input is too long to be kept in memory, save it to a file: at \
                 most=`{bytes_max}` bytes"
            ),
        ));
    }
    Ok(bytes)
}
