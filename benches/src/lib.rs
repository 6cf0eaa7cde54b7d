//! What the benchmarks have in common: seeded data, described as cases, and facts about the machine.

use std::{fmt, path::Path, sync::Arc};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type},
};
use darner_engine::{Dimension, DimensionBuilder, Result, SourceOptions, open_all};
use rayon::prelude::*;

/// Rows of a fact batch.
pub const BATCH_ROWS: usize = 64 * 1024;

/// A generator of numbers from a seed (`SplitMix64`).
pub struct Random(u64);

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number from 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a float")]
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The key of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Int64, counting up from 0, row after row.
    Dense,
    /// The same, each two rows the other way round, so that they are in no order.
    Unordered,
    /// Int64, in order, one in seven.
    Gaps,
    /// Int64, all over 64 bits.
    Sparse,
    /// Strings of 8 to 40 bytes.
    Text,
    /// An int64 and a string; neither is a key alone.
    Pair,
    /// As `Text`; the facts have them dictionary-encoded.
    Dictionary,
}

/// How often facts ask for which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// All keys as often.
    Uniform,
    /// A key's share falls with its rank: the first of a million as often as the last 600,000 together.
    Zipf,
}

/// A dimension and what facts ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The kind of key.
    pub keys: Keys,
    /// Rows of the dimension.
    pub num_rows: usize,
    /// How many of 100 facts have a match.
    pub match_percent: u64,
    /// How many of 100 facts have a null for a key.
    pub null_percent: u64,
    /// Which keys they have.
    pub skew: Skew,
}

impl Case {
    /// Facts that all have a match, uniformly.
    pub fn new(keys: Keys, num_rows: usize) -> Self {
        Self {
            keys,
            num_rows,
            match_percent: 100,
            null_percent: 0,
            skew: Skew::Uniform,
        }
    }

    /// The join of these facts with this dimension, which is called `d`.
    pub fn on(self) -> &'static str {
        match self.keys {
            Keys::Pair => "d on key = id, part",
            _ => "d on key = id",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match self.keys {
            Keys::Dense => "int64 dense",
            Keys::Unordered => "int64 dense, no order",
            Keys::Gaps => "int64 with gaps",
            Keys::Sparse => "int64 sparse",
            Keys::Text => "utf8",
            Keys::Pair => "int64 + utf8",
            Keys::Dictionary => "dictionary",
        };
        match self.num_rows {
            rows if rows >= 1_000_000 => write!(f, "{keys} {}M", rows / 1_000_000)?,
            rows => write!(f, "{keys} {}K", rows / 1_000)?,
        }
        if self.match_percent < 100 {
            write!(f, ", {}% match", self.match_percent)?;
        }
        if self.null_percent > 0 {
            write!(f, ", {}% null", self.null_percent)?;
        }
        match self.skew {
            Skew::Uniform => Ok(()),
            Skew::Zipf => f.write_str(", zipf"),
        }
    }
}

/// Keys per part of a pair.
const PART_KEYS: u64 = 1_000;

/// The string of a key's number: letters that look random, then the number.
fn text(number: u64) -> String {
    let mut random = Random::new(number);
    let num_letters = random.below(33);
    let letters =
        (0..num_letters).map(|_| char::from(b'a' + u8::try_from(random.below(26)).unwrap_or(0)));
    format!("{}{number:08x}", letters.collect::<String>())
}

/// The key columns of keys with these numbers; the first is called by the name given.
fn key_columns(
    keys: Keys,
    name: &'static str,
    numbers: &[Option<u64>],
) -> Vec<(&'static str, ArrayRef)> {
    let ints = |of: fn(u64) -> u64| -> ArrayRef {
        let values = numbers
            .iter()
            .map(|number| number.map(|n| of(n).cast_signed()));
        Arc::new(values.collect::<Int64Array>())
    };
    match keys {
        Keys::Dense => vec![(name, ints(|n| n))],
        Keys::Unordered => vec![(name, ints(|n| n ^ 1))],
        // At any place of its seven, so that there is no stride.
        Keys::Gaps => vec![(name, ints(|n| n * 7 + mix(n) % 7))],
        // To multiply by an odd number keeps numbers apart.
        Keys::Sparse => vec![(name, ints(|n| n.wrapping_mul(0x2545_F491_4F6C_DD1D)))],
        Keys::Text | Keys::Dictionary => {
            let texts = numbers.iter().map(|number| number.map(text));
            vec![(name, Arc::new(texts.collect::<StringArray>()))]
        }
        Keys::Pair => {
            let parts = numbers
                .iter()
                .map(|number| number.map(|n| format!("part {}", n / PART_KEYS)));
            vec![
                (name, ints(|n| n % PART_KEYS)),
                ("part", Arc::new(parts.collect::<StringArray>())),
            ]
        }
    }
}

/// The rows of a dimension: its key (`id`, and `part` for pairs) and three payload columns, two strings and a float.
///
/// # Panics
/// Never: the columns have one length.
pub fn dimension(keys: Keys, num_rows: usize) -> RecordBatch {
    let ids = 0..num_rows as u64;
    let numbers: Vec<Option<u64>> = ids.clone().map(Some).collect();
    let mut columns = key_columns(keys, "id", &numbers);
    let names = ids.clone().map(|id| Some(format!("name of {id}")));
    columns.push(("name", Arc::new(names.collect::<StringArray>())));
    let groups = ids.clone().map(|id| Some(format!("g{}", id % 97)));
    columns.push(("group", Arc::new(groups.collect::<StringArray>())));
    columns.push(("weight", Arc::new(ids.map(half).collect::<Float64Array>())));
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// A dimension of such rows, ready to be probed.
///
/// # Errors
/// None: the rows are fit.
pub fn build(keys: Keys, rows: &RecordBatch) -> Result<Dimension> {
    let key: &[&str] = match keys {
        Keys::Pair => &["id", "part"],
        _ => &["id"],
    };
    let key: Vec<String> = key.iter().map(ToString::to_string).collect();
    let mut builder = DimensionBuilder::new("d", rows.schema(), &key)?;
    builder.upsert(rows.clone())?;
    builder.finish()
}

/// Facts, and what a join of them must say.
pub struct Facts {
    /// The key (`key`, and `part` for pairs), a quantity and an amount.
    pub batches: Vec<RecordBatch>,
    /// Rows that have a match.
    pub num_matched: u64,
    /// The sum of `weight` over them.
    pub weight: f64,
}

/// Facts for a case.
///
/// # Panics
/// Never: the columns have one length.
pub fn facts(case: Case, num_facts: usize, seed: u64) -> Facts {
    let mut random = Random::new(seed);
    let num_keys = case.num_rows as u64;
    let mut facts = Facts {
        batches: Vec::new(),
        num_matched: 0,
        weight: 0.0,
    };
    // Facts that have their keys in a dictionary have one of the whole dimension, and of as many keys that it has not.
    let values = (case.keys == Keys::Dictionary).then(|| {
        let texts = (0..2 * num_keys).map(|number| Some(text(number)));
        Arc::new(texts.collect::<StringArray>())
    });
    for start in (0..num_facts).step_by(BATCH_ROWS) {
        let num_rows = BATCH_ROWS.min(num_facts - start);
        let mut numbers = Vec::with_capacity(num_rows);
        for _ in 0..num_rows {
            let number = pick(case.skew, num_keys, &mut random);
            let number = match random.below(100) {
                chance if chance < case.null_percent => None,
                chance if chance < case.null_percent + 100 - case.match_percent => {
                    Some(number + num_keys)
                }
                _ => {
                    facts.num_matched += 1;
                    facts.weight += half(number);
                    Some(number)
                }
            };
            numbers.push(number);
        }
        let mut columns = match &values {
            Some(values) => {
                let keys = numbers
                    .iter()
                    .map(|n| n.map(|n| i32::try_from(n).unwrap_or(0)));
                let keys = keys.collect::<arrow_array::Int32Array>();
                let values: ArrayRef = Arc::clone(values) as ArrayRef;
                let column = DictionaryArray::<Int32Type>::new(keys, values);
                vec![("key", Arc::new(column) as ArrayRef)]
            }
            None => key_columns(case.keys, "key", &numbers),
        };
        let amounts = numbers.iter().map(|number| half(number.unwrap_or(0)));
        columns.push((
            "quantity",
            Arc::new(
                numbers
                    .iter()
                    .map(|n| n.map(u64::cast_signed))
                    .collect::<Int64Array>(),
            ),
        ));
        columns.push(("amount", Arc::new(amounts.collect::<Float64Array>())));
        facts
            .batches
            .push(RecordBatch::try_from_iter(columns).expect("columns of one length"));
    }
    facts
}

fn pick(skew: Skew, num_keys: u64, random: &mut Random) -> u64 {
    match skew {
        Skew::Uniform => random.below(num_keys),
        Skew::Zipf => {
            // The logarithm of a rank whose share is one by the rank is uniform.
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "numbers of keys are small"
            )]
            let rank = ((num_keys as f64).powf(random.share()) as u64).min(num_keys) - 1;
            // Keys that are asked for often do not stand side by side.
            mix(rank) % num_keys
        }
    }
}

/// What `weight` is for the number of a key.
pub fn half(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "numbers of keys are small")]
    let half = number as f64 / 2.0;
    half
}

/// The sum of a float column's values that are not null, as plain floats or as a dictionary.
///
/// # Panics
/// If it is neither.
pub fn sum(column: &ArrayRef) -> f64 {
    use arrow_array::cast::{AsArray, as_primitive_array};
    use arrow_array::types::Float64Type;
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        let values = as_primitive_array::<Float64Type>(dictionary.values());
        let keys = dictionary.normalized_keys();
        let rows = keys.iter().enumerate();
        rows.filter(|&(row, &key)| dictionary.is_valid(row) && values.is_valid(key))
            .map(|(_, &key)| values.value(key))
            .sum()
    } else {
        as_primitive_array::<Float64Type>(column)
            .iter()
            .flatten()
            .sum()
    }
}

/// Adds up every value of a batch of two int64 and a float64, of this its bits.
#[must_use]
pub fn sum_bits(all: u64, batch: &RecordBatch) -> u64 {
    let ints = |column: usize| {
        let values = batch.column(column).as_primitive::<Int64Type>().values();
        values
            .iter()
            .fold(0, |sum: i64, value| sum.wrapping_add(*value))
    };
    let floats = batch.column(2).as_primitive::<Float64Type>().values();
    let bits = floats
        .iter()
        .fold(0, |sum: u64, value| sum.wrapping_add(value.to_bits()));
    all.wrapping_add(ints(0).cast_unsigned())
        .wrapping_add(ints(1).cast_unsigned())
        .wrapping_add(bits)
}

/// Reads a file of such batches on the current rayon pool: its rows, and the sum of its values.
///
/// # Errors
/// Those of the file.
pub fn load(path: &Path) -> Result<(usize, u64)> {
    let mut source = open_all(vec![path.to_owned()], &SourceOptions::default())?;
    let mut pieces = Vec::new();
    while let Some(piece) = source.next_piece()? {
        pieces.push(piece);
    }
    let read = pieces.into_par_iter().map(|piece| {
        let batches = piece.decode()?;
        let num_rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        Ok((num_rows, batches.iter().fold(0, sum_bits)))
    });
    read.try_reduce(|| (0, 0), |a, b| Ok((a.0 + b.0, a.1.wrapping_add(b.1))))
}

/// The machine, in one line, for the head of a report.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    let memory = read("/proc/meminfo");
    let memory = memory
        .lines()
        .next()
        .unwrap_or_default()
        .replace("MemTotal:", "");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{}, {cores} cores, {}",
        model.trim_start_matches([' ', '\t', ':']),
        memory.trim()
    )
}
