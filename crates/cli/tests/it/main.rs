//! The program from outside: what is typed, what comes out, what is left behind.
#![expect(
    clippy::format_collect,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tests list many cases, make small texts, and their helpers may unwrap"
)]

/// A directory with a store, and how to run the program in it.
mod place;

/// Each command on small tables.
mod commands;

/// SQL: statements, files in FROM, outputs, what is allowed to whom.
mod sql;

/// Older versions: history, reading as of, changes, retention, compaction.
mod past;

/// Keyed state on the command line.
mod state;

/// Materialized views.
mod view;

/// Verify, backup, restore, and what is said of the store as a whole.
mod care;

/// `kill -9`, closed pipes, signals, full disks: what is left is whole.
mod crash;

/// The job on real data: its answers are DuckDB's.
mod flights;

/// What a job does, in which order, and what it says before.
mod jobs;

/// Jobs whose output is a directory: resumed, skipped, split.
mod directory;

/// What it is like to use: guessed jobs, manuals, notes, metrics.
mod feel;

/// What becomes of keys and misses, and what must hold of an output.
mod contract;

/// Whole sessions, as they look.
mod transcripts;

/// Files in object stores and on web servers.
mod remote;

/// Views that jobs keep, on files that arrive one after the other.
mod days;

/// Wrong use: one clear message, the right exit code, nothing left behind.
mod misuse;
