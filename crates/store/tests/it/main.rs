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

/// Flipped bits, cut files, and readers that leave a store as it is.
mod damage;

/// Disks that fail at every operation in turn.
mod faults;

/// Processes that are killed while they work.
mod kill;

/// Power loss at every operation, on a simulated disk.
mod power;

/// Stores of every format version are opened by this build.
mod formats;

/// What Tonbo gets right and wrong: the reason for the rules in `src/tonbo.rs`.
mod tonbo;

/// Random transactions, reopenings, checkpoints and readers, compared with a `BTreeMap`.
mod model;

/// Commits in the midst of a compaction.
mod compaction;

/// Verify, backup, restore, and the space that a store takes.
mod care;

/// What a caller may rely on: visibility, conflicts, errors.
mod store;

/// The example of a stream program, restarted anywhere.
mod fraud;

/// Every Arrow type goes in as a payload column and comes back.
mod types;

/// What these tests share with the long-running program.
#[path = "../support/mod.rs"]
mod support;
