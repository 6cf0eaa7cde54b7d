//! Random numbers from a seed, so that a failure can be repeated with `DARNER_SEED=<seed>`.

/// A xorshift generator.
pub(crate) struct Random(u64);

impl Random {
    /// The seed of this run: from the environment, or the given one. A test prints it when it fails.
    pub(crate) fn seed(default: u64) -> u64 {
        std::env::var("DARNER_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(default)
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}
