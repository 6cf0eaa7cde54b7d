use std::sync::Arc;

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::i256;
use arrow_schema::{DataType, TimeUnit};

/// Marsaglia's xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    pub(crate) fn is_one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }
}

/// The seed of a test: `DARNER_SEED`, or else one of its own. Printed, so that a failure shows it.
pub(crate) fn seed(of_test: u64) -> u64 {
    let seed = std::env::var("DARNER_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(of_test);
    println!("DARNER_SEED={seed}");
    seed
}

/// Key types by family: types of one family can be equal to each other.
pub(crate) fn families() -> Vec<Vec<DataType>> {
    use DataType::*;
    use TimeUnit::*;
    let dictionary =
        |keys: DataType, values: DataType| Dictionary(Box::new(keys), Box::new(values));
    let utc = || Some("UTC".into());
    vec![
        vec![
            Int8,
            Int16,
            Int32,
            Int64,
            UInt8,
            UInt16,
            UInt32,
            UInt64,
            Decimal32(9, 2),
            Decimal64(18, 0),
            Decimal64(18, 3),
            Decimal128(38, 0),
            Decimal128(20, 4),
            Decimal128(18, 2),
            Decimal128(10, -1),
            Decimal256(76, 10),
            Decimal256(40, 0),
            dictionary(Int32, Int64),
            dictionary(UInt16, UInt64),
            dictionary(Int8, Decimal128(38, 2)),
        ],
        vec![Boolean, dictionary(Int8, Boolean)],
        vec![Date32, Date64, dictionary(Int64, Date32)],
        vec![
            Time32(Second),
            Time32(Millisecond),
            Time64(Microsecond),
            Time64(Nanosecond),
            dictionary(Int32, Time32(Second)),
        ],
        vec![
            Timestamp(Second, None),
            Timestamp(Millisecond, utc()),
            Timestamp(Microsecond, None),
            Timestamp(Nanosecond, Some("+05:00".into())),
            Timestamp(Nanosecond, None),
            dictionary(Int32, Timestamp(Microsecond, utc())),
        ],
        vec![
            Duration(Second),
            Duration(Millisecond),
            Duration(Microsecond),
            Duration(Nanosecond),
        ],
        vec![
            Utf8,
            LargeUtf8,
            Utf8View,
            dictionary(Int32, Utf8),
            dictionary(UInt8, LargeUtf8),
            dictionary(Int16, Utf8View),
        ],
        vec![
            Binary,
            LargeBinary,
            BinaryView,
            FixedSizeBinary(4),
            FixedSizeBinary(16),
            dictionary(Int32, Binary),
            dictionary(Int32, FixedSizeBinary(4)),
        ],
    ]
}

/// A random key column: values that repeat and meet those of other types of the family, with some
/// extremes; one value in `null_one_in` null (0: none). Its offset is not 0.
pub(crate) fn column(
    random: &mut Random,
    data_type: &DataType,
    len: usize,
    null_one_in: usize,
) -> ArrayRef {
    whole_column(random, data_type, len + 5, null_one_in).slice(3, len)
}

fn whole_column(
    random: &mut Random,
    data_type: &DataType,
    len: usize,
    null_one_in: usize,
) -> ArrayRef {
    macro_rules! primitive {
        ($type:ty, $value:expr) => {{
            let array: PrimitiveArray<$type> = (0..len)
                .map(|_| {
                    let value = $value(random);
                    (null_one_in == 0 || !random.is_one_in(null_one_in)).then_some(value)
                })
                .collect();
            Arc::new(array.with_data_type(data_type.clone())) as ArrayRef
        }};
    }
    macro_rules! int {
        ($type:ty) => {{
            type Native = <$type as ArrowPrimitiveType>::Native;
            primitive!($type, |random: &mut Random| match random.below(20) {
                0 => Native::MIN,
                1 => Native::MAX,
                2 => (i64::MAX as u64).wrapping_add(random.below(3) as u64) as Native,
                _ => (random.below(30) as i64 - 6) as Native,
            })
        }};
    }
    macro_rules! ticks {
        ($type:ty, $per:expr, $has_extremes:expr) => {{
            type Native = <$type as ArrowPrimitiveType>::Native;
            primitive!($type, |random: &mut Random| match random.below(16) {
                0 if $has_extremes => Native::MIN,
                1 if $has_extremes => Native::MAX,
                2 => random.below(20) as Native * $per + 1,
                _ => random.below(20) as Native * $per,
            })
        }};
    }
    macro_rules! decimal {
        ($type:ty, $from:expr, $precision:expr, $scale:expr) => {{
            primitive!($type, |random: &mut Random| {
                let digits = usize::from(*$precision);
                let small = random.below(30) as i64 - 6;
                let zeros = usize::try_from(*$scale).unwrap_or(0);
                let text = match random.below(16) {
                    0 => "9".repeat(digits),
                    1 => format!("-{}", "9".repeat(digits)),
                    2 if *$scale > 0 => format!("{small}{}1", "0".repeat(zeros - 1)),
                    3 if digits > 19 => u64::MAX.to_string(),
                    _ if *$scale < 0 => format!("{}", small / 10),
                    _ => format!("{small}{}", "0".repeat(zeros)),
                };
                $from(&text)
            })
        }};
    }
    use DataType::*;
    use TimeUnit::*;
    match data_type {
        Int8 => int!(Int8Type),
        Int16 => int!(Int16Type),
        Int32 => int!(Int32Type),
        Int64 => int!(Int64Type),
        UInt8 => int!(UInt8Type),
        UInt16 => int!(UInt16Type),
        UInt32 => int!(UInt32Type),
        UInt64 => int!(UInt64Type),
        Decimal32(p, s) => decimal!(Decimal32Type, |t: &str| t.parse::<i32>().unwrap(), p, s),
        Decimal64(p, s) => decimal!(Decimal64Type, |t: &str| t.parse::<i64>().unwrap(), p, s),
        Decimal128(p, s) => decimal!(Decimal128Type, |t: &str| t.parse::<i128>().unwrap(), p, s),
        Decimal256(p, s) => {
            decimal!(
                Decimal256Type,
                |t: &str| i256::from_string(t).unwrap(),
                p,
                s
            )
        }
        Boolean => {
            let values = (0..len).map(|_| {
                let value = random.is_one_in(2);
                (null_one_in == 0 || !random.is_one_in(null_one_in)).then_some(value)
            });
            Arc::new(values.collect::<BooleanArray>())
        }
        Date32 => ticks!(Date32Type, 1, true),
        Date64 => ticks!(Date64Type, 86_400_000, true),
        Time32(Second) => ticks!(Time32SecondType, 1, false),
        Time32(_) => ticks!(Time32MillisecondType, 1000, false),
        Time64(Microsecond) => ticks!(Time64MicrosecondType, 1_000_000, false),
        Time64(_) => ticks!(Time64NanosecondType, 1_000_000_000, false),
        Timestamp(Second, _) => ticks!(TimestampSecondType, 1, true),
        Timestamp(Millisecond, _) => ticks!(TimestampMillisecondType, 1000, true),
        Timestamp(Microsecond, _) => ticks!(TimestampMicrosecondType, 1_000_000, true),
        Timestamp(Nanosecond, _) => ticks!(TimestampNanosecondType, 1_000_000_000, true),
        Duration(Second) => ticks!(DurationSecondType, 1, true),
        Duration(Millisecond) => ticks!(DurationMillisecondType, 1000, true),
        Duration(Microsecond) => ticks!(DurationMicrosecondType, 1_000_000, true),
        Duration(Nanosecond) => ticks!(DurationNanosecondType, 1_000_000_000, true),
        FixedSizeBinary(size) => {
            let mut builder = FixedSizeBinaryBuilder::new(*size);
            for _ in 0..len {
                if null_one_in > 0 && random.is_one_in(null_one_in) {
                    builder.append_null();
                } else {
                    let width = usize::try_from(*size).unwrap();
                    builder
                        .append_value(format!("{:0width$}", random.below(20)))
                        .unwrap();
                }
            }
            Arc::new(builder.finish())
        }
        Dictionary(key_type, values) => {
            let values = whole_column(random, values, 9, null_one_in);
            let keys: Int8Array = (0..len)
                .map(|_| {
                    let key = i8::try_from(random.below(9)).unwrap();
                    (null_one_in == 0 || !random.is_one_in(null_one_in)).then_some(key)
                })
                .collect();
            dictionary(&keys, key_type, values)
        }
        text => {
            let long = "a common prefix that is longer than any inline part ".repeat(3);
            let values: Vec<Option<String>> = (0..len)
                .map(|_| {
                    let number = random.below(20);
                    let value = match random.below(8) {
                        0 => String::new(),
                        1 => format!("{number:012}"),
                        2 => format!("{number:013}"),
                        3 => format!("{long}{number}"),
                        4 => "x".repeat(number),
                        5 => format!("{number:016}"),
                        _ => format!("{number:04}"),
                    };
                    (null_one_in == 0 || !random.is_one_in(null_one_in)).then_some(value)
                })
                .collect();
            let array = StringArray::from(values);
            if matches!(text, Binary | LargeBinary | BinaryView) {
                arrow_cast::cast(&arrow_cast::cast(&array, &Binary).unwrap(), text).unwrap()
            } else {
                arrow_cast::cast(&array, text).unwrap()
            }
        }
    }
}

fn dictionary(keys: &Int8Array, key_type: &DataType, values: ArrayRef) -> ArrayRef {
    let keys = arrow_cast::cast(keys, key_type).unwrap();
    macro_rules! over {
        ($type:ty) => {
            Arc::new(DictionaryArray::<$type>::new(
                keys.as_primitive().clone(),
                values,
            ))
        };
    }
    match key_type {
        DataType::Int8 => over!(Int8Type),
        DataType::Int16 => over!(Int16Type),
        DataType::Int32 => over!(Int32Type),
        DataType::Int64 => over!(Int64Type),
        DataType::UInt8 => over!(UInt8Type),
        DataType::UInt16 => over!(UInt16Type),
        other => panic!("no dictionary keys of type {other}"),
    }
}
