//! A remote file as an unnamed local one.

use std::{
    fs::File,
    io::Write,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use darner_engine::{Error, ErrorKind, Result, Source, SourceOptions, open_as};
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, path::Path as Key};
use tracing::debug;

use crate::{
    client::{Client, Stat},
    error::{changed, failed},
    url::{Kind, Location},
};

/// Bytes that are asked for at once.
const PART_BYTES: u64 = 16 << 20;

/// Parts that are under way at once.
const PARTS_MAX: usize = 6;

/// A connection that gives nothing for so long is taken for dead.
const STALL_TIME_MAX: Duration = Duration::from_mins(1);

/// Why a fetch failed.
enum Failure {
    Store(object_store::Error),
    Disk(std::io::Error),
    Stalled,
    Changed,
}

impl Client {
    /// Fetches a file, and opens it as [`darner_engine::open`] does. Errors name the URL.
    ///
    /// # Errors
    /// Those of [`darner_engine::open`]; `Unavailable` also when the server refuses or stalls, or the disk is full.
    pub fn open(&self, path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
        let location = Location::parse(path)?;
        let file = self.fetch(&location)?;
        // Another handle of the unnamed file, with a position of its own.
        let place = format!("/proc/self/fd/{}", file.as_raw_fd());
        let name = Path::new(&location.name);
        open_as(Path::new(&place), name, &location.shown(), options)
    }

    /// Fetches a file into an unnamed one of the directory for temporary files (`TMPDIR`).
    fn fetch(&self, location: &Location) -> Result<File> {
        let started = Instant::now();
        let name = location.shown();
        let directory = std::env::temp_dir();
        let no_room = |error| {
            Error::io(
                format!(
                    "cannot keep `{name}` in `{}` (TMPDIR names another directory)",
                    directory.display()
                ),
                error,
            )
        };
        let file = tempfile::tempfile_in(&directory).map_err(no_room)?;
        let (store, key) = (self.store(location)?, location.key()?);
        let target = file.try_clone().map_err(no_room)?;
        let is_whole = location.kind == Kind::Http;
        let fetched = self.wait(async move {
            if is_whole {
                whole(&store, &key, target).await
            } else {
                parts(&store, &key, target).await
            }
        })?;
        let num_bytes = fetched.map_err(|failure| match failure {
            Failure::Store(error) => failed("cannot read", &name, location.kind, &error),
            Failure::Disk(error) => no_room(error),
            Failure::Changed => changed(&name),
            Failure::Stalled => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the server sends nothing any more: url=`{name}` seconds=`{}`",
                    STALL_TIME_MAX.as_secs()
                ),
            ),
        })?;
        let seconds = started.elapsed().as_secs_f64();
        debug!(url = name, num_bytes, seconds, "fetched");
        Ok(file)
    }
}

/// Fetches a file in one answer: not every web server gives parts. Gives its length.
async fn whole(store: &Arc<dyn ObjectStore>, key: &Key, mut file: File) -> Result<u64, Failure> {
    let answer = in_time(store.get_opts(key, GetOptions::default())).await??;
    let expected = answer.meta.size;
    let mut stream = answer.into_stream();
    let mut num_bytes = 0;
    while let Some(bytes) = in_time(stream.next()).await?.transpose()? {
        num_bytes += bytes.len() as u64;
        file.write_all(&bytes)?;
    }
    if num_bytes != expected {
        return Err(Failure::Changed);
    }
    Ok(num_bytes)
}

/// Fetches a file in parts, several at a time, all of one content. Gives its length.
async fn parts(store: &Arc<dyn ObjectStore>, key: &Key, file: File) -> Result<u64, Failure> {
    let options = GetOptions {
        head: true,
        ..GetOptions::default()
    };
    let meta = in_time(store.get_opts(key, options)).await??.meta;
    let starts = (0..meta.size).step_by(usize::try_from(PART_BYTES).unwrap_or(usize::MAX));
    let parts = starts.map(|start| part(store, key, &meta, start, &file));
    futures::stream::iter(parts)
        .buffer_unordered(PARTS_MAX)
        .try_collect::<()>()
        .await?;
    Ok(meta.size)
}

async fn part(
    store: &Arc<dyn ObjectStore>,
    key: &Key,
    meta: &ObjectMeta,
    start: u64,
    file: &File,
) -> Result<(), Failure> {
    let end = meta.size.min(start + PART_BYTES);
    let options = GetOptions {
        range: Some(GetRange::Bounded(start..end)),
        if_match: meta.e_tag.clone(),
        ..GetOptions::default()
    };
    let answer = in_time(store.get_opts(key, options)).await??;
    // Not every server minds the condition.
    if Stat::from(&answer.meta) != Stat::from(meta) {
        return Err(Failure::Changed);
    }
    let mut stream = answer.into_stream();
    let mut at = start;
    while let Some(bytes) = in_time(stream.next()).await?.transpose()? {
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
    }
    if at != end {
        return Err(Failure::Changed);
    }
    Ok(())
}

async fn in_time<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(STALL_TIME_MAX, future)
        .await
        .map_err(|_| Failure::Stalled)
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error)
    }
}
