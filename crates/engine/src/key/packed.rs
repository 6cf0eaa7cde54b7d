//! Keys of several columns as one number.
//!
//! ```text
//! key      (hour, airport)      hours 5 to 23 -> digits 0..19      EWR, JFK, LGA -> digits 0..3
//! number   digit of hour * 3 + digit of airport                    0..57
//! ```
//!
//! The digit of the column that comes first in the key counts most, or that of the first one by which rows are in order: then
//! rows in the order of all columns are in that of their numbers, for which there is an index of their own.
//!
//! A number takes an integer's index, which is the fastest there is: an array of rows where most of the combinations are
//! keys, open addressing over numbers elsewhere. To encode several columns as bytes and to compare those takes several
//! times as long.

use std::collections::HashSet;
use std::hint::select_unpredictable;

use arrow_array::ArrayRef;
use foldhash::fast::FixedState;

use super::form::Domain;
use super::int::to_ints;
use super::plan::{Conversion, PartPlan};
use crate::index::{ByteKeys, BytesIndex, Lengths, NO_MATCH, with_values};

/// How the columns of a key become one number from 0 on.
#[derive(Debug)]
pub(crate) struct Packing {
    /// Those that count most come first.
    digits: Vec<Digit>,
}

/// How one column becomes a digit, and what a step of it is worth.
#[derive(Debug)]
struct Digit {
    /// The place of the column in the key.
    column: usize,
    values: Values,
    /// So many digits there are, at least one.
    num_digits: u64,
    weight: i64,
    /// Whether no row has a smaller one than the row before.
    is_ascending: bool,
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
        for (column, (domain, pages)) in domains.iter().zip(columns).enumerate() {
            let digit = match domain {
                // In both the order of numbers is that of unsigned ones after this.
                Domain::Int64 => int_digit(column, pages, |value| value ^ i64::MIN),
                Domain::UInt64 => int_digit(column, pages, |value| value),
                Domain::Bytes => Some(bytes_digit(column, pages)),
                Domain::Wide => None,
            };
            digits.push(digit?);
        }
        if let Some(first) = digits.iter().position(|digit| digit.is_ascending) {
            digits[..=first].rotate_right(1);
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
        for digit in &self.digits {
            let column = &columns[digit.column];
            match (&digit.values, parts[digit.column].conversion) {
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
    fn add_ints(&self, min: i64, values: &[i64], keys: &mut Vec<i64>) {
        let numbers = values.iter().map(|value| {
            let digit = value.wrapping_sub(min);
            let is_one = digit.cast_unsigned() < self.num_digits;
            self.number(is_one, digit)
        });
        add(numbers, keys);
    }

    fn add_rows(&self, rows: &[u32], keys: &mut Vec<i64>) {
        let numbers = rows.iter();
        let numbers = numbers.map(|row| self.number(*row != NO_MATCH, i64::from(*row)));
        add(numbers, keys);
    }

    /// What a digit, if it `is_one`, adds to the number of a key.
    #[inline]
    fn number(&self, is_one: bool, digit: i64) -> i64 {
        // Without a branch: whether a value is one of the dimension's is as good as random.
        select_unpredictable(is_one, digit.wrapping_mul(self.weight), NO_KEY)
    }
}

/// Adds what each key has of one more column; the first begins them.
#[inline]
fn add(numbers: impl Iterator<Item = i64>, keys: &mut Vec<i64>) {
    if keys.is_empty() {
        keys.extend(numbers);
        return;
    }
    for (key, number) in keys.iter_mut().zip(numbers) {
        // A key that is none stays that, whatever is added.
        *key = key.wrapping_add(number & !NO_KEY) | (number & NO_KEY);
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
fn int_digit(
    column: usize,
    pages: &[(&ArrayRef, Conversion)],
    ordered: impl Fn(i64) -> i64,
) -> Option<Digit> {
    let ordered = |value: &i64| ordered(*value).cast_unsigned();
    let (mut ints, mut misses) = (Vec::new(), Vec::new());
    let (mut is_ascending, mut before) = (true, 0);
    let mut bounds: Option<(i64, i64)> = None;
    for (page, conversion) in pages {
        let Conversion::Ints(conversion) = *conversion else {
            return None;
        };
        let values = to_ints(page, conversion, &mut ints, &mut misses);
        is_ascending = is_ascending
            && values.iter().all(|value| {
                let value = ordered(value);
                std::mem::replace(&mut before, value) <= value
            });
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
        column,
        values: Values::Ints { min },
        num_digits: max.wrapping_sub(min).cast_unsigned().checked_add(1)?,
        weight: 1,
        is_ascending,
    })
}

/// Numbers the values of a column in the order in which they first come.
fn bytes_digit(column: usize, pages: &[(&ArrayRef, Conversion)]) -> Digit {
    let mut seen = HashSet::with_hasher(FixedState::with_seed(0));
    let mut distinct: Vec<&[u8]> = Vec::new();
    let mut is_ascending = true;
    for (page, _) in pages {
        with_values!(page, keys => {
            for key in (0..keys.len()).map(|at| keys.key(at)) {
                if distinct.last() == Some(&key) {
                    continue;
                }
                if seen.insert(key) {
                    distinct.push(key);
                } else {
                    is_ascending = false;
                }
            }
        });
    }
    drop(seen);
    let mut index = BytesIndex::new(distinct.len(), Lengths::of(&distinct[..]));
    index.insert(&distinct[..], |_, _| ());
    index.settle(|_, _| ());
    index.finish();
    Digit {
        column,
        values: Values::Bytes(index),
        num_digits: distinct.len().max(1) as u64,
        weight: 1,
        is_ascending,
    }
}
