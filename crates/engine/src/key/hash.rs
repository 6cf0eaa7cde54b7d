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
    let key = key.cast_unsigned() ^ 0x243f_6a88_85a3_08d3;
    folded(folded(key, 0x1319_8a2e_0370_7345), 0xa409_3822_299f_31d1)
}

/// Keys of up to so many bytes are hashed as [`words`].
const WORDS_BYTES_MAX: usize = 48;

/// The bytes of a key of 8 to 48 bytes, eight at a time; what the last words have twice is no harm. Keys of one length
/// have the same words if they are the same.
///
/// The number of words is always the same: with as many as a key has, a processor would guess wrong at every other key
/// where their end is, which costs more than to hash it.
#[inline]
fn words(key: &[u8]) -> Option<[u64; 6]> {
    let last = key.len().checked_sub(8)?;
    if key.len() > WORDS_BYTES_MAX {
        return None;
    }
    let word = |at: usize| Some(u64::from_le_bytes(*key.get(at.min(last)..)?.first_chunk()?));
    Some([
        word(0)?,
        word(8)?,
        word(16)?,
        word(24)?,
        word(32)?,
        word(40)?,
    ])
}

/// Hashes the bytes of a key.
#[inline]
pub(crate) fn hash_bytes(key: &[u8]) -> u64 {
    match words(key) {
        Some(words) => hash_words(words, key.len()),
        None => hash_any(key),
    }
}

fn hash_any(key: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x082e_fa98_ec4e_6c89).build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// # Source
/// As for [`hash_int`]: folded multiplies, here of two words each.
#[inline]
fn hash_words(words: [u64; 6], len: usize) -> u64 {
    // More digits of pi.
    let pair =
        |at: usize, first: u64, second: u64| folded(words[at] ^ first, words[at + 1] ^ second);
    let first = pair(0, 0x4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6c);
    let second = pair(2, 0xc0ac_29b7_c97c_50dd, 0x3f84_d5b5_b547_0917);
    let third = pair(4, 0x9216_d5d9_8979_fb1b, 0xd131_0ba6_98df_b5ac);
    let all = first ^ second.rotate_left(21) ^ third.rotate_left(42) ^ len as u64;
    folded(all, 0x2ffd_72db_d01a_dfb7)
}

/// The two halves of a product, combined.
#[inline]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    low(product) ^ high(product)
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_tell_keys_of_one_length_apart() {
        for len in 0..=60 {
            let key = vec![b'x'; len];
            assert_eq!(words(&key).is_some(), (8..=48).contains(&len));
            for at in 0..len {
                let mut other = key.clone();
                other[at] = b'y';
                assert!(words(&key).is_none() || words(&key) != words(&other));
            }
        }
    }

    /// Keys that differ little: their hashes share no more of either half than chance would have it.
    #[test]
    fn hashes_of_similar_keys_are_spread() {
        let mut keys = HashSet::new();
        for len in [1, 3, 8, 9, 13, 16, 24, 33, 40, 48, 49, 64] {
            for number in 0..2_000_u64 {
                let digits = format!("{number:0len$}");
                let bytes = [number.to_le_bytes(), number.to_be_bytes()].concat();
                keys.extend([digits.into_bytes(), bytes.repeat(len.div_ceil(16))]);
            }
        }
        let places = 1 << 20;
        let (mut homes, mut tags) = (HashSet::new(), HashSet::new());
        for key in &keys {
            let hash = hash_bytes(key);
            homes.insert(home_slot(hash, places));
            tags.insert(low(u128::from(hash)) & (places as u64 - 1));
        }
        let number = |count: usize| f64::from(u32::try_from(count).unwrap());
        // So many of n places are taken, on average, by k keys: n (1 - exp(-k / n)).
        let (n, k) = (number(places), number(keys.len()));
        let chance = n * (1.0 - (-k / n).exp());
        for taken in [homes.len(), tags.len()] {
            let rest = (number(taken) - chance).abs();
            assert!(rest < 0.01 * chance, "{taken} of about {chance}");
        }
    }
}
