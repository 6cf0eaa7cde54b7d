//! The join: fact batches in, enriched batches out.

mod counters;
mod missing;
mod normalize;
mod output;
mod parse;
mod spec;
mod star;

pub use self::counters::JoinCounters;
pub use self::missing::{MISSING_KEYS_MAX, MissingKey, MissingKeys};
pub use self::normalize::Normalize;
pub use self::output::{ColumnPlan, Encoding, JoinPlan};
pub use self::spec::{JoinKind, JoinSpec, OnColumn, OnMiss, SelectColumn};
pub use self::star::{Collect, JoinTimes, Joined, Scratch, StarJoin};
