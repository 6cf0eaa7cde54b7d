//! Tests of the store's tables in SQL.
#![expect(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "test data is made from small numbers; helpers may unwrap; seeds are printed"
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

/// Random numbers from a seed.
mod random;
