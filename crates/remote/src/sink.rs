//! Outputs that appear in an object store.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use darner_engine::{ColumnForm, Error, ErrorKind, Result, Sealed, Sink, SinkOptions, create_into};
use futures::{FutureExt, StreamExt, TryStreamExt, future::ready};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path as Key};
use tokio::sync::Mutex;
use tracing::debug;

use crate::{
    client::{Client, END_TIME_MAX},
    error::failed,
    url::{Kind, Location, shown},
};

/// A file up to this length is sent in one request, a longer one in parts of at least this.
const PART_BYTES: u64 = 16 << 20;

/// S3 takes 10,000 parts of a file.
const PARTS_MAX: u64 = 9_000;

/// Parts that are under way at once; each is in memory.
const PARTS_AT_ONCE: usize = 4;

/// A web server takes a file in one request, which is in memory.
const HTTP_BYTES_MAX: u64 = 1 << 30;

/// Collects an output in an unnamed file and uploads it when it is complete.
struct RemoteSink {
    client: Arc<Client>,
    path: PathBuf,
    file: File,
    inner: Box<dyn Sink>,
}

/// A file that is on the server but for its name. Dropping it takes it back.
struct Upload {
    client: Arc<Client>,
    path: PathBuf,
    kind: Kind,
    state: Option<State>,
}

enum State {
    /// Small enough to be sent with its name.
    Whole(Arc<dyn ObjectStore>, Key, File, u64),
    Parts(Parts),
}

/// An upload in parts. Shared, so that it can be taken back when what sends them was interrupted.
type Parts = Arc<Mutex<Box<dyn MultipartUpload>>>;

impl Client {
    /// Begins an output, as [`darner_engine::create`] does: what stands at the URL is replaced in one step once the output
    /// is complete.
    ///
    /// # Errors
    /// As [`darner_engine::create`]. Whether the server takes it is found out when the output is sealed.
    pub fn create(
        self: &Arc<Self>,
        path: &Path,
        schema: &SchemaRef,
        options: &SinkOptions,
    ) -> Result<Box<dyn Sink>> {
        let location = Location::parse(path)?;
        location.key()?;
        if location.name.is_empty() || location.name.ends_with('/') {
            return Err(Error::invalid(format!(
                "is a directory; name a file in it: url=`{}`",
                shown(path)
            )));
        }
        let directory = std::env::temp_dir();
        let no_room = |error| {
            let action = format!(
                "cannot collect `{}` in `{}` (TMPDIR names another directory)",
                shown(path),
                directory.display()
            );
            Error::io(action, error)
        };
        let file = tempfile::tempfile_in(&directory).map_err(no_room)?;
        let writer = file.try_clone().map_err(no_room)?;
        let name = Path::new(&location.name);
        let inner = create_into(name, &shown(path), Box::new(writer), schema, options)?;
        Ok(Box::new(RemoteSink {
            client: Arc::clone(self),
            path: path.to_path_buf(),
            file,
            inner,
        }))
    }

    /// Sends a file as far as that can be taken back.
    fn upload(self: &Arc<Self>, path: &Path, file: File) -> Result<Upload> {
        let location = Location::parse(path)?;
        let (store, key) = (self.store(&location)?, location.key()?);
        let unread = |error| {
            Error::io(
                format!("cannot read what is sent to `{}`", shown(path)),
                error,
            )
        };
        let num_bytes = file.metadata().map_err(unread)?.len();
        let kind = location.kind;
        if num_bytes <= PART_BYTES || kind == Kind::Http {
            if num_bytes > HTTP_BYTES_MAX {
                return Err(Error::new(
                    ErrorKind::Resource,
                    format!(
                        "too long to be sent to a web server: url=`{}` bytes=`{num_bytes}` bytes_max=`{HTTP_BYTES_MAX}`; \
                         write it to a file, or to an object store",
                        shown(path)
                    ),
                ));
            }
            return Ok(Upload {
                client: Arc::clone(self),
                path: path.to_path_buf(),
                kind,
                state: Some(State::Whole(store, key, file, num_bytes)),
            });
        }
        let upload = self.wait(async move { store.put_multipart(&key).await })?;
        let cannot = |error| failed("cannot write", &shown(path), kind, &error);
        let upload = upload.map_err(cannot)?;
        let part_bytes = PART_BYTES.max(num_bytes.div_ceil(PARTS_MAX));
        let parts = Arc::new(Mutex::new(upload));
        // From here on there is something to take back.
        let begun = Upload {
            client: Arc::clone(self),
            path: path.to_path_buf(),
            kind,
            state: Some(State::Parts(Arc::clone(&parts))),
        };
        let sent = self.wait(send(parts, file, num_bytes, part_bytes))?;
        sent.map_err(cannot)?;
        Ok(begun)
    }
}

/// Sends all parts of a file, several at a time.
async fn send(
    upload: Parts,
    file: File,
    num_bytes: u64,
    part_bytes: u64,
) -> object_store::Result<()> {
    let mut upload = upload.lock().await;
    let starts = (0..num_bytes).step_by(usize::try_from(part_bytes).unwrap_or(usize::MAX));
    // Parts are numbered as they are begun.
    let parts = starts.map(|start| {
        let len = part_bytes.min(num_bytes - start);
        match read_at(&file, start, len) {
            Ok(bytes) => upload.put_part(PutPayload::from(bytes)),
            Err(error) => ready(Err(object_store::Error::Generic {
                store: "temporary file",
                source: Box::new(error),
            }))
            .boxed(),
        }
    });
    futures::stream::iter(parts)
        .buffer_unordered(PARTS_AT_ONCE)
        .try_collect::<()>()
        .await
}

impl Sink for RemoteSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.inner.write(batch)
    }

    fn seal(self: Box<Self>) -> Result<Sealed> {
        let written = self.inner.finish()?;
        let started = Instant::now();
        let upload = self.client.upload(&self.path, self.file)?;
        let (num_bytes, seconds) = (written.num_bytes, started.elapsed().as_secs_f64());
        debug!(url = shown(&self.path), num_bytes, seconds, "uploaded");
        Ok(Sealed::new(move || {
            upload.complete()?;
            Ok(written)
        }))
    }

    fn num_bytes(&self) -> u64 {
        self.inner.num_bytes()
    }

    fn prefers(&self) -> ColumnForm {
        self.inner.prefers()
    }
}

impl Upload {
    /// Makes the file visible.
    fn complete(mut self) -> Result<()> {
        // What is begun is ended, if it can be soon, also if the work is to stop: other outputs may be visible already,
        // and this belongs to them.
        self.client.forget(&self.path);
        let done = match &self.state {
            Some(State::Whole(store, key, file, num_bytes)) => {
                let (store, key) = (Arc::clone(store), key.clone());
                let bytes = read_at(file, 0, *num_bytes).map_err(|error| {
                    Error::io(
                        format!("cannot read what is sent to `{}`", shown(&self.path)),
                        error,
                    )
                })?;
                let put = async move { store.put(&key, PutPayload::from(bytes)).await };
                self.client.wait_on(put, END_TIME_MAX)
            }
            Some(State::Parts(parts)) => {
                let parts = Arc::clone(parts);
                let complete = async move { parts.lock().await.complete().await };
                self.client.wait_on(complete, END_TIME_MAX)
            }
            None => return Ok(()),
        };
        done?.map_err(|error| failed("cannot write", &shown(&self.path), self.kind, &error))?;
        self.state = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(State::Parts(parts)) = self.state.take() {
            // Nobody is left to be told of a failure. Parts that stay have no name, and go by the rule for unfinished
            // uploads that a bucket has.
            let abort = async move { parts.lock().await.abort().await.is_ok() };
            let _ = self.client.wait_on(abort, END_TIME_MAX);
        }
    }
}

fn read_at(file: &File, start: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}
