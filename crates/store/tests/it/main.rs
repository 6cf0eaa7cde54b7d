//! Integration tests of the store.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "test data is made from small numbers; helpers may unwrap"
)]

/// Stores of every format version are opened by this build.
mod formats;

/// What Tonbo gets right and wrong: the reason for the rules in `src/tonbo.rs`.
mod tonbo;

/// Random transactions, reopenings, checkpoints and readers, compared with a `BTreeMap`.
mod model;

/// What a caller may rely on: visibility, conflicts, errors.
mod store;

/// Every Arrow type goes in as a payload column and comes back.
mod types;

/// A small seeded generator of random numbers.
mod random;
