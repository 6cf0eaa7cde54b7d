//! What every command needs: the store, the threads, how to print.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use darner_engine::{Control, Error, ErrorKind, JoinSpec, is_view};
use darner_sql::{Session, SessionOptions};
use darner_store::{AsOf, Store, StoreOptions, TableSnapshot};
use indicatif::HumanBytes;

use crate::{
    args::Args,
    error::{Failure, Result},
    memory, print,
    progress::Bar,
    storage,
};

/// How long is waited for what a cancelled statement has under way, and how often is looked.
const CLOSE_PAUSE: Duration = Duration::from_millis(5);
const CLOSE_LOOKS_MAX: usize = 2000;

/// The settings of this run of the program.
pub(crate) struct Context {
    pub(crate) store_dir: PathBuf,
    pub(crate) num_threads: usize,
    pub(crate) quiet: bool,
    pub(crate) json: bool,
    pub(crate) verbose: bool,
    /// The most bytes that the dimensions of an enrichment may take; what there is unless given.
    pub(crate) memory_limit: Option<u64>,
    cancel: Arc<AtomicBool>,
}

impl Context {
    pub(crate) fn new(args: &Args, cancel: Arc<AtomicBool>) -> Result<Self> {
        let mut builder = rayon::ThreadPoolBuilder::new();
        if let Some(num_threads) = args.threads {
            builder = builder.num_threads(num_threads.get());
        }
        storage::set_cancel(&cancel);
        if storage::is_url(&args.store) {
            return Err(no_remote_store(&args.store).into());
        }
        builder.build_global().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "cannot start threads").with_source(error)
        })?;
        Ok(Self {
            store_dir: args.store.clone(),
            num_threads: rayon::current_num_threads(),
            quiet: args.quiet,
            json: args.json,
            verbose: args.verbose,
            memory_limit: args.memory_limit,
            cancel,
        })
    }

    /// The same with another store: a job names its own.
    pub(crate) fn with_store(&self, store_dir: &Path) -> Self {
        Self {
            store_dir: store_dir.to_owned(),
            num_threads: self.num_threads,
            quiet: self.quiet,
            json: self.json,
            verbose: self.verbose,
            memory_limit: self.memory_limit,
            cancel: Arc::clone(&self.cancel),
        }
    }

    pub(crate) fn open_store(&self) -> Result<Store> {
        Ok(Store::open(&self.store_dir, self.store_options())?)
    }

    fn store_options(&self) -> StoreOptions {
        let mut options = StoreOptions::default();
        if let Some(limit) = self.memory_limit {
            let quarter = usize::try_from(limit / 4).unwrap_or(usize::MAX);
            options.page_cache_bytes = options.page_cache_bytes.min(quarter);
        }
        options
    }

    /// Whether there is a store to add to.
    pub(crate) fn has_store(&self) -> bool {
        self.store_dir.join("CURRENT").exists()
    }

    pub(crate) fn read_store(&self) -> Result<Store> {
        let store = Store::open_read_only_with(&self.store_dir, self.store_options())
            .map_err(|error| self.explain(error))?;
        Ok(store)
    }

    /// Says what to do if the reason for an error is that there is no store.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound && !self.has_store() {
            self.no_store()
        } else {
            error
        }
    }

    /// The store for writing, which must be there: a command that changes something makes none.
    pub(crate) fn open_existing_store(&self) -> Result<Store> {
        if !self.has_store() {
            return Err(self.no_store().into());
        }
        self.open_store()
    }

    fn no_store(&self) -> Error {
        Error::not_found(format!(
            "no store in `{}`; name it with --store, or make one with darner load",
            self.store_dir.display()
        ))
    }

    /// A session that may do all that the command line may, with a store.
    pub(crate) fn session(&self, store: &Arc<Store>) -> Result<Session> {
        let mut options = SessionOptions::default();
        options.num_threads = self.num_threads;
        options.read_only = false;
        options.allow_files = true;
        options.cancel = Some(Arc::clone(&self.cancel));
        options.remote = Some(storage::client());
        let session = Session::with_options(options)?;
        session.register_store(Arc::clone(store));
        Ok(session)
    }

    /// Set by a signal that asks to stop.
    pub(crate) fn cancel(&self) -> &Arc<AtomicBool> {
        &self.cancel
    }

    /// Fails once a signal has asked to stop.
    pub(crate) fn check_cancel(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "interrupted").into());
        }
        Ok(())
    }

    /// Refuses dimensions that would take more memory than allowed, or than there is, before any is read.
    pub(crate) fn check_memory(&self, joins: &[(&JoinSpec, &TableSnapshot)]) -> Result<()> {
        let remedy = "a larger --memory-limit tries it all the same";
        let available = || memory::available().map(|bytes| (bytes, "that there is", remedy));
        let asked = self.memory_limit;
        let asked = asked.map(|limit| (limit, "of --memory-limit", "allow more"));
        let Some((limit, whose, remedy)) = asked.or_else(available) else {
            return Ok(());
        };
        let sizes: Vec<u64> = joins
            .iter()
            .map(|(join, table)| {
                let size = (table.num_stored_rows(), table.num_bytes());
                let key: Vec<String> = table.key_names().into_iter().map(str::to_owned).collect();
                memory::dimension_bytes(table.schema(), &key, size, join)
            })
            .collect();
        let sum: u64 = sizes.iter().sum();
        if sum <= limit {
            return Ok(());
        }
        let each = joins.iter().zip(&sizes);
        let each = each.map(|((join, _), size)| format!("{} {}", join.alias(), HumanBytes(*size)));
        Err(Error::new(
            ErrorKind::Resource,
            format!(
                "the dimensions would take about {} of memory, more than the {} {whose}: {}; select fewer of their \
                 columns, join them one after the other, or {remedy}",
                HumanBytes(sum),
                HumanBytes(limit),
                each.collect::<Vec<_>>().join(", ")
            ),
        )
        .into())
    }

    /// Stops long work on a signal, and shows on a terminal how far it has come.
    pub(crate) fn control(&self, what: &str) -> (Control, Bar) {
        let bar = Bar::new(what, self.quiet);
        let watch = bar.clone();
        let control = Control::default()
            .with_cancel(Arc::clone(&self.cancel))
            .with_watch(move |progress| watch.update(progress));
        (control, bar)
    }
}

/// A store has to be where files can be locked, linked and synced.
pub(crate) fn no_remote_store(dir: &Path) -> Error {
    Error::invalid(format!(
        "a store is a directory of this machine: store=`{}`; files that it is loaded from, and outputs, may be remote",
        storage::shown(dir)
    ))
}

/// A table as it is, or as it was.
pub(crate) fn find_table(store: &Store, name: &str, as_of: Option<AsOf>) -> Result<TableSnapshot> {
    let Some(as_of) = as_of else {
        return Ok(store.table(name)?);
    };
    Ok(store.table_at(name, as_of)?)
}

/// Fails if a name is that of a materialized view: what is stored of it are states, and no rows.
pub(crate) fn check_no_view(store: &Store, name: &str, instead: &str) -> Result<()> {
    if !is_view(store, name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "this is for tables, and not for materialized views: view=`{name}`; {instead}"
    ))
    .into())
}

/// A materialized view keeps no earlier states of itself that could be read.
pub(crate) fn refuse_past(name: &str) -> Failure {
    Error::invalid(format!(
        "a materialized view is read as it is, without --as-of: view=`{name}`"
    ))
    .into()
}

/// Ends the use of a store. What was committed stays committed, whatever happens here.
pub(crate) fn close_store(store: Store) {
    if let Err(error) = store.close() {
        print::warning("all is committed, but the log could not be cleared", &error);
    }
}

/// Closes a store once what was started with it has ended.
pub(crate) fn close_shared(mut store: Arc<Store>) {
    for _ in 0..CLOSE_LOOKS_MAX {
        match Arc::try_unwrap(store) {
            Ok(store) => return close_store(store),
            Err(shared) => store = shared,
        }
        thread::sleep(CLOSE_PAUSE);
    }
    print::warning(
        "the store stays open",
        &Error::new(
            ErrorKind::Conflict,
            "a cancelled statement is still at work",
        ),
    );
}
