//! The nested-loop join: slow, obvious, and sharing no code with the engine.

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use darner_engine::{JoinKind, OnMiss};

/// A key value, such that two are equal exactly if their values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Boolean(bool),
    /// Sign and digits without zeros at either end, and the power of ten of the last digit.
    Number(String, i32),
    /// Nanoseconds.
    Ticks(i128),
    Bytes(Vec<u8>),
}

/// The value at a row; `None` is null.
pub(crate) fn scalar(array: &ArrayRef, row: usize) -> Option<Scalar> {
    use DataType::*;
    if array.is_null(row) {
        return None;
    }
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        return scalar(dictionary.values(), dictionary.normalized_keys()[row]);
    }
    macro_rules! at {
        ($type:ty) => {
            array.as_primitive::<$type>().value(row)
        };
    }
    let tick_ns = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1_i128,
    };
    Some(match array.data_type() {
        Boolean => Scalar::Boolean(array.as_boolean().value(row)),
        Int8 => number(at!(Int8Type).to_string(), 0),
        Int16 => number(at!(Int16Type).to_string(), 0),
        Int32 => number(at!(Int32Type).to_string(), 0),
        Int64 => number(at!(Int64Type).to_string(), 0),
        UInt8 => number(at!(UInt8Type).to_string(), 0),
        UInt16 => number(at!(UInt16Type).to_string(), 0),
        UInt32 => number(at!(UInt32Type).to_string(), 0),
        UInt64 => number(at!(UInt64Type).to_string(), 0),
        Decimal32(_, scale) => number(at!(Decimal32Type).to_string(), *scale),
        Decimal64(_, scale) => number(at!(Decimal64Type).to_string(), *scale),
        Decimal128(_, scale) => number(at!(Decimal128Type).to_string(), *scale),
        Decimal256(_, scale) => number(at!(Decimal256Type).to_string(), *scale),
        Date32 => Scalar::Ticks(i128::from(at!(Date32Type)) * 86_400 * 1_000_000_000),
        Date64 => Scalar::Ticks(i128::from(at!(Date64Type)) * 1_000_000),
        Time32(TimeUnit::Second) => ticks(at!(Time32SecondType), 1_000_000_000),
        Time32(_) => ticks(at!(Time32MillisecondType), 1_000_000),
        Time64(TimeUnit::Microsecond) => ticks(at!(Time64MicrosecondType), 1_000),
        Time64(_) => ticks(at!(Time64NanosecondType), 1),
        Timestamp(unit, _) | Duration(unit) => {
            let data = array.to_data();
            let value = data.buffer::<i64>(0)[row];
            ticks(value, tick_ns(unit))
        }
        Utf8 => Scalar::Bytes(array.as_string::<i32>().value(row).into()),
        LargeUtf8 => Scalar::Bytes(array.as_string::<i64>().value(row).into()),
        Utf8View => Scalar::Bytes(array.as_string_view().value(row).into()),
        Binary => Scalar::Bytes(array.as_binary::<i32>().value(row).into()),
        LargeBinary => Scalar::Bytes(array.as_binary::<i64>().value(row).into()),
        BinaryView => Scalar::Bytes(array.as_binary_view().value(row).into()),
        FixedSizeBinary(_) => Scalar::Bytes(array.as_fixed_size_binary().value(row).into()),
        other => panic!("not a key type: {other}"),
    })
}

fn ticks(value: impl Into<i128>, tick_ns: i128) -> Scalar {
    Scalar::Ticks(value.into() * tick_ns)
}

fn number(digits: String, scale: i8) -> Scalar {
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Scalar::Number(String::new(), 0);
    }
    let num_zeros = i32::try_from(digits.len() - significant.len()).unwrap();
    Scalar::Number(significant.to_owned(), num_zeros - i32::from(scale))
}

/// The keys of some columns, row by row; `None` where a part is null.
pub(crate) fn keys(columns: &[ArrayRef]) -> Vec<Option<Vec<Scalar>>> {
    let num_rows = columns[0].len();
    (0..num_rows)
        .map(|row| columns.iter().map(|column| scalar(column, row)).collect())
        .collect()
}

/// The live rows of a dimension: key, and row of the input, in the order of insertion.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) live: Vec<(Vec<Scalar>, u32)>,
    num_input: u32,
}

impl Rows {
    pub(crate) fn upsert(&mut self, columns: &[ArrayRef]) {
        for key in keys(columns) {
            let key = key.unwrap();
            self.live.retain(|(other, _)| *other != key);
            self.live.push((key, self.num_input));
            self.num_input += 1;
        }
    }

    pub(crate) fn delete(&mut self, columns: &[ArrayRef]) {
        for key in keys(columns).into_iter().flatten() {
            self.live.retain(|(other, _)| *other != key);
        }
    }

    /// The input row with a key.
    pub(crate) fn find(&self, key: &[Scalar]) -> Option<u32> {
        self.live
            .iter()
            .find(|(other, _)| other == key)
            .map(|(_, row)| *row)
    }
}

/// What a join makes of one fact row.
pub(crate) enum Outcome {
    Dropped,
    /// Kept with an input row of the dimension, or none.
    Kept(Option<u32>),
    /// Kept with the defaults of the join.
    Defaulted,
}

pub(crate) fn join_row(
    kind: JoinKind,
    on_miss: OnMiss,
    key: Option<&Vec<Scalar>>,
    found: Option<u32>,
) -> Outcome {
    let is_missed = key.is_some() && found.is_none();
    if kind == JoinKind::Left && on_miss == OnMiss::Default && is_missed {
        return Outcome::Defaulted;
    }
    let leaves_out = matches!(on_miss, OnMiss::Drop | OnMiss::Route);
    let is_kept = match kind {
        JoinKind::Left => !(leaves_out && is_missed),
        JoinKind::Inner | JoinKind::Semi => found.is_some(),
        JoinKind::Anti => found.is_none(),
    };
    if is_kept {
        Outcome::Kept(found)
    } else {
        Outcome::Dropped
    }
}
