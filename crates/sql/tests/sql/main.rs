//! Tests of the store's tables in SQL.
#![expect(
    clippy::unwrap_used,
    reason = "test data is made from small numbers; helpers may unwrap"
)]

/// Runs the files below `slt/` on a store and on tables in memory: how to write one is said there.
mod files;

/// What the files' statements run on.
mod database;

/// How values are written in those files.
mod print;
