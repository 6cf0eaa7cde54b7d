//! Darner's tables in DataFusion SQL.

mod catalog;
mod error;
mod scan;
mod session;
mod table;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    session::{QueryStream, Session},
    table::StoreTable,
};
