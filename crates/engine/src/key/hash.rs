//! The two hash functions. Both have fixed seeds: the same data gives the same index in every run.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

/// Hashes an integer key. All bits of the result depend on all bits of the key, so that sequential
/// and strided keys (identifiers that count in thousands, timestamps at midnight) spread over the
/// slots.
///
/// # Source
/// The folded multiply of wyhash and foldhash: the two halves of a 128-bit product, combined.
#[inline]
pub(crate) fn hash_int(key: i64) -> u64 {
    // Digits of pi: constants without structure of their own.
    let product = u128::from(key.cast_unsigned() ^ 0x243f_6a88_85a3_08d3)
        * u128::from(0x1319_8a2e_0370_7345_u64);
    let folded = low(product) ^ high(product);
    let product = u128::from(folded) * u128::from(0xa409_3822_299f_31d1_u64);
    low(product) ^ high(product)
}

/// Hashes the bytes of a key.
#[inline]
pub(crate) fn hash_bytes(key: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x082e_fa98_ec4e_6c89).build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// The slot at which the search for a hash begins, in `0..num_slots`.
///
/// # Source
/// Lemire, "Fast Random Integer Generation in an Interval": the high half of a product instead of a
/// remainder, so that the number of slots need not be a power of two.
#[inline]
pub(crate) fn home_slot(hash: u64, num_slots: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the product is below num_slots * 2^64"
    )]
    let slot = high(u128::from(hash) * num_slots as u128) as usize;
    slot
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn low(product: u128) -> u64 {
    product as u64
}

#[inline]
fn high(product: u128) -> u64 {
    (product >> 64) as u64
}
