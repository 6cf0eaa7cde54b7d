//! The error type, which is the store's: the kinds are the same from the disk to the command line, so a second type
//! would only rename the first.

pub use darner_store::{Error, ErrorKind, Result};
