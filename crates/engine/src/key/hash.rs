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

/// As [`hash_int`] in half of the time, for tables that are tried out: of each factor there are strides that it does not
/// spread well.
#[inline]
pub(crate) fn hash_int_once(key: i64, factor: u64) -> u64 {
    folded(key.cast_unsigned() ^ 0x243f_6a88_85a3_08d3, factor)
}

/// Factors for [`hash_int_once`]: 2^64 by the golden ratio, then digits of pi and its own.
pub(crate) const FACTORS: [u64; 4] = [
    0x9e37_79b9_7f4a_7c15,
    0xa409_3822_299f_31d1,
    0xf39c_c060_5ced_c835,
    0x1319_8a2e_0370_7345,
];

/// The bytes of a key, eight at a time, as `W` words whatever its length, with zeros after its end. Keys of one length, up
/// to `8 * W` bytes, have the same words only if they are the same.
///
/// With as many words as a key has, a processor would guess wrong at every other key where their end is, which costs more
/// than to load them.
#[inline]
pub(crate) fn words<const W: usize>(key: &[u8]) -> [u64; W] {
    let Some(last) = key.len().checked_sub(8) else {
        let mut words = [0; W];
        words[0] = short_word(key);
        return words;
    };
    std::array::from_fn(|idx| {
        // Those that the key ends before or in begin eight bytes before its end, and what is before them is shifted out.
        let start = (8 * idx).min(last);
        let word = key[start..].first_chunk();
        let word = word.map_or(0, |word| u64::from_le_bytes(*word));
        let num_before = 8 * idx - start;
        if num_before < 8 {
            word >> (8 * num_before)
        } else {
            0
        }
    })
}

/// The words of a key from bytes at whose beginning it stands, if they are as many as the words have.
#[inline]
pub(crate) fn words_before<const W: usize>(bytes: &[u8], len: usize) -> Option<[u64; W]> {
    const { assert!(8 * W <= WORD_BYTES_MAX) };
    let words: &[[u8; 8]; W] = bytes.as_chunks().0.first_chunk()?;
    let mask = &MASK[WORD_BYTES_MAX - len.min(WORD_BYTES_MAX)..];
    let mask: &[[u8; 8]; W] = mask.as_chunks().0.first_chunk()?;
    Some(std::array::from_fn(|idx| {
        u64::from_le_bytes(words[idx]) & u64::from_le_bytes(mask[idx])
    }))
}

/// The longest key of which all bytes are in words.
pub(crate) const WORD_BYTES_MAX: usize = 56;

/// Ones for the bytes of the longest key, then zeros: from the middle on, what a shorter one has.
static MASK: [u8; 2 * WORD_BYTES_MAX] = {
    let mut mask = [0; 2 * WORD_BYTES_MAX];
    let (ones, _) = mask.split_at_mut(WORD_BYTES_MAX);
    let mut at = 0;
    while at < ones.len() {
        ones[at] = u8::MAX;
        at += 1;
    }
    mask
};

/// Up to seven bytes, then zeros.
#[inline]
fn short_word(key: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        // What both have is the same.
        let [first, last] = [first, last].map(|half| u64::from(u32::from_le_bytes(*half)));
        return first | last << (8 * (key.len() - 4));
    }
    // Of up to three bytes the first, the middle and the last are all, some of them twice.
    let byte = |at: usize| {
        let byte = key.get(at).copied().unwrap_or_default();
        u64::from(byte) << (8 * at)
    };
    byte(0) | byte(key.len() / 2) | byte(key.len().saturating_sub(1))
}

/// Hashes a key that is more than its words.
pub(crate) fn hash_long(key: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x082e_fa98_ec4e_6c89).build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// More digits of pi.
const DIGITS: [(u64, u64); 4] = [
    (0x4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6c),
    (0xc0ac_29b7_c97c_50dd, 0x3f84_d5b5_b547_0917),
    (0x9216_d5d9_8979_fb1b, 0xd131_0ba6_98df_b5ac),
    (0xb8e1_afed_6a26_7e96, 0xba7c_9045_f12c_7f99),
];

/// Hashes a key of so many bytes, given its [`words`]: one, three, five or seven.
///
/// # Source
/// As for [`hash_int`]: folded multiplies, here of two words each, the length being the last.
#[inline]
pub(crate) fn hash_words<const W: usize>(words: &[u64; W], len: usize) -> u64 {
    const { assert!(W % 2 == 1 && W <= 7) };
    let mut all = 0_u64;
    for (pair, (first, second)) in DIGITS.into_iter().enumerate().take(W.div_ceil(2)) {
        let word = |idx: usize| words.get(idx).copied().unwrap_or(len as u64);
        all = folded(word(2 * pair) ^ first, word(2 * pair + 1) ^ second) ^ all.rotate_left(21);
    }
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
            for at in 0..len {
                let mut other = key.clone();
                other[at] = b'y';
                assert_eq!(words::<1>(&key) != words::<1>(&other), at < 8);
                assert_eq!(words::<3>(&key) != words::<3>(&other), at < 24);
                assert_eq!(words::<5>(&key) != words::<5>(&other), at < 40);
                assert_eq!(words::<7>(&key) != words::<7>(&other), at < 56);
            }
            // Bytes in order, and zeros after the end.
            let key: Vec<u8> = (1..).take(len).collect();
            let bytes = words::<7>(&key).map(u64::to_le_bytes);
            let bytes = bytes.as_flattened();
            let same = len.min(bytes.len());
            assert_eq!(bytes[..same], key[..same]);
            assert!(bytes[same..].iter().all(|byte| *byte == 0));
        }
    }

    /// Keys that differ little: their hashes share no more of either half than chance would have it.
    #[test]
    fn hashes_of_similar_keys_are_spread() {
        check::<1>(&[1, 3, 5, 8], |key| hash_words(&words::<1>(key), key.len()));
        check::<3>(&[1, 8, 9, 13, 16, 24], |key| {
            hash_words(&words::<3>(key), key.len())
        });
        check::<5>(&[1, 8, 20, 25, 33, 36, 40], |key| {
            hash_words(&words::<5>(key), key.len())
        });
        let seven = [1, 3, 8, 9, 13, 16, 24, 33, 40, 48, 49, 56];
        check::<7>(&seven, |key| hash_words(&words::<7>(key), key.len()));
        check::<7>(&[57, 64, 100], hash_long);
    }

    fn check<const W: usize>(lens: &[usize], hash: impl Fn(&[u8]) -> u64) {
        let mut keys = HashSet::new();
        for &len in lens {
            for number in 0..2_000_u64 {
                let digits = format!("{number:0len$}");
                let bytes = [number.to_le_bytes(), number.to_be_bytes()].concat();
                let mut bytes = bytes.repeat(len.div_ceil(16));
                bytes.truncate(len);
                keys.extend([digits.into_bytes(), bytes]);
            }
        }
        let places = 1 << 20;
        let (mut homes, mut tags) = (HashSet::new(), HashSet::new());
        for key in &keys {
            let hash = hash(key);
            homes.insert(home_slot(hash, places));
            tags.insert(low(u128::from(hash)) & (places as u64 - 1));
        }
        let number = |count: usize| f64::from(u32::try_from(count).unwrap());
        // So many of n places are taken, on average, by k keys: n (1 - exp(-k / n)).
        let (n, k) = (number(places), number(keys.len()));
        let chance = n * (1.0 - (-k / n).exp());
        for taken in [homes.len(), tags.len()] {
            let rest = (number(taken) - chance).abs();
            assert!(rest < 0.01 * chance, "{W} words: {taken} of about {chance}");
        }
    }
}
