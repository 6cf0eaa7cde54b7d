//! From a path to the source that reads it.

use super::{
    Format, KNOWN_EXTENSIONS, Source, SourceOptions,
    csv::CsvSource,
    expand::format_of,
    ipc::{IpcFileSource, IpcStreamSource, StreamInput, read_whole},
    json::JsonSource,
    mmap,
    parquet::{ParquetInput, ParquetSource},
    text::{Codec, TextInput},
};
use crate::{Error, ErrorKind, Result};
use arrow_buffer::Buffer;
use bytes::Bytes;
use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    sync::Arc,
};

/// The most that is taken from standard input in a format that needs its end first (Arrow IPC file,
/// Parquet).
const STDIN_WHOLE_BYTES_MAX: u64 = 4 << 30;

/// Opens one input; `-` is standard input, an Arrow IPC stream unless [`SourceOptions::format`] says
/// otherwise.
///
/// The format is taken from the options, else from the file name's extension, else from the first
/// bytes. A file named as Arrow IPC may be a file or a stream. Text may be compressed with gzip or
/// Zstandard.
///
/// # Errors
/// `NotFound`, `Unavailable`; `Data` for a file that is not what its name says, or is damaged;
/// `Invalid` for an unknown format or a column that the input lacks. All name the input.
/// # Panics
/// Never on data.
pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
    if path.as_os_str() == "-" {
        return from_reader("standard input", Box::new(io::stdin()), options);
    }
    open_as(path, path, &path.display().to_string(), options)
}

/// Opens a file that goes by another name: `known_as` tells the format, `name` is for messages. See [`open`].
///
/// # Errors
/// As [`open`].
pub fn open_as(
    path: &Path,
    known_as: &Path,
    name: &str,
    options: &SourceOptions,
) -> Result<Box<dyn Source>> {
    let name: Arc<str> = name.into();
    open_file(path, known_as, &name, options).map_err(|error| error.context(&name))
}

/// Reads an input from any reader; see [`open`] for the default format.
///
/// An Arrow IPC stream is read as it comes; every other format is kept in memory whole.
///
/// # Errors
/// As [`open`], and `Resource` when an input that must be kept is longer than 4 GiB.
pub fn from_reader(
    name: &str,
    mut reader: Box<dyn Read + Send>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>> {
    let shared_name: Arc<str> = name.into();
    let source = match options.format.unwrap_or(Format::ArrowStream) {
        Format::ArrowStream => {
            let input = StreamInput::Reader(reader);
            IpcStreamSource::new(shared_name, input, options).map(boxed)
        }
        Format::ArrowFile => read_whole(&mut reader, STDIN_WHOLE_BYTES_MAX)
            .and_then(|data| IpcFileSource::new(shared_name, Buffer::from_vec(data), options))
            .map(boxed),
        Format::Parquet => read_whole(&mut reader, STDIN_WHOLE_BYTES_MAX)
            .map(|data| ParquetInput::Bytes(Bytes::from(data)))
            .and_then(|input| ParquetSource::new(shared_name, input, options))
            .map(boxed),
        format => TextInput::reader(&mut reader)
            .and_then(|input| open_text(&shared_name, input, format, options)),
    };
    source.map_err(|error| error.context(name))
}

fn open_file(
    path: &Path,
    known_as: &Path,
    name: &Arc<str>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>> {
    let cannot = |error| Error::io("cannot open", error);
    let mut file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(Error::invalid(
            "is a directory; name the files in it, or use a pattern",
        ));
    }
    let expected = options.format.or_else(|| format_of(known_as));
    if !metadata.is_file() {
        // A pipe or device: no length, no second pass.
        let options = SourceOptions {
            format: expected,
            ..options.clone()
        };
        return from_reader(name, Box::new(file), &options);
    }
    let mut head = Vec::new();
    (&mut file).take(8).read_to_end(&mut head).map_err(cannot)?;
    file.rewind().map_err(cannot)?;
    let format = agree(&head, expected)?;
    let data = |file: &File| -> Result<Buffer> {
        if options.memory_map {
            return mmap::map(file).map_err(|error| Error::io("cannot map", error));
        }
        let mut bytes = Vec::new();
        let mut file = file;
        file.read_to_end(&mut bytes)
            .map_err(|error| Error::io("cannot read", error))?;
        Ok(Buffer::from_vec(bytes))
    };
    match format {
        Format::ArrowFile => IpcFileSource::new(Arc::clone(name), data(&file)?, options).map(boxed),
        Format::ArrowStream => {
            let input = StreamInput::Whole {
                data: data(&file)?,
                position: 0,
            };
            IpcStreamSource::new(Arc::clone(name), input, options).map(boxed)
        }
        Format::Parquet => {
            let input = ParquetInput::File(Arc::new(file), metadata.len());
            ParquetSource::new(Arc::clone(name), input, options).map(boxed)
        }
        text => {
            let codec = Codec::of(&head);
            if let Some(named) = Codec::of_name(known_as).filter(|named| *named != codec) {
                return Err(Error::data(format!(
                    "not compressed as its name says: expected=`{named:?}`, got=`{codec:?}`; \
                     rename the file"
                )));
            }
            open_text(name, TextInput::file(file, codec)?, text, options)
        }
    }
}

fn open_text(
    name: &Arc<str>,
    input: TextInput,
    format: Format,
    options: &SourceOptions,
) -> Result<Box<dyn Source>> {
    match format {
        Format::NdJson => JsonSource::new(Arc::clone(name), input, options).map(boxed),
        _ => CsvSource::new(Arc::clone(name), input, format, options).map(boxed),
    }
}

fn boxed(source: impl Source + 'static) -> Box<dyn Source> {
    Box::new(source)
}

/// What the first bytes of a file say it is; `None`: nothing that has a signature.
fn signature(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"ARROW1") {
        Some(Format::ArrowFile)
    } else if head.starts_with(b"PAR1") || head.starts_with(b"PARE") {
        Some(Format::Parquet)
    } else if head.starts_with(&[0xFF; 4]) {
        Some(Format::ArrowStream)
    } else {
        None
    }
}

/// The format, when a file's name (or the caller) and its first bytes agree.
fn agree(head: &[u8], expected: Option<Format>) -> Result<Format> {
    let found = signature(head);
    let Some(expected) = expected else {
        return found.ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!(
                    "unknown format: name it with the format option, or use one of these \
                     extensions: `{KNOWN_EXTENSIONS}`"
                ),
            )
        });
    };
    match (expected, found) {
        // Much that is called `.arrow` is a stream.
        (Format::ArrowFile | Format::ArrowStream, Some(found))
            if matches!(found, Format::ArrowFile | Format::ArrowStream) =>
        {
            Ok(found)
        }
        // Streams of before format version 5 have no signature.
        (Format::ArrowStream, None) => Ok(Format::ArrowStream),
        (expected, Some(found)) if expected == found => Ok(found),
        (expected, None) if expected.is_text() => Ok(expected),
        (expected, found) => {
            let got = match found {
                Some(found) => found.title(),
                None if head.is_empty() => "an empty file",
                None if head.starts_with(b"FEA1") => {
                    "a Feather version 1 file, write it as version 2"
                }
                None if Codec::of(head) != Codec::Plain => "compressed data",
                None => "something else",
            };
            Err(Error::data(format!(
                "not {}, its first bytes say it is {got}; rename the file or give its format",
                expected.title()
            )))
        }
    }
}
