//! Random numbers from a seed, so that a failure can be repeated with `DARNER_SEED=<seed>`.

/// A xorshift generator.
pub(crate) struct Random(u64);

impl Random {
    /// The seed of this run: from the environment, or the given one. It is printed, so that a failure shows it.
    pub(crate) fn seed(default: u64) -> u64 {
        let given = std::env::var("DARNER_SEED").ok();
        let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or(default);
        println!("DARNER_SEED={seed}");
        seed
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
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 11) % bound as u64).unwrap()
    }

    pub(crate) fn is_one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}
