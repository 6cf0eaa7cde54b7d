//! One binary: each file says what belongs there.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap, as tests do"
)]

/// Tables that are made and dropped.
mod create;
/// A store in a session, and its answers.
mod fixture;
/// Lookups of single rows.
mod lookup;
/// Of `MERGE INTO`.
mod merge;
/// Older versions, and what has changed.
mod past;
/// Statements that change rows.
mod write;
