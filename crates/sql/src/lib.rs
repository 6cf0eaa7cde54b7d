//! Darner's tables in DataFusion SQL.

mod blocking;
mod cache;
mod catalog;
mod copy;
mod create;
mod error;
mod functions;
mod scan;
mod session;
mod table;
mod write;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    create::{execute, sql, statement_to_plan},
    session::{QueryStream, Session},
    table::StoreTable,
};
