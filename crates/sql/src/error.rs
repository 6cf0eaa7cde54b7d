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
            Err(other) => Error::new(ErrorKind::Unavailable, "query failed").with_source(other),
        },
        error => {
            let kind = match &error {
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
            };
            Error::new(kind, "query failed").with_source(error)
        }
    }
}
