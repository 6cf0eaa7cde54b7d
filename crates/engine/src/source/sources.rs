//! Many files as one input.

use super::{Piece, Source, SourceOptions, open};
use crate::{BatchMap, Error, Result};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Opens the files of an input, wherever they are.
pub trait Opener: Send + Sync {
    /// Opens one of them.
    ///
    /// # Errors
    /// As [`open`].
    fn open(&self, path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>>;

    /// The length of a file; `None` where it has none, or it is not known.
    fn num_bytes(&self, path: &Path) -> Option<u64>;
}

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

impl Opener for LocalFiles {
    fn open(&self, path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
        open(path, options)
    }

    fn num_bytes(&self, path: &Path) -> Option<u64> {
        let metadata = fs::metadata(path).ok();
        metadata
            .filter(fs::Metadata::is_file)
            .map(|metadata| metadata.len())
    }
}

/// The concatenation of many files, as one [`Source`] with one schema.
///
/// Every file must have the columns of the first: same names, same types, same order. Columns are
/// nullable in the schema, whatever the single files say. A file is opened when its turn comes, so
/// one thousand files take no more memory or file descriptors than one.
pub struct Sources {
    /// What the batches of every file become.
    schema: SchemaRef,
    name: String,
    first_name: Arc<str>,
    current: Option<Box<dyn Source>>,
    waiting: VecDeque<PathBuf>,
    options: SourceOptions,
    opener: Arc<dyn Opener>,
    num_bytes: Option<u64>,
}

impl Sources {
    /// Opens the first of `paths`.
    ///
    /// # Errors
    /// Those of [`open`] for the first file; `Invalid` when `paths` is empty.
    pub fn new(paths: Vec<PathBuf>, options: SourceOptions) -> Result<Self> {
        Self::with_opener(paths, options, Arc::new(LocalFiles))
    }

    /// Opens the first of `paths` by `opener`, and the others when it is their turn.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_opener(
        paths: Vec<PathBuf>,
        options: SourceOptions,
        opener: Arc<dyn Opener>,
    ) -> Result<Self> {
        let name = match paths.as_slice() {
            [path] => path.display().to_string(),
            _ => format!("{} files", paths.len()),
        };
        let lens = paths.iter().map(|path| opener.num_bytes(path));
        let num_bytes = lens.sum();
        let is_single = paths.len() == 1;
        let mut waiting = VecDeque::from(paths);
        let path = waiting
            .pop_front()
            .ok_or_else(|| Error::invalid("no input files were given"))?;
        let first = opener.open(&path, &options)?;
        let schema = if is_single {
            Arc::clone(first.schema())
        } else {
            let fields = first.schema().fields().iter();
            let fields: Vec<_> = fields
                .map(|field| field.as_ref().clone().with_nullable(true))
                .collect();
            Arc::new(Schema::new_with_metadata(
                fields,
                first.schema().metadata().clone(),
            ))
        };
        let first_name = Arc::from(first.name());
        let current = Some(first);
        Ok(Self {
            schema,
            name,
            first_name,
            current,
            waiting,
            options,
            opener,
            num_bytes,
        })
    }

    fn open_next(&mut self, path: &Path) -> Result<Box<dyn Source>> {
        let source = self.opener.open(path, &self.options)?;
        let (expected, got) = (self.schema.fields(), source.schema().fields());
        for (idx, field) in expected.iter().enumerate() {
            let differs = |what: &str, expected: &str, found: &str| {
                Error::data(format!(
                    "{}: {what}: column=`{}`, expected=`{expected}` as in `{}`, got=`{found}`; \
                     give the files apart, or declare the column's type",
                    source.name(),
                    field.name(),
                    self.first_name
                ))
            };
            let Some(other) = got.get(idx) else {
                return Err(differs("a column is missing", field.name(), "nothing"));
            };
            if other.name() != field.name() {
                return Err(differs("other columns", field.name(), other.name()));
            }
            if other.data_type() != field.data_type() {
                let (expected, found) = (field.data_type().to_string(), other.data_type());
                return Err(differs("another type", &expected, &found.to_string()));
            }
        }
        if let Some(extra) = got.get(expected.len()) {
            return Err(Error::data(format!(
                "{}: a column too many: column=`{}`, expected `{}` columns as in `{}`, got=`{}`",
                source.name(),
                extra.name(),
                expected.len(),
                self.first_name,
                got.len()
            )));
        }
        Ok(source)
    }
}

impl Source for Sources {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(piece) = current.next_piece()? {
                    if current.schema() == &self.schema {
                        return Ok(Some(piece));
                    }
                    let schema = Arc::clone(&self.schema);
                    return Ok(Some(piece.map(move |batches| {
                        batches
                            .iter()
                            .map(|batch| with_schema(batch, &schema))
                            .collect()
                    })));
                }
                self.current = None;
            }
            let Some(path) = self.waiting.pop_front() else {
                return Ok(None);
            };
            let source = self
                .open_next(&path)
                .inspect_err(|_| self.waiting.clear())?;
            self.current = Some(source);
        }
    }

    fn num_bytes(&self) -> Option<u64> {
        self.num_bytes
    }

    fn name(&self) -> &str {
        self.current
            .as_ref()
            .map_or(&self.name, |current| current.name())
    }
}

/// A source whose batches become others.
pub struct MappedSource {
    inner: Box<dyn Source>,
    map: Arc<dyn BatchMap>,
}

impl MappedSource {
    /// Gives each batch of `inner` to `map`, which was made for its schema.
    pub fn new(inner: Box<dyn Source>, map: Arc<dyn BatchMap>) -> Self {
        Self { inner, map }
    }
}

impl Source for MappedSource {
    fn schema(&self) -> &SchemaRef {
        self.map.schema()
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        let map = Arc::clone(&self.map);
        let map = move |batches: Vec<RecordBatch>| batches.iter().map(|b| map.map(b)).collect();
        Ok(self.inner.next_piece()?.map(|piece| piece.map(map)))
    }

    fn num_bytes(&self) -> Option<u64> {
        self.inner.num_bytes()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

/// Opens files as one source; a single one as it is.
///
/// # Errors
/// As [`Sources::new`].
pub fn open_all(paths: Vec<PathBuf>, options: &SourceOptions) -> Result<Box<dyn Source>> {
    open_all_with(paths, options, Arc::new(LocalFiles))
}

/// Opens files by `opener` as one source; a single one as it is.
///
/// # Errors
/// As [`Sources::new`].
pub fn open_all_with(
    paths: Vec<PathBuf>,
    options: &SourceOptions,
    opener: Arc<dyn Opener>,
) -> Result<Box<dyn Source>> {
    if let [path] = paths.as_slice() {
        return opener.open(path, options);
    }
    let sources = Sources::with_opener(paths, options.clone(), opener)?;
    Ok(Box::new(sources))
}

/// The same columns under a schema that differs in nullability and metadata only.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal("schemas that were compared differ").with_source(error))
}
