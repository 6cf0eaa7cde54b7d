//! Keys that are evenly spaced: hours as nanoseconds, every thousandth number.

/// What all distances between keys are multiples of.
///
/// Whether a distance is one, and which, takes a multiplication and a rotation instead of a division. Multiples of an odd
/// number are told apart by its inverse modulo 2^64: it maps the multiples to 0, 1, 2 and so on, and all other numbers
/// to those that are left, which are larger than any quotient. The power of two in an even number is what the rotation
/// takes away: bits that are not zero come to stand at the top (Granlund and Montgomery 1994, "Division by invariant
/// integers using multiplication").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stride {
    inverse: u64,
    num_twos: u32,
}

impl Stride {
    /// `size` is not 0.
    pub(crate) fn new(size: u64) -> Self {
        let num_twos = size.trailing_zeros();
        let odd = size >> num_twos;
        // The three lowest bits of the inverse are those of the number; each round doubles them.
        let mut inverse = odd;
        for _ in 0..5 {
            let error = odd.wrapping_mul(inverse);
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(error));
        }
        Self { inverse, num_twos }
    }

    /// Which multiple a distance is; if it is none, a number past the largest quotient that a distance can have.
    #[inline]
    pub(crate) fn quotient(self, distance: u64) -> u64 {
        distance
            .wrapping_mul(self.inverse)
            .rotate_right(self.num_twos)
    }
}

/// How keys are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) min: i64,
    pub(crate) max: i64,
    /// The greatest common divisor of all distances; 0 if there are none.
    pub(crate) stride: u64,
    /// Whether each key is larger than the one before.
    pub(crate) is_ascending: bool,
}

impl Spread {
    /// That of some keys; `None` of none.
    pub(crate) fn of(keys: &[i64]) -> Option<Self> {
        let (first, rest) = keys.split_first()?;
        let (min, max) = rest.iter().fold((*first, *first), |(min, max), &key| {
            (min.min(key), max.max(key))
        });
        let mut stride = 0;
        for key in rest {
            // Most keys have no stride, and say so soon.
            if stride == 1 {
                break;
            }
            let distance = key.abs_diff(*first);
            if stride == 0 || distance % stride != 0 {
                stride = common_divisor(stride, distance);
            }
        }
        let is_ascending = keys.is_sorted_by(|a, b| a < b);
        Some(Self {
            min,
            max,
            stride,
            is_ascending,
        })
    }

    /// That of these keys and others after them.
    pub(crate) fn and(self, other: Self) -> Self {
        let apart = self.min.abs_diff(other.min);
        let stride = common_divisor(self.stride, other.stride);
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            stride: common_divisor(stride, apart),
            is_ascending: self.is_ascending && other.is_ascending && self.max < other.min,
        }
    }

    /// How many keys there could be.
    pub(crate) fn num_places(self) -> u128 {
        let distance = self.max.abs_diff(self.min);
        u128::from(distance / self.stride.max(1)) + 1
    }
}

/// The greatest common divisor; of 0 and a number that number.
fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_divisions() {
        let sizes = [1, 2, 3, 7, 8, 10, 24, 1000, 1 << 40, 3_600_000_000_000];
        let large = [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1];
        for size in sizes.into_iter().chain(large) {
            let stride = Stride::new(size);
            let largest = u64::MAX / size;
            let near = (0..50_u64).flat_map(|i| {
                let last = (largest * size).saturating_sub(i);
                [i, size.saturating_add(i), u64::MAX - i, last]
            });
            let multiples = (0..=largest).take(50).map(|i| i * size);
            for distance in near.chain(multiples) {
                let quotient = stride.quotient(distance);
                if distance % size == 0 {
                    assert_eq!(quotient, distance / size, "{distance} by {size}");
                } else {
                    assert!(quotient > largest, "{distance} by {size}: {quotient}");
                }
            }
        }
    }

    #[test]
    fn spreads_are_found_whole_and_in_parts() {
        let spread = |min, max, stride, is_ascending| {
            Some(Spread {
                min,
                max,
                stride,
                is_ascending,
            })
        };
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[5, 5]), spread(5, 5, 0, false));
        assert_eq!(Spread::of(&[7, -8, 22]), spread(-8, 22, 15, false));
        assert_eq!(
            Spread::of(&[i64::MIN, i64::MAX]),
            spread(i64::MIN, i64::MAX, u64::MAX, true)
        );
        assert_eq!(Spread::of(&[i64::MAX, i64::MIN]).unwrap().num_places(), 2);
        let keys: Vec<i64> = (0..1000).map(|i| (i * 7919 % 1000) * 48 - 5000).collect();
        let whole = Spread::of(&keys).unwrap();
        assert_eq!(
            whole,
            Spread {
                min: -5000,
                max: 999 * 48 - 5000,
                stride: 48,
                is_ascending: false,
            }
        );
        for at in [1, 2, 500, 999] {
            let (left, right) = keys.split_at(at);
            let (left, right) = (Spread::of(left).unwrap(), Spread::of(right).unwrap());
            assert_eq!(left.and(right), whole);
        }
        for (keys, is_ascending) in [
            (&[1, 2, 3, 9, 10, 12][..], true),
            (&[1, 2, 3, 3, 10, 12], false),
            (&[1, 2, 9, 3, 10, 12], false),
        ] {
            assert_eq!(Spread::of(keys).unwrap().is_ascending, is_ascending);
            for at in 1..keys.len() {
                let (left, right) = keys.split_at(at);
                let (left, right) = (Spread::of(left).unwrap(), Spread::of(right).unwrap());
                assert_eq!(left.and(right).is_ascending, is_ascending, "{keys:?}");
            }
        }
    }
}
