//! Darner's tables in DataFusion SQL.

mod cache;
mod catalog;
mod error;
mod lookup_join;
mod options;
mod pin;
mod pushdown;
mod read;
mod scan;
mod session;
mod statistics;
mod table;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    options::DarnerOptions,
    session::{QueryStream, Session},
    table::StoreTable,
};
