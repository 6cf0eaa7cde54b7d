//! What a caller may say about an input: [`Format`], [`SourceOptions`], [`CsvOptions`].

use super::parse_data_type;
use crate::{Error, Result};
use arrow_cast::can_cast_types;
use arrow_schema::{DataType, SchemaRef};
use std::{fmt, str::FromStr, sync::Arc};

/// A file format that sources read and sinks write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Arrow IPC file (also called Feather version 2): random access to its record batches.
    ArrowFile,
    /// Arrow IPC stream: schema, then record batches one after the other.
    ArrowStream,
    /// Apache Parquet.
    Parquet,
    /// Comma-separated text, with a header line unless told otherwise.
    Csv,
    /// Tab-separated text: [`Format::Csv`] with another default delimiter.
    Tsv,
    /// One JSON object per line.
    NdJson,
}

impl Format {
    /// All formats, with the names that `--format` takes and the file name extensions.
    const ALL: [(Self, &'static [&'static str], &'static [&'static str]); 6] = [
        (
            Self::ArrowFile,
            &["arrow", "feather", "ipc"],
            &["arrow", "feather", "ipc"],
        ),
        (
            Self::ArrowStream,
            &["arrows", "stream"],
            &["arrows", "stream"],
        ),
        (Self::Parquet, &["parquet"], &["parquet", "pq"]),
        (Self::Csv, &["csv"], &["csv"]),
        (Self::Tsv, &["tsv"], &["tsv"]),
        (
            Self::NdJson,
            &["ndjson", "jsonl", "json"],
            &["ndjson", "jsonl", "json"],
        ),
    ];

    /// The format that a file name extension (without the dot, any case) stands for.
    pub fn from_extension(extension: &str) -> Option<Self> {
        let lower = extension.to_ascii_lowercase();
        Self::ALL
            .iter()
            .find(|(_, _, e)| e.contains(&lower.as_str()))
            .map(|(format, ..)| *format)
    }

    /// Whether the format is text, which may be compressed as a whole (`.gz`, `.zst`).
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::NdJson)
    }

    /// The name that `--format` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::ArrowFile => "arrow",
            Self::ArrowStream => "arrows",
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::NdJson => "ndjson",
        }
    }

    /// What to call the format in a message.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ArrowFile => "an Arrow IPC file",
            Self::ArrowStream => "an Arrow IPC stream",
            Self::Parquet => "a Parquet file",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::NdJson => "newline-delimited JSON",
        }
    }
}

/// The file name extensions, for messages.
pub(crate) const KNOWN_EXTENSIONS: &str = ".arrow .feather .ipc .arrows .stream .parquet .pq .csv .tsv .ndjson .jsonl .json, \
     text also with .gz or .zst";

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        Self::ALL
            .iter()
            .find(|(_, names, _)| names.contains(&lower.as_str()))
            .map(|(format, ..)| *format)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "unknown format: format=`{text}`, expected one of arrow, arrows, parquet, csv, \
                     tsv, ndjson"
                ))
            })
    }
}

/// How to read an input. Plain values; the default reads every known format as it describes itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceOptions {
    /// The format. `None`: by the file name's extension, else by the first bytes.
    pub format: Option<Format>,
    /// The columns to read, in this order. `None`: all, in the input's order.
    pub projection: Option<Vec<String>>,
    /// The most rows of a batch that a piece gives.
    pub batch_rows: usize,
    /// How CSV and TSV are written.
    pub csv: CsvOptions,
    /// Declared types of CSV, TSV and NDJSON columns; columns that are not named here are inferred
    /// from the whole input. Columns that the input does not have are an error.
    pub types: Vec<(String, DataType)>,
    /// Types of columns as they are known from elsewhere, such as the table that they go to. They hold for columns
    /// that the input has and that are not in `types`; others are ignored.
    pub known_types: Vec<(String, DataType)>,
    /// Whether Arrow IPC files are memory-mapped (zero copy; the default) or read into memory. A
    /// mapped file must not be truncated or changed in place while its batches are in use.
    pub memory_map: bool,
}

impl SourceOptions {
    /// Rows of a batch unless told otherwise: large enough that per-batch work vanishes, small
    /// enough that a batch of a few columns stays in the cache.
    pub const BATCH_ROWS: usize = 64 * 1024;
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            format: None,
            projection: None,
            batch_rows: Self::BATCH_ROWS,
            csv: CsvOptions::default(),
            types: Vec::new(),
            known_types: Vec::new(),
            memory_map: true,
        }
    }
}

impl SourceOptions {
    /// Declares the type of a column as people write it: `zip = string`, or with a format of `strftime`
    /// `day = date(%d.%m.%Y)` and `at = timestamp[us, UTC](%d.%m.%Y %H:%M)`.
    ///
    /// # Errors
    /// `Invalid` for another form, or an unknown type.
    /// # Examples
    /// ```
    /// use darner_engine::SourceOptions;
    ///
    /// let mut options = SourceOptions::default();
    /// options.declare("day = date(%d.%m.%Y)")?;
    /// assert_eq!(options.csv.date_formats[0].1, "%d.%m.%Y");
    /// # Ok::<(), darner_engine::Error>(())
    /// ```
    pub fn declare(&mut self, text: &str) -> Result<()> {
        let (column, declared) = text.split_once('=').ok_or_else(|| {
            Error::invalid(format!("a type is declared as COLUMN=TYPE: got=`{text}`"))
        })?;
        let (column, declared) = (column.trim(), declared.trim());
        let format = declared
            .split_once('(')
            .and_then(|(name, format)| Some((name, format.strip_suffix(')')?)))
            .filter(|(_, format)| format.contains('%'));
        let data_type = parse_data_type(format.map_or(declared, |(name, _)| name).trim())?;
        if let Some((_, format)) = format {
            let format = (column.to_owned(), format.to_owned());
            self.csv.date_formats.push(format);
        }
        self.types.push((column.to_owned(), data_type));
        Ok(())
    }

    /// The type that a text column is to be read as, if the caller has said or knows one.
    pub(super) fn type_of(&self, column: &str) -> Option<&DataType> {
        let known = self
            .known_types
            .iter()
            .filter(|(_, t)| can_cast_types(&DataType::Utf8, t));
        let mut all = self.types.iter().chain(known);
        all.find(|(name, _)| name == column)
            .map(|(_, data_type)| data_type)
    }
}

/// How CSV and TSV text is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// The byte between fields. `None`: a comma, for TSV a tab.
    pub delimiter: Option<u8>,
    /// Whether the first row holds the column names. Without it they are `column_1`, `column_2`, ...
    pub has_header: bool,
    /// The texts that mean null, compared with the whole field. The default is the empty field only.
    pub null_text: Vec<String>,
    /// The byte around fields that hold a delimiter, a quote or a line break.
    pub quote: u8,
    /// How dates and times of columns are written, as formats of `strftime`: columns whose type is declared as a date or a
    /// timestamp. Others are written as ISO 8601 says.
    pub date_formats: Vec<(String, String)>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: None,
            has_header: true,
            null_text: vec![String::new()],
            quote: b'"',
            date_formats: Vec::new(),
        }
    }
}

/// The column numbers that a projection picks from `schema`, and the schema afterwards.
///
/// `None` instead of numbers means all columns, in order.
///
/// # Errors
/// `Invalid` for a name that is unknown, given twice, or carried by more than one column.
pub(super) fn project(
    schema: &SchemaRef,
    projection: Option<&[String]>,
) -> Result<(Option<Vec<usize>>, SchemaRef)> {
    let Some(names) = projection else {
        return Ok((None, Arc::clone(schema)));
    };
    let mut indices = Vec::with_capacity(names.len());
    for name in names {
        let mut found = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, f)| f.name() == name);
        let Some((idx, _)) = found.next() else {
            return Err(unknown_column(schema, name));
        };
        if found.next().is_some() {
            return Err(Error::invalid(format!(
                "more than one column has this name: column=`{name}`"
            )));
        }
        if indices.contains(&idx) {
            return Err(Error::invalid(format!(
                "column selected twice: column=`{name}`"
            )));
        }
        indices.push(idx);
    }
    let projected = schema
        .project(&indices)
        .map_err(|error| Error::internal("projection out of range").with_source(error))?;
    Ok((Some(indices), Arc::new(projected)))
}

/// The error for a column that an input lacks, with the nearest name that it has.
pub(super) fn unknown_column(schema: &SchemaRef, name: &str) -> Error {
    let nearest = schema
        .fields()
        .iter()
        .map(|field| {
            (
                strsim::damerau_levenshtein(field.name(), name),
                field.name(),
            )
        })
        .min();
    let hint = match nearest {
        Some((distance, nearest)) if distance <= 2 => format!(", did you mean `{nearest}`?"),
        _ => {
            let names: Vec<&str> = schema
                .fields()
                .iter()
                .take(20)
                .map(|field| field.name().as_str())
                .collect();
            format!(", columns=`{}`", names.join(", "))
        }
    };
    Error::invalid(format!("no such column: column=`{name}`{hint}"))
}
