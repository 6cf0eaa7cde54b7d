//! Tests of the store's tables in SQL.
#![expect(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "test data is made from small numbers; helpers may unwrap and print the seed"
)]

/// Runs the files below `slt/` on a store and on tables in memory: how to write one is said there.
mod files;

/// What the files' statements run on.
mod database;

/// How values are written in those files.
mod print;

/// Random queries on random tables, against DataFusion's own tables.
mod scan;

/// What scans read and what they leave out.
mod metrics;

/// Writers beside queries.
mod pin;

/// Joins by lookup: when a join is one, and what it does then.
mod lookup_join;

/// The rows of DataFusion's own joins, for random tables, keys and conditions.
mod lookup_join_random;

/// Random numbers from a seed.
mod random;

/// Stores, sessions and their answers, for tests that are not files.
mod support;

/// A store in a session, and its answers, for statements that write.
mod fixture;

/// Tables that are made and dropped.
mod create;

/// Lookups of single rows.
mod lookup;

/// Of `MERGE INTO`.
mod merge;

/// Older versions, and what has changed.
mod past;

/// Materialized views, against their queries as plain SQL.
mod view;

/// Statements that change rows.
mod write;

/// The queries of TPC-H, with all tables but the largest in a store.
mod tpch;
