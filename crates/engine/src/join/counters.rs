use std::ops::AddAssign;

/// What one join did with the rows that reached it. Add those of batches with `+=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounters {
    /// Rows probed: those that the joins before kept.
    pub num_rows: u64,
    /// Rows with a match.
    pub num_matched: u64,
    /// Rows with a key that the dimension has not. Null keys are counted apart.
    pub num_missed: u64,
    /// Rows with a null in the key.
    pub num_null_keys: u64,
}

impl JoinCounters {
    /// Matched rows per row that has a key; 1 if none has.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate of 53 bits is exact enough"
    )]
    pub fn match_rate(&self) -> f64 {
        let num_keys = self.num_matched + self.num_missed;
        if num_keys == 0 {
            1.0
        } else {
            self.num_matched as f64 / num_keys as f64
        }
    }
}

impl AddAssign for JoinCounters {
    fn add_assign(&mut self, other: Self) {
        self.num_rows += other.num_rows;
        self.num_matched += other.num_matched;
        self.num_missed += other.num_missed;
        self.num_null_keys += other.num_null_keys;
    }
}
