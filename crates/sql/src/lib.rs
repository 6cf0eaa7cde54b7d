//! Darner's tables in DataFusion SQL.

mod catalog;
mod error;
mod pin;
mod pushdown;
mod read;
mod scan;
mod session;
mod statistics;
mod table;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    session::{QueryStream, Session},
    table::StoreTable,
};
