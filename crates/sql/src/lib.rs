//! Darner's tables in DataFusion SQL.

mod error;
mod session;
mod table;

pub use self::{
    session::{QueryStream, Session},
    table::StoreTable,
};
