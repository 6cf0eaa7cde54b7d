//! What becomes of one input in a directory: a file, or several by the values of columns and by size.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::SchemaRef;
use arrow_select::take::take_record_batch;
use darner_engine::{
    ColumnForm, Error, ErrorKind, Result, Sealed, Sink, SinkOptions, Written, create_into,
};

use crate::storage::{create, make_parent};

/// Files that are open at a time, each with a part of itself in memory.
const PARTS_MAX: usize = 256;

/// Files of one input that wait, finished, to appear together; each is open until then.
const FILES_MAX: usize = 512;

/// The directory of rows in which a column is null, as Hive names it.
const NULL_NAME: &str = "__HIVE_DEFAULT_PARTITION__";

/// How the rows of one input are put into files.
#[derive(Clone, Debug)]
pub(super) struct Split {
    pub(super) partition_by: Vec<String>,
    pub(super) rows_max: Option<u64>,
    pub(super) bytes_max: Option<u64>,
}

/// The files that were written, once they are there.
pub(super) type Files = Arc<Mutex<Vec<PathBuf>>>;

/// Files `ROOT/COLUMN=VALUE/STEM-00000.EXTENSION`.
pub(super) struct SplitSink {
    split: Split,
    root: PathBuf,
    /// The name of the input in the directory, without its extension.
    stem: PathBuf,
    extension: String,
    options: SinkOptions,
    /// The columns of the files: all but those that directories are named after.
    schema: SchemaRef,
    kept: Vec<usize>,
    partition: Vec<usize>,
    parts: BTreeMap<String, Part>,
    sealed: Vec<(PathBuf, Sealed)>,
    files: Files,
    /// What the sinks of all files would have, as far as rows can be dealt out in it.
    prefers: ColumnForm,
}

#[derive(Default)]
struct Part {
    sink: Option<(PathBuf, Box<dyn Sink>)>,
    num_rows: u64,
    num_files: u32,
}

impl Split {
    pub(super) fn is_needed(&self) -> bool {
        !self.partition_by.is_empty() || self.rows_max.is_some() || self.bytes_max.is_some()
    }

    /// The columns of the files, and the places of those, and of the columns that name directories.
    pub(super) fn columns(
        &self,
        schema: &SchemaRef,
    ) -> Result<(SchemaRef, Vec<usize>, Vec<usize>)> {
        let mut partition = Vec::with_capacity(self.partition_by.len());
        for name in &self.partition_by {
            let Some((idx, field)) = schema.column_with_name(name) else {
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                return Err(Error::invalid(format!(
                    "partition_by: no such column in the output: column=`{name}`{}",
                    crate::names::hint(name, names.into_iter())
                )));
            };
            if field.data_type().is_nested() || field.data_type().is_floating() {
                return Err(Error::invalid(format!(
                    "partition_by: a column of this type names no directories: column=`{name}` type=`{}`",
                    field.data_type()
                )));
            }
            partition.push(idx);
        }
        let kept: Vec<usize> = (0..schema.fields().len())
            .filter(|idx| !partition.contains(idx))
            .collect();
        if kept.is_empty() {
            return Err(Error::invalid(
                "partition_by: no column is left for the files",
            ));
        }
        let schema = schema.project(&kept).map_err(|error| {
            Error::internal("columns that were just found are gone").with_source(error)
        })?;
        Ok((Arc::new(schema), kept, partition))
    }
}

impl SplitSink {
    pub(super) fn new(
        split: &Split,
        root: &Path,
        stem: &Path,
        extension: &str,
        schema: &SchemaRef,
        options: SinkOptions,
        files: Files,
    ) -> Result<Self> {
        let (schema, kept, partition) = split.columns(schema)?;
        let known_as = Path::new("part").with_extension(extension);
        let nowhere = Box::new(io::sink());
        let sink = create_into(&known_as, extension, nowhere, &schema, &options)?;
        let prefers = match sink.prefers() {
            ColumnForm::Plain => ColumnForm::Plain,
            _ => ColumnForm::Any,
        };
        Ok(Self {
            split: split.clone(),
            root: root.to_owned(),
            stem: stem.to_owned(),
            extension: extension.to_owned(),
            options,
            schema,
            kept,
            partition,
            parts: BTreeMap::new(),
            sealed: Vec::new(),
            files,
            prefers,
        })
    }

    /// The rows of a batch by the directory that they go to, each in order.
    fn directories(&self, batch: &RecordBatch) -> Result<BTreeMap<String, Vec<u32>>> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let failed = |error| Error::invalid("partition_by: no text").with_source(error);
        let columns: Vec<(&str, &ArrayRef)> = self
            .partition
            .iter()
            .zip(&self.split.partition_by)
            .map(|(&idx, name)| (name.as_str(), batch.column(idx)))
            .collect();
        let formatters = columns
            .iter()
            .map(|(_, column)| ArrayFormatter::try_new(column, &OPTIONS).map_err(failed))
            .collect::<Result<Vec<_>>>()?;
        let mut directories: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (row, number) in (0..batch.num_rows()).zip(0_u32..) {
            let mut path = String::new();
            for ((name, column), formatter) in columns.iter().zip(&formatters) {
                escape(name, &mut path);
                path.push('=');
                if column.is_null(row) {
                    path.push_str(NULL_NAME);
                } else {
                    let value = formatter.value(row).try_to_string().map_err(failed)?;
                    escape(&value, &mut path);
                }
                path.push('/');
            }
            directories.entry(path).or_default().push(number);
        }
        Ok(directories)
    }

    fn write_part(&mut self, directory: &str, batch: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < batch.num_rows() {
            self.open_part(directory)?;
            let Some(part) = self.parts.get_mut(directory) else {
                return Err(Error::internal("a part that was just opened is gone"));
            };
            let left = (batch.num_rows() - start) as u64;
            let room = self.split.rows_max.map_or(left, |max| max - part.num_rows);
            let len = usize::try_from(left.min(room)).unwrap_or(usize::MAX);
            let Some((_, sink)) = &mut part.sink else {
                return Err(Error::internal("a part that was just opened is closed"));
            };
            sink.write(&batch.slice(start, len))?;
            start += len;
            part.num_rows += len as u64;
            let is_full = self.split.rows_max.is_some_and(|max| part.num_rows >= max)
                || self
                    .split
                    .bytes_max
                    .is_some_and(|max| sink.num_bytes() >= max);
            if is_full {
                part.num_rows = 0;
                if let Some((path, sink)) = part.sink.take() {
                    self.sealed.push((path, sink.seal()?));
                }
            }
        }
        Ok(())
    }

    /// Makes sure that there is a file for the next rows of a directory.
    fn open_part(&mut self, directory: &str) -> Result<()> {
        if self.parts.len() >= PARTS_MAX && !self.parts.contains_key(directory) {
            return Err(Error::new(
                ErrorKind::Resource,
                format!(
                    "partition_by: one input has rows for more than {PARTS_MAX} directories: columns=`{}`; partition by \
                     columns with fewer values",
                    self.split.partition_by.join(", ")
                ),
            ));
        }
        let part = self.parts.entry(directory.to_owned()).or_default();
        if part.sink.is_some() {
            return Ok(());
        }
        if self.sealed.len() >= FILES_MAX {
            return Err(Error::new(
                ErrorKind::Resource,
                format!(
                    "one input makes more than {FILES_MAX} files; let target_file_rows or target_file_bytes be larger"
                ),
            ));
        }
        let mut name = self.stem.clone().into_os_string();
        if self.split.rows_max.is_some() || self.split.bytes_max.is_some() {
            name.push(format!("-{:05}", part.num_files));
        }
        name.push(".");
        name.push(&self.extension);
        let path = Path::new(directory).join(name);
        let full = self.root.join(&path);
        make_parent(&full)?;
        let sink = create(&full, &self.schema, &self.options)?;
        part.sink = Some((path, sink));
        part.num_files += 1;
        Ok(())
    }
}

impl Sink for SplitSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        // In the form that they come in.
        let kept = batch.project(&self.kept);
        let kept =
            kept.map_err(|error| Error::internal("a batch is not as planned").with_source(error))?;
        if self.partition.is_empty() {
            return self.write_part("", &kept);
        }
        for (directory, rows) in self.directories(batch)? {
            if rows.len() == kept.num_rows() {
                return self.write_part(&directory, &kept);
            }
            let rows = take_record_batch(&kept, &UInt32Array::from(rows))
                .map_err(|error| Error::internal("cannot take rows").with_source(error))?;
            self.write_part(&directory, &rows)?;
        }
        Ok(())
    }

    fn seal(mut self: Box<Self>) -> Result<Sealed> {
        if self.partition.is_empty() && self.parts.is_empty() {
            // An input without rows has a file without rows.
            self.open_part("")?;
        }
        for part in std::mem::take(&mut self.parts).into_values() {
            if let Some((path, sink)) = part.sink {
                self.sealed.push((path, sink.seal()?));
            }
        }
        self.sealed.sort_by(|a, b| a.0.cmp(&b.0));
        let (sealed, files) = (self.sealed, self.files);
        Ok(Sealed::new(move || {
            let mut all = Written {
                num_rows: 0,
                num_bytes: 0,
            };
            for (path, sealed) in sealed {
                let written = sealed.commit()?;
                all.num_rows += written.num_rows;
                all.num_bytes += written.num_bytes;
                files
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(path);
            }
            Ok(all)
        }))
    }

    fn num_bytes(&self) -> u64 {
        let open = self.parts.values().filter_map(|part| part.sink.as_ref());
        open.map(|(_, sink)| sink.num_bytes()).sum()
    }

    fn prefers(&self) -> ColumnForm {
        self.prefers
    }
}

/// A text as a part of a path: what is no letter, digit or one of `-_. ` becomes `%XX`.
fn escape(text: &str, out: &mut String) {
    let is_dots = text.chars().all(|c| c == '.');
    for c in text.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '_' | ' ' | '+') || (c == '.' && !is_dots) {
            out.push(c);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            // Writing to a text never fails.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_leaves_its_directory() {
        for (text, expected) in [
            ("JFK", "JFK"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            ("1.5", "1.5"),
            ("a=b%", "a%3Db%25"),
            ("", ""),
            ("é\u{0}", "é%00"),
        ] {
            let mut out = String::new();
            escape(text, &mut out);
            assert_eq!(out, expected);
        }
    }
}
