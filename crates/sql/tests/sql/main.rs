//! One binary: each file says what belongs there.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap, as tests do"
)]

/// Tables that are made and dropped.
mod create;
/// A store in a session, and its answers.
mod fixture;
/// Of `MERGE INTO`.
mod merge;
/// Statements that change rows.
mod write;
