//! What a run has done.

use std::time::Duration;

use crate::{JoinCounters, JoinSpec, JoinTimes, MissingKeys};

/// What an enrichment has done.
#[derive(Clone, Debug, Default)]
pub struct EnrichReport {
    /// Fact rows read.
    pub num_rows_in: u64,
    /// Rows written.
    pub num_rows_out: u64,
    /// Bytes of input, as stored.
    pub num_bytes_in: u64,
    /// One entry per join, in order.
    pub joins: Vec<JoinReport>,
    /// How long its stages took.
    pub profile: Profile,
}

/// How long the stages of an enrichment took. Workers decode and join side by side: their times are added up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Profile {
    /// From the first piece to the last batch written.
    pub elapsed: Duration,
    /// Of all workers, to decode pieces of the input.
    pub decode: Duration,
    /// Of all workers, to join and to collect what was missed.
    pub join: Duration,
    /// What each join took of that; empty unless [profiled](crate::Enrichment::with_profile).
    pub joins: Vec<JoinTimes>,
    /// Of the calling thread, to write. Where the output's format is encoded by workers, it waits for them, who may have
    /// something else to end first.
    pub write: Duration,
    /// Pieces of the input.
    pub num_pieces: u64,
}

/// What one join of an enrichment has done.
#[derive(Clone, Debug)]
pub struct JoinReport {
    /// The join as planned.
    pub spec: JoinSpec,
    /// The commit that the dimension holds.
    pub version: u64,
    /// Rows of the dimension.
    pub num_dimension_rows: usize,
    /// The index layout and why it was chosen.
    pub layout: String,
    /// What happened to the rows.
    pub counters: JoinCounters,
    /// Keys that the dimension has not.
    pub missing_keys: MissingKeys,
}

impl JoinReport {
    /// Rows with a key that is not in the dimension, as a share of the rows that have a key. 0 without such rows.
    pub fn miss_rate(&self) -> f64 {
        let num_keys = self.counters.num_matched + self.counters.num_missed;
        if num_keys == 0 {
            return 0.0;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate needs no more than 52 bits"
        )]
        let rate = self.counters.num_missed as f64 / num_keys as f64;
        rate
    }
}
