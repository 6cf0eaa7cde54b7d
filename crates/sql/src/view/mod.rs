//! Materialized views: queries with groups whose result is kept up to date by new rows alone.
//!
//! ```text
//! new rows ── input of the aggregate: scan, filter, join with dimensions ── states of groups ─┐
//!                                                                                             ├─ merged, one commit
//!                                        states of the same groups, stored ───────────────────┘
//!
//! a query ── table of states ── values of states ── HAVING, expressions ── what the query does with them
//! ```
//!
//! `shape.rs` says which queries are such; the others are computed anew at each refresh, and say why. The states are
//! DataFusion's own, see `aggregation.rs`.

mod aggregation;
mod build;
mod changes;
mod define;
mod explain;
mod follow;
mod lookup;
mod names;
mod place;
mod prepared;
mod push;
mod query;
mod read;
mod refresh;
mod relation;
mod retract;
mod session;
mod shape;
mod sources;
mod statement;
mod stored;
mod verify;

pub use self::{
    explain::{DimensionInfo, ViewInfo},
    names::{relations_of, with_files},
    push::ViewWriter,
    refresh::{OnDimensionChange, RefreshKind, RefreshOptions, RefreshReport},
    verify::ViewProblems,
};
pub(crate) use self::{
    prepared::{ViewCache, provider},
    read::{Groups, MaterializedView},
    statement::{ViewNode, ViewStatement},
};
