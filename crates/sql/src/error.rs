//! DataFusion's errors and ours.

use darner_engine::{Error, ErrorKind};
use datafusion::error::DataFusionError;

/// Carries an error of ours through DataFusion.
pub(crate) fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Says what a failed query means to the caller. An error of ours comes out as it went in.
pub(crate) fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            from_datafusion(*inner)
        }
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(inner) => from_datafusion(*inner),
                Err(other) => Error::new(ErrorKind::Unavailable, "query failed").with_source(other),
            },
        },
        // Several tasks wait for what failed; each gets the error, so it cannot be taken out.
        DataFusionError::Shared(ref inner) => {
            let kind = shared_kind(inner);
            Error::new(kind, "query failed").with_source(error)
        }
        error => {
            let kind = kind_of(&error);
            Error::new(kind, "query failed").with_source(error)
        }
    }
}

/// What an error that is none of ours means to the caller.
fn kind_of(error: &DataFusionError) -> ErrorKind {
    match error {
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Collection(_)
        | DataFusionError::Configuration(_) => ErrorKind::Invalid,
        DataFusionError::ParquetError(_)
        | DataFusionError::ArrowError(..)
        | DataFusionError::Execution(_) => ErrorKind::Data,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Resource,
        DataFusionError::Internal(_) => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}

/// The kind of an error that cannot be taken out of where it is.
fn shared_kind(error: &DataFusionError) -> ErrorKind {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            shared_kind(inner)
        }
        DataFusionError::Shared(inner) => shared_kind(inner),
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => error.kind(),
            None => ErrorKind::Unavailable,
        },
        error => kind_of(error),
    }
}
