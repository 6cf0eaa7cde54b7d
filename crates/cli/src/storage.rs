//! Files wherever they are: of this machine, of an object store, or of a web server.
//!
//! A remote file is named by its URL, in the same `Path`s as local ones. Nothing here is done to a local file that the
//! engine would not do.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use arrow_schema::SchemaRef;
use darner_engine::{
    Error, LocalFiles, Opener, Result, Sink, SinkOptions, Source, SourceOptions, open_all_with,
};
use darner_remote::{Client, Stat};

pub(crate) use darner_remote::{can_query, is_url, name_of, normal, shown};

/// Set when work is to stop.
static CANCEL: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The connections of this process, from their first use on.
static CLIENT: OnceLock<Arc<Client>> = OnceLock::new();

/// Says what stops requests that are under way.
pub(crate) fn set_cancel(cancel: &Arc<AtomicBool>) {
    // It is set once, when the program begins.
    let _ = CANCEL.set(Arc::clone(cancel));
}

/// The client for remote files.
pub(crate) fn client() -> Arc<Client> {
    let cancel = CANCEL.get().map(Arc::clone).unwrap_or_default();
    Arc::clone(CLIENT.get_or_init(|| Arc::new(Client::new(cancel))))
}

/// The files that patterns stand for.
pub(crate) fn expand(patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for pattern in patterns {
        if is_url(Path::new(pattern)) {
            paths.append(&mut client().expand(pattern)?);
        } else {
            paths.append(&mut darner_engine::expand(std::slice::from_ref(pattern))?);
        }
    }
    Ok(paths)
}

/// Opens files wherever they are.
struct Anywhere;

impl Opener for Anywhere {
    fn open(&self, path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
        open(path, options)
    }

    fn num_bytes(&self, path: &Path) -> Option<u64> {
        if !is_url(path) {
            return LocalFiles.num_bytes(path);
        }
        client().listed_bytes(path)
    }
}

/// Opens an input.
pub(crate) fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
    if is_url(path) {
        return client().open(path, options);
    }
    darner_engine::open(path, options)
}

/// Opens inputs as one.
pub(crate) fn open_all(paths: Vec<PathBuf>, options: &SourceOptions) -> Result<Box<dyn Source>> {
    open_all_with(paths, options, Arc::new(Anywhere))
}

/// Begins an output.
pub(crate) fn create(
    path: &Path,
    schema: &SchemaRef,
    options: &SinkOptions,
) -> Result<Box<dyn Sink>> {
    if is_url(path) {
        return client().create(path, schema, options);
    }
    darner_engine::create(path, schema, options)
}

/// Finds out whether [`create`] would take a path's format, these columns and options.
pub(crate) fn check_output(path: &Path, schema: &SchemaRef, options: &SinkOptions) -> Result<()> {
    if is_url(path) {
        let checked = darner_engine::check_output(&name_of(path), schema, options);
        return checked.map_err(|error| error.context(shown(path)));
    }
    darner_engine::check_output(path, schema, options)
}

/// Writes a small file, which appears whole.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    if is_url(path) {
        return client().put(path, bytes.to_vec());
    }
    darner_engine::write_file(path, bytes)
}

/// Reads a small file; `None` if there is none.
pub(crate) fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    if is_url(path) {
        return client().get(path);
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(
            format!("cannot read `{}`", path.display()),
            error,
        )),
    }
}

/// Removes a file; false if there was none.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    if is_url(path) {
        return client().delete(path);
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(
            format!("cannot remove `{}`", path.display()),
            error,
        )),
    }
}

/// Makes a directory and those around it. Object stores have none.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    if is_url(path) {
        return Ok(());
    }
    fs::create_dir_all(path)
        .map_err(|error| Error::io(format!("cannot make directory `{}`", path.display()), error))
}

/// Makes the directory that a file is to lie in, so that a job runs on a fresh checkout.
pub(crate) fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !is_url(path) => make_directory(parent),
        _ => Ok(()),
    }
}

/// What is known of a remote file.
///
/// # Errors
/// `NotFound` if there is none.
pub(crate) fn stat(path: &Path) -> Result<Stat> {
    client()
        .stat(path)?
        .ok_or_else(|| Error::not_found(format!("there is no such file: url=`{}`", shown(path))))
}

/// Learns in one go what is in a remote directory, so that its files need not be asked for one by one.
pub(crate) fn survey(directory: &Path) {
    if is_url(directory)
        && let Err(error) = client().survey(directory)
    {
        // Its files are asked for one by one then.
        tracing::debug!(directory = shown(directory), %error, "cannot list");
    }
}
