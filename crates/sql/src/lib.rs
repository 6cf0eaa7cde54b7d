//! Darner's tables in DataFusion SQL.

mod blocking;
mod cache;
mod catalog;
mod compact;
mod copy;
mod create;
mod error;
mod expressions;
mod files;
mod functions;
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
mod string_views;
mod table;
mod view;
mod worker;
mod write;

pub use self::{
    catalog::{SCHEMA, StoreCatalog, register},
    create::{execute, sql, statement_to_plan},
    expressions::Expressions,
    guard::Needs,
    options::DarnerOptions,
    plan::{Answer, Plan, QueryStream},
    script::{Statement, is_complete},
    session::Session,
    session_options::SessionOptions,
    table::StoreTable,
    view::{
        DimensionInfo, OnDimensionChange, RefreshKind, RefreshOptions, RefreshReport, ViewInfo,
        ViewProblems, ViewWriter, relations_of, with_files,
    },
};
