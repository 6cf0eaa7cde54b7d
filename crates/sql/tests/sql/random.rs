use std::ops::Range;

/// A small generator (xorshift64*) with a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(crate) fn int(&mut self, range: Range<i64>) -> i64 {
        let len = range.end.abs_diff(range.start);
        let offset = self.next() % len;
        range.start + i64::try_from(offset).unwrap()
    }

    pub(crate) fn pick<'v, T>(&mut self, values: &'v [T]) -> &'v T {
        let at = self.int(0..i64::try_from(values.len()).unwrap());
        &values[usize::try_from(at).unwrap()]
    }

    /// A number below `bound`.
    pub(crate) fn number(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A position below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn is_one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn chance(&mut self, percent: i64) -> bool {
        self.int(0..100) < percent
    }
}

/// The seed of a test: `DARNER_SEED`, or else one of its own. Printed, so that a failure shows it.
pub(crate) fn seed(of_test: u64) -> u64 {
    let seed = std::env::var("DARNER_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(of_test);
    println!("DARNER_SEED={seed}");
    seed
}
