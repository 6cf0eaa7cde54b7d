//! How a command fails, and with which exit code.

use darner_engine::{Error, ErrorKind};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong.
    Error(Error),
    /// A gate such as `--max-miss-rate` was not met.
    Gate(String),
    /// Standard output was closed by its reader.
    ClosedPipe,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// 1 failed, 2 wrong usage, 3 not found, 4 gate not met; 130 as after an interrupt.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Gate(_) => 4,
            Self::ClosedPipe => 0,
            Self::Error(error) => match error.kind() {
                ErrorKind::Invalid => 2,
                ErrorKind::NotFound => 3,
                ErrorKind::Cancelled => 130,
                _ => 1,
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What a failed write to standard output means: nothing is wrong if its reader has had enough.
pub(crate) fn stdout_failure(error: Error) -> Failure {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_io = cause.downcast_ref::<std::io::Error>();
        if cause_io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return Failure::ClosedPipe;
        }
        source = cause.source();
    }
    Failure::Error(error)
}
