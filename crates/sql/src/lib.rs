//! Darner's tables in DataFusion SQL.

mod catalog;
mod error;
mod files;
mod guard;
mod plan;
mod scan;
mod script;
mod session;
mod session_options;
mod table;
mod worker;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    guard::Needs,
    plan::{Answer, Plan, QueryStream},
    script::{Statement, is_complete},
    session::Session,
    session_options::SessionOptions,
    table::StoreTable,
};
