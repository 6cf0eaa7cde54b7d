//! Files as tables: `FROM 'facts.parquet'`, `FROM 'in/*.csv.gz'`.
//!
//! A name that no table has comes here. Names, directories and patterns mean what they mean on the command line
//! ([`expand`]); each file is then known to DataFusion by its own URL, so that no character of its name has a meaning
//! any more. A directory of directories such as `year=2026/month=07` is left to DataFusion, which makes columns of them.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use darner_engine::{Error, ErrorKind, Format, Result, SourceOptions, expand};
use darner_remote::{Client, can_query, shown};
use datafusion::{
    catalog::{TableProvider, UrlTableFactory},
    datasource::{
        file_format::FileFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    error::DataFusionError,
    execution::SessionState,
    object_store::{ObjectMeta, ObjectStore},
    prelude::SessionContext,
};
use futures::TryStreamExt;

use crate::error::{from_datafusion, to_datafusion};

/// The formats that SQL reads, by their extensions.
const FORMATS: &str =
    ".parquet, .arrow, .csv, .tsv or .ndjson, text also as .gz, .zst, .bz2 or .xz";

/// How deep directories are searched for the first file.
const DEPTH_MAX: usize = 16;

/// The files of a session's `FROM`.
pub(crate) struct FileTables {
    /// What to do about it that files are not to be read, if they are not.
    refusal: Option<Cow<'static, str>>,
    /// Where names begin.
    directory: PathBuf,
    /// The state of the session; known once the session is there that this is a part of.
    state: OnceLock<StateOf>,
}

type StateOf = Box<dyn Fn() -> Option<SessionState> + Send + Sync>;

impl fmt::Debug for FileTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTables").finish_non_exhaustive()
    }
}

impl FileTables {
    /// Files are tables, those without a root in a directory, or refused with this remedy.
    pub(crate) fn new(remedy: Option<Cow<'static, str>>, directory: PathBuf) -> Self {
        Self {
            refusal: remedy,
            directory,
            state: OnceLock::new(),
        }
    }

    /// Says in which session files are read.
    pub(crate) fn set_session(&self, context: &SessionContext) {
        // The session has this, not the other way round.
        let state = context.state_weak_ref();
        let state_of = move || state.upgrade().map(|state| state.read().clone());
        // It is set once.
        let _ = self.state.set(Box::new(state_of));
    }
}

#[async_trait::async_trait]
impl UrlTableFactory for FileTables {
    async fn try_new(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some(remedy) = &self.refusal {
            // Not even whether there is such a file is told.
            if !has_path(name) {
                return Ok(None);
            }
            return Err(to_datafusion(Error::invalid(format!(
                "statement names a file, which is not allowed here: file=`{name}`; {remedy}"
            ))));
        }
        let placed = self.directory.join(name).into_os_string().into_string();
        let placed = placed.ok().filter(|_| !name.contains("://"));
        let path = placed.as_deref().unwrap_or(name);
        if !has_path(name) && !Path::new(path).exists() {
            return Ok(None);
        }
        let Some(state) = self.state.get().and_then(|state_of| state_of()) else {
            return Ok(None);
        };
        let table = file_table(&state, path).await.map_err(to_datafusion)?;
        Ok(Some(table))
    }
}

/// Whether a name of no table looks like one of files: it has a directory, an extension, or is a pattern.
pub(crate) fn has_path(name: &str) -> bool {
    name.contains(['/', '.', '*', '?', '[', '\\'])
}

/// The table of all files that a name stands for.
///
/// # Errors
/// [`ErrorKind::NotFound`] with the name; [`ErrorKind::Invalid`] for an unknown format, or several.
pub(crate) async fn file_table(state: &SessionState, name: &str) -> Result<Arc<dyn TableProvider>> {
    let remote = state.config().get_extension::<Client>();
    let remote = remote.filter(|_| can_query(Path::new(name)));
    let (name, files) = if let Some(remote) = &remote {
        (name, remote_files(state, remote, name).await?)
    } else {
        let name = local(name)?;
        match expand(&[name.to_owned()]) {
            Err(error) if error.kind() == ErrorKind::NotFound && Path::new(name).is_dir() => {
                return partitioned_table(state, Path::new(name), error).await;
            }
            files => (name, files?),
        }
    };
    let kind = FileKind::of(&files[0])?;
    for file in &files[1..] {
        if FileKind::of(file)? != kind {
            return Err(Error::invalid(format!(
                "files of one table have one format: file=`{}` file=`{}`",
                files[0].display(),
                file.display()
            )));
        }
    }
    let urls = files
        .iter()
        .map(|file| match remote {
            Some(_) => remote_url(file),
            None => url_of(file, false),
        })
        .collect::<Result<Vec<_>>>()?;
    let format = kind.format(state)?;
    let mut metas = Vec::new();
    for (url, file) in urls.iter().zip(&files) {
        let cannot = |error: DataFusionError| {
            from_datafusion(error).context(format!("cannot read `{}`", file.display()))
        };
        let store = state.runtime_env().object_store(url).map_err(cannot)?;
        let listed = url.list_all_files(state, store.as_ref(), "").await;
        let listed = listed.map_err(cannot)?.try_collect::<Vec<_>>().await;
        // An empty file says nothing of columns.
        metas.extend(
            listed
                .map_err(cannot)?
                .into_iter()
                .filter(|meta| meta.size > 0),
        );
    }
    let table = async {
        let store = state.runtime_env().object_store(&urls[0])?;
        let is_csv = matches!(kind.format, Format::Csv | Format::Tsv);
        let is_ipc = matches!(kind.format, Format::ArrowFile | Format::ArrowStream);
        let schema = if let (true, Some(remote)) = (is_ipc, &remote) {
            ipc_schema(remote, &files).await?
        } else if is_csv && metas.len() > 1 {
            csv_schema(state, format.as_ref(), &store, &metas).await?
        } else {
            format.infer_schema(state, &store, &metas).await?
        };
        // A file is what it was named, whatever its name ends with.
        let options = ListingOptions::new(format).with_file_extension("");
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(options)
            .with_schema(schema);
        ListingTable::try_new(config)
    };
    let table = table.await;
    let table = table.map_err(|error| from_datafusion(error).context(format!("file `{name}`")))?;
    Ok(Arc::new(table))
}

/// The files that a URL of an object store stands for. The place is made known to DataFusion.
async fn remote_files(
    state: &SessionState,
    remote: &Arc<Client>,
    name: &str,
) -> Result<Vec<PathBuf>> {
    let (client, pattern) = (Arc::clone(remote), name.to_owned());
    // The client waits for the network; others go on.
    let files = tokio::task::spawn_blocking(move || client.expand(&pattern)).await;
    let files = files.map_err(|error| Error::internal("a listing ended").with_source(error))??;
    let (place, store) = remote.object_store(&files[0])?;
    state.runtime_env().register_object_store(&place, store);
    Ok(files)
}

/// Files as a table with columns that are known: each file must have them.
///
/// # Errors
/// [`ErrorKind::Invalid`], naming the file, for an unknown format, or for a file that lacks a column.
pub(crate) async fn facts_table(
    state: &SessionState,
    files: &[PathBuf],
    schema: SchemaRef,
) -> Result<Arc<dyn TableProvider>> {
    let mut by_kind: Vec<(FileKind, Vec<ListingTableUrl>)> = Vec::new();
    for file in files {
        let kind = FileKind::of(file)?;
        let url = url_of(file, false)?;
        check_columns(state, kind, file, &url, &schema).await?;
        match by_kind.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, urls)) => urls.push(url),
            None => by_kind.push((kind, vec![url])),
        }
    }
    let [(kind, urls)] = &by_kind[..] else {
        return Err(Error::invalid(format!(
            "files that are counted at once have one format: formats=`{}`",
            by_kind.len()
        )));
    };
    let options = ListingOptions::new(kind.format(state)?).with_file_extension("");
    let config = ListingTableConfig::new_with_multi_paths(urls.clone())
        .with_listing_options(options)
        .with_schema(schema);
    let table = ListingTable::try_new(config).map_err(from_datafusion)?;
    Ok(Arc::new(table))
}

/// Fails if a file lacks a column that a table has, where that would make its rows others or nulls of its values.
async fn check_columns(
    state: &SessionState,
    kind: FileKind,
    file: &Path,
    url: &ListingTableUrl,
    schema: &SchemaRef,
) -> Result<()> {
    let cannot = |error: DataFusionError| {
        from_datafusion(error).context(format!("cannot read `{}`", file.display()))
    };
    // A row of NDJSON that has no such name has no such value.
    if kind.format == Format::NdJson {
        return Ok(());
    }
    let store = state.runtime_env().object_store(url).map_err(cannot)?;
    let listed = url.list_all_files(state, store.as_ref(), "").await;
    let listed = listed.map_err(cannot)?.try_collect::<Vec<_>>().await;
    let metas: Vec<ObjectMeta> = listed.map_err(cannot)?;
    if metas.iter().all(|meta| meta.size == 0) {
        return Ok(());
    }
    let format = kind.format(state)?;
    let found = format.infer_schema(state, &store, &metas).await;
    let found = found.map_err(cannot)?;
    let names = |schema: &Schema| {
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| &**field.name())
            .collect();
        names.join(", ")
    };
    // Values of CSV are taken by their places.
    let is_same = if matches!(kind.format, Format::Csv | Format::Tsv) {
        names(&found) == names(schema)
    } else {
        let mut fields = schema.fields().iter();
        fields.all(|field| found.field_with_name(field.name()).is_ok())
    };
    if is_same {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a file has other columns than those before it: file=`{}` columns=`{}` expected=`{}`",
        file.display(),
        names(&found),
        names(schema)
    )))
}

/// The columns of remote Arrow IPC files, which are fetched for that. DataFusion looks for the schema eight bytes behind the
/// beginning of a stream of the file; most writers, that of Arrow's own crate among them, have it at 64.
async fn ipc_schema(remote: &Arc<Client>, files: &[PathBuf]) -> Result<SchemaRef, DataFusionError> {
    let mut schemas = Vec::with_capacity(files.len());
    for file in files {
        let (client, file) = (Arc::clone(remote), file.clone());
        let open = move || client.open(&file, &SourceOptions::default());
        let source = tokio::task::spawn_blocking(open).await;
        let source = source.map_err(|error| DataFusionError::External(error.into()))?;
        let source = source.map_err(to_datafusion)?;
        schemas.push(source.schema().as_ref().clone());
    }
    Ok(Arc::new(Schema::try_merge(schemas)?))
}

/// The columns of several CSV files. They must be the same: DataFusion would take values by their places, whatever the
/// header lines say. Types that the files disagree about become one that takes both.
async fn csv_schema(
    state: &SessionState,
    format: &dyn FileFormat,
    store: &Arc<dyn ObjectStore>,
    metas: &[ObjectMeta],
) -> Result<SchemaRef, DataFusionError> {
    let names = |fields: &Fields| {
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        names.join(", ")
    };
    let mut merged = Fields::empty();
    for (i, meta) in metas.iter().enumerate() {
        let schema = format
            .infer_schema(state, store, std::slice::from_ref(meta))
            .await
            .map_err(|error| error.context(format!("file `/{}`", meta.location)))?;
        let fields = schema.fields();
        if i == 0 {
            merged = fields.clone();
            continue;
        }
        if names(&merged) != names(fields) {
            return Err(to_datafusion(Error::invalid(format!(
                "CSV files of one table have the same columns in the same order: file=`/{}` columns=`{}` file=`/{}` \
                 columns=`{}`",
                metas[0].location,
                names(&merged),
                meta.location,
                names(fields)
            ))));
        }
        merged = merged
            .iter()
            .zip(fields)
            .map(|(left, right)| {
                let data_type = common_type(left.data_type(), right.data_type());
                Field::new(left.name(), data_type, true)
            })
            .collect();
    }
    Ok(Arc::new(Schema::new(merged)))
}

/// A type that takes the values of both; text takes all.
fn common_type(left: &DataType, right: &DataType) -> DataType {
    match (left, right) {
        (left, right) if left == right => left.clone(),
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => {
            DataType::Float64
        }
        _ => DataType::Utf8,
    }
}

/// The table of a directory whose files are in directories. `error` says that it has none itself.
async fn partitioned_table(
    state: &SessionState,
    dir: &Path,
    error: Error,
) -> Result<Arc<dyn TableProvider>> {
    let Some((file, kind)) = first_file(dir, DEPTH_MAX) else {
        return Err(error);
    };
    let extension = kind.extension(&file);
    let options = ListingOptions::new(kind.format(state)?).with_file_extension(extension);
    let url = url_of(dir, true)?;
    let table = async {
        let config = ListingTableConfig::new(url)
            .with_listing_options(options)
            .infer_partitions_from_path(state)
            .await?
            .infer_schema(state)
            .await?;
        ListingTable::try_new(config)
    };
    let table = table.await.map_err(|error| {
        from_datafusion(error).context(format!("directory `{}`", dir.display()))
    })?;
    Ok(Arc::new(table))
}

/// The first file of a known format, by name, in a directory and those inside it.
fn first_file(dir: &Path, depth: usize) -> Option<(PathBuf, FileKind)> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        if path.is_dir() {
            return first_file(&path, depth.checked_sub(1)?);
        }
        let kind = FileKind::of(&path).ok()?;
        Some((path, kind))
    })
}

/// A file's name without `file://`.
pub(crate) fn local(name: &str) -> Result<&str> {
    match name.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => Ok(rest),
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            Err(Error::invalid(format!(
                "SQL and views read files of this machine, and SQL those of object stores: file=`{}`; load or enrich \
                 takes others",
                shown(Path::new(name))
            )))
        }
        _ => Ok(name),
    }
}

/// The URL of a file or a directory, as it is.
fn url_of(path: &Path, is_dir: bool) -> Result<ListingTableUrl> {
    let cannot = |error| Error::io(format!("cannot read `{}`", path.display()), error);
    let place = path.canonicalize().map_err(cannot)?;
    let mut url = String::from("file://");
    encode(place.as_os_str().as_encoded_bytes(), &mut url);
    if is_dir && !url.ends_with('/') {
        url.push('/');
    }
    listing_url(&url, path)
}

/// The URL of a file of an object store, as it is: names there are not encoded where they are typed.
fn remote_url(path: &Path) -> Result<ListingTableUrl> {
    let text = path.to_string_lossy();
    let start = text.find("://").map_or(0, |at| at + 3);
    let key = text[start..].find('/').map_or(text.len(), |at| start + at);
    let mut url = text[..key].to_owned();
    encode(&text.as_bytes()[key..], &mut url);
    listing_url(&url, path)
}

/// A name with all that could mean something in a URL encoded.
fn encode(name: &[u8], url: &mut String) {
    for byte in name {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                url.push(char::from(*byte));
            }
            byte => {
                // Writing to a string does not fail.
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
}

fn listing_url(url: &str, path: &Path) -> Result<ListingTableUrl> {
    ListingTableUrl::parse(url).map_err(|error| {
        from_datafusion(error).context(format!("cannot read `{}`", path.display()))
    })
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileKind {
    format: Format,
    /// As DataFusion calls it.
    compression: Option<&'static str>,
}

impl FileKind {
    /// The format and the compression that a name tells.
    fn of(path: &Path) -> Result<Self> {
        let lower = |path: &Path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.unwrap_or_default().to_ascii_lowercase()
        };
        let extension = lower(path);
        let compression = match extension.as_str() {
            "gz" => Some("gzip"),
            "zst" => Some("zstd"),
            "bz2" => Some("bzip2"),
            "xz" => Some("xz"),
            _ => None,
        };
        let extension = match compression {
            None => extension,
            Some(_) => lower(Path::new(path.file_stem().unwrap_or_default())),
        };
        Format::from_extension(&extension)
            .filter(|format| compression.is_none() || format.is_text())
            .map(|format| Self {
                format,
                compression,
            })
            .ok_or_else(|| {
                Error::invalid(format!(
                    "SQL cannot read this format: file=`{}`; use {FORMATS}",
                    path.display()
                ))
            })
    }

    /// What the names of such files end with; `file` is one.
    fn extension(self, file: &Path) -> String {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let num_parts = if self.compression.is_some() { 2 } else { 1 };
        let start = name.rmatch_indices('.').nth(num_parts - 1);
        start.map_or_else(String::new, |(at, _)| name[at..].to_owned())
    }

    fn format(self, state: &SessionState) -> Result<Arc<dyn FileFormat>> {
        let mut options = HashMap::new();
        let name = match self.format {
            Format::Parquet => "parquet",
            Format::ArrowFile | Format::ArrowStream => "arrow",
            Format::Csv => "csv",
            Format::Tsv => {
                options.insert("format.delimiter".to_owned(), "\t".to_owned());
                "csv"
            }
            Format::NdJson => "json",
        };
        if let Some(compression) = self.compression {
            options.insert("format.compression".to_owned(), compression.to_owned());
        }
        let factory = state.get_file_format_factory(name).ok_or_else(|| {
            Error::internal(format!(
                "format is not a part of this program: format=`{name}`"
            ))
        })?;
        factory.create(state, &options).map_err(from_datafusion)
    }
}

/// Whether the format of a file is known by its name.
pub(crate) fn can_read(path: &Path) -> bool {
    FileKind::of(path).is_ok()
}
