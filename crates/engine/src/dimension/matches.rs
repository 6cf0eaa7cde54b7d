use arrow_array::ArrayRef;
use arrow_buffer::NullBuffer;

use crate::index::NO_MATCH;
use crate::key::KeyScratch;

/// The result of a probe, and its buffers: reuse one for many probes.
#[derive(Debug, Default)]
pub struct Matches {
    pub(super) build_idx: Vec<u32>,
    pub(super) nulls: Option<NullBuffer>,
    pub(super) scratch: KeyScratch,
    pub(super) dictionary: Option<SeenDictionary>,
    num_matched: usize,
}

/// A dictionary that the last keys had. Batches of one file share theirs, so that it is worth remembering.
#[derive(Debug)]
pub(super) struct SeenDictionary {
    /// The dimension that was probed, see [`Dimension`](crate::Dimension).
    pub(super) dimension: u64,
    /// Held, so that no other array comes to stand where it is.
    pub(super) values: ArrayRef,
    /// Keys of it that came so far.
    pub(super) num_keys: usize,
    /// The build row of each value, once as many keys came as there are values.
    pub(super) rows: Option<Vec<u32>>,
}

impl Matches {
    /// The build row of every key, [`NO_MATCH`] where there is none.
    pub fn build_idx(&self) -> &[u32] {
        &self.build_idx
    }

    /// The number of keys with a build row.
    pub fn num_matched(&self) -> usize {
        self.num_matched
    }

    /// The number of keys with a null part. They have no build row.
    pub fn num_null_keys(&self) -> usize {
        self.nulls.as_ref().map_or(0, NullBuffer::null_count)
    }

    /// The number of keys without a null part and without a build row.
    pub fn num_missed(&self) -> usize {
        self.build_idx.len() - self.num_matched - self.num_null_keys()
    }

    /// Whether the key at a row has a null part.
    pub fn is_null_key(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Says which keys are null, where that is not what the probe saw.
    pub(crate) fn set_nulls(&mut self, nulls: Option<NullBuffer>) {
        self.nulls = nulls;
    }

    pub(super) fn count(&mut self) {
        self.num_matched = self
            .build_idx
            .iter()
            .filter(|&&row| row != NO_MATCH)
            .count();
    }

    /// Keeps the build rows at these places alone. Counts stay what the probe found.
    pub(crate) fn keep(&mut self, kept: &[u32]) {
        // `kept` ascends, so that no place is overwritten before it is read.
        for (to, &from) in kept.iter().enumerate() {
            self.build_idx[to] = self.build_idx[from as usize];
        }
        self.build_idx.truncate(kept.len());
    }
}
