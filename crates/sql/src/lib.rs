//! Darner's tables in DataFusion SQL.

mod cache;
mod catalog;
mod error;
mod files;
mod guard;
mod lookup_join;
mod options;
mod pin;
mod plan;
mod pushdown;
mod read;
mod scan;
mod script;
mod session;
mod session_options;
mod statistics;
mod table;
mod worker;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    guard::Needs,
    options::DarnerOptions,
    plan::{Answer, Plan, QueryStream},
    script::{Statement, is_complete},
    session::Session,
    session_options::SessionOptions,
    table::StoreTable,
};
