//! The connections to remote places.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use darner_engine::{Error, ErrorKind, Result};
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, GetOptions, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    http::HttpBuilder,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    error::{credentials, failed},
    url::{Kind, Location, shown},
};

/// How often a wait looks whether it is to stop.
const CANCEL_PAUSE: Duration = Duration::from_millis(50);

/// A request that fails in a way that may pass is made again so often, and for so long.
const RETRIES_MAX: usize = 6;
const RETRY_TIME_MAX: Duration = Duration::from_mins(1);

/// How long one request to an object store may take: parts of files are its largest.
const REQUEST_TIME_MAX: Duration = Duration::from_mins(5);

/// How long is waited, once the work is to stop, for what is then still to be done.
pub(crate) const END_TIME_MAX: Duration = Duration::from_secs(5);

/// Threads that wait for the network; the work is the receiver's.
const NUM_THREADS: usize = 2;

/// What is known of a remote file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its length.
    pub num_bytes: u64,
    /// When it was written, in seconds since 1970; 0 where the server does not say.
    pub modified_s: i64,
    /// What the server calls this content of the file (`ETag`); empty where it does not say.
    pub tag: String,
}

/// Reads and writes remote files. Connections to object stores are kept.
pub struct Client {
    /// From the first request on.
    runtime: OnceLock<Runtime>,
    /// Set when waits are to stop.
    cancel: Arc<AtomicBool>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    /// What listings told of files that were not asked for since.
    listed: Mutex<HashMap<String, Stat>>,
    /// The place that each host stands for in SQL, which has no regard for what is before it.
    hosts: Mutex<HashMap<String, String>>,
}

/// Without addresses, which may hold signatures.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Threads that wait are not waited for: a client may be dropped on one of them.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// A client without connections; its calls fail with `Cancelled` once `cancel` is set.
    pub fn new(cancel: Arc<AtomicBool>) -> Self {
        Self {
            runtime: OnceLock::new(),
            cancel,
            stores: Mutex::default(),
            listed: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    fn runtime(&self) -> Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(NUM_THREADS)
            .thread_name("darner-remote")
            .enable_all()
            .build()
            .map_err(|error| Error::io("cannot start threads", error))?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// What is known of a file; `None` if there is none. What [`expand`](Self::expand) has learnt is told once, without
    /// asking again.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be asked, with what it said; `Invalid` for a malformed URL.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stat) = path.to_str().and_then(|path| listed.remove(path)) {
            return Ok(Some(stat));
        }
        drop(listed);
        let location = Location::parse(path)?;
        Ok(self.head(&location)?.as_ref().map(Stat::from))
    }

    /// The length of a file as a listing told it, if one did.
    pub fn listed_bytes(&self, path: &Path) -> Option<u64> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        Some(listed.get(path.to_str()?)?.num_bytes)
    }

    /// Forgets what a listing told of a file that is another now.
    pub(crate) fn forget(&self, path: &Path) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = path.to_str() {
            listed.remove(path);
        }
    }

    /// Writes a small file in one step, also when the work is to stop: it may say how far that has come.
    ///
    /// # Errors
    /// As [`stat`](Self::stat); what stood there before is then untouched.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let location = Location::parse(path)?;
        let (store, key) = (self.store(&location)?, location.key()?);
        self.forget(path);
        let put = async move { store.put(&key, PutPayload::from(bytes)).await.map(drop) };
        self.wait_on(put, END_TIME_MAX)?
            .map_err(|error| failed("cannot write", &shown(path), location.kind, &error))
    }

    /// Reads a small file; `None` if there is none.
    ///
    /// # Errors
    /// As [`stat`](Self::stat).
    pub fn get(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let location = Location::parse(path)?;
        let (store, key) = (self.store(&location)?, location.key()?);
        let get = async move { store.get(&key).await?.bytes().await };
        match self.wait(get)? {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("cannot read", &shown(path), location.kind, &error)),
        }
    }

    /// Removes a file; false if there was none, where the server says so.
    ///
    /// # Errors
    /// As [`stat`](Self::stat).
    pub fn delete(&self, path: &Path) -> Result<bool> {
        let location = Location::parse(path)?;
        let (store, key) = (self.store(&location)?, location.key()?);
        self.forget(path);
        match self.wait(async move { store.delete(&key).await })? {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed("cannot remove", &shown(path), location.kind, &error)),
        }
    }

    /// The place of a URL (`s3://bucket`) and the library's store for it, as DataFusion registers them.
    ///
    /// # Errors
    /// `Invalid` for a malformed URL or settings that cannot be used.
    pub fn object_store(&self, path: &Path) -> Result<(url::Url, Arc<dyn ObjectStore>)> {
        let location = Location::parse(path)?;
        let place = url::Url::parse(&location.place).map_err(|error| {
            Error::invalid(format!("malformed URL: url=`{}`", shown(path))).with_source(error)
        })?;
        let host = format!(
            "{}://{}",
            place.scheme(),
            place.host_str().unwrap_or_default()
        );
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hosts.entry(host).or_insert_with(|| location.place.clone());
        if *known != location.place {
            return Err(Error::invalid(format!(
                "statements of one session read one container of an account: url=`{}` known=`{known}`; name containers \
                 as az://CONTAINER",
                shown(path)
            )));
        }
        drop(hosts);
        Ok((place, self.store(&location)?))
    }

    /// What the server says of a file; `None` if there is none.
    pub(crate) fn head(&self, location: &Location) -> Result<Option<ObjectMeta>> {
        let (store, key) = (self.store(location)?, location.key()?);
        // Who may read a web address may not be allowed to ask about it: the body of the answer is not read.
        let options = GetOptions {
            head: location.kind != Kind::Http,
            ..GetOptions::default()
        };
        let head = async move {
            let asked = store.get_opts(&key, options);
            let answer = tokio::time::timeout(RETRY_TIME_MAX * 2, asked).await;
            answer.map(|answer| answer.map(|answer| answer.meta))
        };
        let name = location.shown();
        match self.wait(head)? {
            Ok(Ok(meta)) => Ok(Some(meta)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(failed("cannot read", &name, location.kind, &error)),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the server does not answer: url=`{name}`"),
            )),
        }
    }

    /// Remembers what a listing told, if it is as much as is told of a file that is asked for.
    pub(crate) fn remember(&self, url: String, meta: &ObjectMeta) {
        if meta.e_tag.is_none() {
            return;
        }
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.insert(url, Stat::from(meta));
    }

    /// The store of a place, with the settings of the environment.
    pub(crate) fn store(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&location.place) {
            return Ok(Arc::clone(store));
        }
        let store = build(location).map_err(|error| {
            let place = shown(Path::new(&location.place));
            let remedy = credentials(location.kind).unwrap_or("see the cause");
            Error::invalid(format!("cannot be reached: url=`{place}`; {remedy}")).with_source(error)
        })?;
        // An address is one file.
        if location.kind != Kind::Http {
            stores.insert(location.place.clone(), Arc::clone(&store));
        }
        Ok(store)
    }

    /// Waits for something that the runtime does, or for the flag to stop.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
        }
        self.wait_on(future, Duration::ZERO)
    }

    /// Waits for something that is done also when the work was stopped, but then not for long.
    pub(crate) fn wait_on<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
        grace: Duration,
    ) -> Result<T> {
        let mut stopped: Option<Instant> = None;
        let (sender, receiver) = mpsc::sync_channel(1);
        // Not `block_on`, which a thread of another runtime may not call.
        let task = self.runtime()?.spawn(async move {
            // Who waited may have given up.
            let _ = sender.send(future.await);
        });
        loop {
            match receiver.recv_timeout(CANCEL_PAUSE) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) if self.cancel.load(Ordering::Relaxed) => {
                    if stopped.get_or_insert_with(Instant::now).elapsed() >= grace {
                        task.abort();
                        return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("a request ended without an answer"));
                }
            }
        }
    }
}

impl From<&ObjectMeta> for Stat {
    fn from(meta: &ObjectMeta) -> Self {
        let tag = meta.e_tag.as_deref().unwrap_or_default();
        Self {
            num_bytes: meta.size,
            modified_s: meta.last_modified.timestamp(),
            // Azure has quotation marks around it where a file is asked for, and none where it is listed.
            tag: tag.trim_matches('"').to_owned(),
        }
    }
}

/// A store with the settings of the environment.
fn build(location: &Location) -> object_store::Result<Arc<dyn ObjectStore>> {
    let place = location.place.as_str();
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIME_MAX,
    };
    let timeout = format!("{} seconds", REQUEST_TIME_MAX.as_secs());
    Ok(match location.kind {
        Kind::S3 => {
            let mut builder = AmazonS3Builder::from_env()
                .with_url(place)
                .with_retry(retry);
            if is_unset("AWS_TIMEOUT") {
                let key = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
                builder = builder.with_config(key, timeout);
            }
            // Who names an endpoint without encryption means it.
            let names = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];
            if names.iter().any(|name| is_plain(name)) {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.build()?)
        }
        Kind::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_url(place)
                .with_retry(retry);
            if is_unset("GOOGLE_TIMEOUT") {
                let key = GoogleConfigKey::Client(ClientConfigKey::Timeout);
                builder = builder.with_config(key, timeout);
            }
            Arc::new(builder.build()?)
        }
        Kind::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_url(place)
                .with_retry(retry);
            if is_unset("AZURE_TIMEOUT") {
                let key = AzureConfigKey::Client(ClientConfigKey::Timeout);
                builder = builder.with_config(key, timeout);
            }
            let names = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"];
            if names.iter().any(|name| is_plain(name)) {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.build()?)
        }
        // A file comes in one answer, however long that takes; a connection that stalls is noticed where it is read.
        Kind::Http => {
            let client = ClientOptions::new()
                .with_allow_http(true)
                .with_timeout_disabled();
            let builder = HttpBuilder::new().with_url(place).with_retry(retry);
            Arc::new(builder.with_client_options(client).build()?)
        }
    })
}

fn is_unset(variable: &str) -> bool {
    std::env::var_os(variable).is_none()
}

/// Whether a variable of the environment is an address without encryption.
fn is_plain(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value.trim_start().starts_with("http://"))
}
