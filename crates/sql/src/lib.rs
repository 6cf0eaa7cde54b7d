//! Darner's tables in DataFusion SQL.

mod catalog;
mod error;
mod files;
mod guard;
mod options;
mod plan;
mod scan;
mod script;
mod session;
mod table;
mod worker;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    guard::Needs,
    options::SessionOptions,
    plan::{Answer, Plan, QueryStream},
    script::{Statement, is_complete},
    session::Session,
    table::StoreTable,
};
