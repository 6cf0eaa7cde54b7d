//! The engine from outside: one binary for all integration tests.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "generators cast small numbers and name many types; helpers may unwrap and print the seed"
)]

mod allocation; // What joins ask of the allocator.
mod data; // Batches and seeded randomness that the source and sink tests share.
mod dimension; // Building, deletes, lookups, payload types, limits.
mod enrich; // The whole way: files in, files out, order, reports, loads.
mod generate; // Random columns of every key type.
mod hostile; // Damaged inputs of every format: an error or an answer, never a panic.
mod join; // The join equals the oracle.
mod keys; // Single claims about how keys compare.
mod oracle; // The nested-loop join.
mod sink; // What sinks write, how it appears, and what they refuse.
mod source; // What sources read, infer, and refuse.
mod spec; // The text form, names, errors.
mod unique; // Duplicate keys of a load.
