//! Keys of several columns as one number.
//!
//! ```text
//! key      (hour, airport)      hours 5 to 23 -> digits 0..19      EWR, JFK, LGA -> digits 0..3
//! number   digit of hour * 3 + digit of airport                    0..57
//! ```
//!
//! A number takes an integer's index, which is the fastest there is: an array of rows where most of the combinations are
//! keys, open addressing over numbers elsewhere. To encode several columns as bytes and to compare those takes several
//! times as long.

use std::collections::HashSet;

use arrow_array::{Array, ArrayRef};
use foldhash::fast::FixedState;

use super::form::Domain;
use super::int::to_ints;
use super::plan::{Conversion, PartPlan};
use crate::index::{ByteKeys, BytesIndex, Lengths, NO_MATCH, with_values};

/// How the columns of a key become one number from 0 on.
#[derive(Debug)]
pub(crate) struct Packing {
    digits: Vec<Digit>,
}

/// How one column becomes a digit, and what a step of it is worth.
#[derive(Debug)]
struct Digit {
    values: Values,
    /// So many digits there are, at least one.
    num_digits: u64,
    weight: i64,
}

/// The values of a column of the key, in the order of their digits.
#[derive(Debug)]
enum Values {
    /// Numbers that count up from the smallest key.
    Ints { min: i64 },
    /// The keys themselves.
    Bytes(BytesIndex),
}

/// Where a part of a key is none of the dimension's: no key is negative, and nothing that is added makes it positive.
const NO_KEY: i64 = i64::MIN;

impl Packing {
    /// Chooses digits for the values of these columns. `None` if the combinations of them are more than 63 bits count, or
    /// a column is neither of integers nor of bytes.
    ///
    /// # Shapes
    /// `columns`: for each column of the key its pages, plain and without nulls, each with its conversion.
    pub(super) fn choose(
        domains: &[Domain],
        columns: &[Vec<(&ArrayRef, Conversion)>],
    ) -> Option<Self> {
        let mut digits = Vec::with_capacity(domains.len());
        for (domain, pages) in domains.iter().zip(columns) {
            let digit = match domain {
                // In both the order of numbers is that of unsigned ones after this.
                Domain::Int64 => int_digit(pages, |value| value ^ i64::MIN),
                Domain::UInt64 => int_digit(pages, |value| value),
                Domain::Bytes => Some(bytes_digit(pages)),
                Domain::Wide => None,
            };
            digits.push(digit?);
        }
        let mut weight = 1_i64;
        for digit in digits.iter_mut().rev() {
            digit.weight = weight;
            let num_digits = i64::try_from(digit.num_digits).ok();
            weight = num_digits.and_then(|num| weight.checked_mul(num))?;
        }
        Some(Self { digits })
    }

    /// Brings plain columns into their numbers, negative where a column has a value that no key has. `misses` gets rows
    /// whose value not even the key's type holds.
    pub(super) fn encode(
        &self,
        parts: &[PartPlan],
        columns: &[ArrayRef],
        scratch: &mut PackScratch,
        misses: &mut Vec<u32>,
    ) {
        let PackScratch { keys, ints, rows } = scratch;
        keys.clear();
        keys.resize(columns.first().map_or(0, Array::len), 0);
        for ((digit, part), column) in self.digits.iter().zip(parts).zip(columns) {
            match (&digit.values, part.conversion) {
                (Values::Ints { min }, Conversion::Ints(conversion)) => {
                    let values = to_ints(column, conversion, ints, misses);
                    digit.add_ints(*min, values, keys);
                }
                (Values::Bytes(index), _) => {
                    rows.clear();
                    with_values!(column, keys => index.probe(keys, rows));
                    digit.add_rows(rows, keys);
                }
                (Values::Ints { .. }, _) => {
                    unreachable!("a column of integers has such a conversion, see `KeyForm::bind`")
                }
            }
        }
    }

    /// Bytes of what it keeps of the keys.
    pub(crate) fn num_bytes(&self) -> usize {
        let bytes = |digit: &Digit| match &digit.values {
            Values::Ints { .. } => 0,
            Values::Bytes(index) => index.num_bytes(),
        };
        self.digits.iter().map(bytes).sum()
    }
}

impl Digit {
    // Both loops are without branches: whether a value is one of the dimension's is as good as random.
    fn add_ints(&self, min: i64, values: &[i64], keys: &mut [i64]) {
        for (key, value) in keys.iter_mut().zip(values) {
            let digit = value.wrapping_sub(min);
            let is_one = digit.cast_unsigned() < self.num_digits;
            *key = if is_one {
                key.wrapping_add(digit.wrapping_mul(self.weight))
            } else {
                *key | NO_KEY
            };
        }
    }

    fn add_rows(&self, rows: &[u32], keys: &mut [i64]) {
        for (key, row) in keys.iter_mut().zip(rows) {
            let is_one = *row != NO_MATCH;
            *key = if is_one {
                key.wrapping_add(i64::from(*row).wrapping_mul(self.weight))
            } else {
                *key | NO_KEY
            };
        }
    }
}

/// What [`Packing::encode`] reuses from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct PackScratch {
    pub(super) keys: Vec<i64>,
    ints: Vec<i64>,
    rows: Vec<u32>,
}

/// `ordered` brings numbers into an order of unsigned ones.
fn int_digit(pages: &[(&ArrayRef, Conversion)], ordered: impl Fn(i64) -> i64) -> Option<Digit> {
    let ordered = |value: &i64| ordered(*value).cast_unsigned();
    let (mut ints, mut misses) = (Vec::new(), Vec::new());
    let mut bounds: Option<(i64, i64)> = None;
    for (column, conversion) in pages {
        let Conversion::Ints(conversion) = *conversion else {
            return None;
        };
        let values = to_ints(column, conversion, &mut ints, &mut misses);
        let ends = values.iter().copied();
        let (min, max) = (ends.clone().min_by_key(ordered), ends.max_by_key(ordered));
        let ends = bounds.into_iter().chain(min.zip(max));
        bounds = ends.reduce(|(least, most), (min, max)| {
            (
                std::cmp::min_by_key(least, min, ordered),
                std::cmp::max_by_key(most, max, ordered),
            )
        });
    }
    let (min, max) = bounds.unwrap_or_default();
    Some(Digit {
        values: Values::Ints { min },
        num_digits: max.wrapping_sub(min).cast_unsigned().checked_add(1)?,
        weight: 1,
    })
}

/// Numbers the values of a column in the order in which they first come.
fn bytes_digit(pages: &[(&ArrayRef, Conversion)]) -> Digit {
    let mut seen = HashSet::with_hasher(FixedState::with_seed(0));
    let mut distinct: Vec<&[u8]> = Vec::new();
    for (column, _) in pages {
        with_values!(column, keys => {
            let keys = (0..keys.len()).map(|at| keys.key(at));
            distinct.extend(keys.filter(|key| seen.insert(*key)));
        });
    }
    drop(seen);
    let mut index = BytesIndex::new(distinct.len(), Lengths::of(&distinct[..]));
    index.insert(&distinct[..], |_, _| ());
    index.settle(|_, _| ());
    Digit {
        values: Values::Bytes(index),
        num_digits: distinct.len().max(1) as u64,
        weight: 1,
    }
}
