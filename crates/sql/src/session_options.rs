//! What a session may do.

use std::{
    borrow::Cow,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use darner_remote::Client;

/// How a session works, and what its statements may do.
///
/// The default is for statements that somebody else has written: they read the tables of the store, and nothing else.
///
/// # Examples
/// ```
/// # use darner_sql::{Session, SessionOptions};
/// let mut options = SessionOptions::default();
/// options.allow_files = true;
/// let session = Session::with_options(options)?;
/// assert!(session.query("CREATE TABLE t (a INT, PRIMARY KEY (a))").is_err());
/// # Ok::<(), darner_engine::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Threads to work with; one at least.
    pub num_threads: usize,
    /// Whether statements that change tables or write files are refused. Views and settings of the session are no
    /// change.
    pub read_only: bool,
    /// Whether statements may name files, to read them and, unless the session is read-only, to write them; and whether
    /// they may change the session's settings freely. Files of [`register_file`](crate::Session::register_file) can be
    /// read without that.
    pub allow_files: bool,
    /// What the error for a statement that may not write tells its reader to do.
    pub write_remedy: Cow<'static, str>,
    /// What the error for a statement that may not name files tells its reader to do.
    pub file_remedy: Cow<'static, str>,
    /// A flag that stops the statement under way when it is set; it stops each later one, too, until it is reset.
    pub cancel: Option<Arc<AtomicBool>>,
    /// The directory that names of files in `FROM` begin in; that of the process unless given. Files that are written, and
    /// those of [`register_file`](crate::Session::register_file), are not looked for in it.
    pub directory: PathBuf,
    /// Reads files of object stores (`FROM 's3://bucket/facts.parquet'`). None unless given: statements then name files
    /// of this machine alone.
    pub remote: Option<Arc<Client>>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            num_threads: 1,
            read_only: true,
            allow_files: false,
            write_remedy: "open the session with read_only = false".into(),
            file_remedy: "open the session with allow_files = true".into(),
            cancel: None,
            directory: PathBuf::new(),
            remote: None,
        }
    }
}
