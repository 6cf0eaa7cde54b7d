use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};

use crate::{Error, Result};

/// Types whose values can be equal to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Boolean,
    /// Integers and decimals.
    Number,
    Date,
    Time,
    Timestamp,
    Duration,
    String,
    Binary,
}

/// Checks that a column can be a key of a dimension.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for floats, nested types, intervals and
/// run-end encoded columns, with the column, its type and what to do.
pub fn check_key_field(field: &Field) -> Result<()> {
    if family_of(field.data_type()).is_some() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a column of this type cannot be a key; {}: column=`{}` type=`{}`",
        remedy(field.data_type()),
        field.name(),
        field.data_type()
    )))
}

/// The family of a key type; `None` if it cannot be a key. A dictionary is what its values are.
pub(crate) fn family_of(data_type: &DataType) -> Option<Family> {
    Some(match plain_type(data_type) {
        DataType::Boolean => Family::Boolean,
        t if t.is_integer() => Family::Number,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Family::Number,
        DataType::Date32 | DataType::Date64 => Family::Date,
        DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond)
        | DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => Family::Time,
        DataType::Timestamp(..) => Family::Timestamp,
        DataType::Duration(_) => Family::Duration,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::String,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Family::Binary,
        _ => return None,
    })
}

/// The type of a dictionary's values, or the type itself.
pub(crate) fn plain_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

/// Checks that values of `fact` can be equal to values of `key`, a key column of dimension `table`.
pub(crate) fn check_comparable(table: &str, key: &Field, fact: &Field) -> Result<()> {
    let wanted = family_of(key.data_type());
    let got = family_of(fact.data_type());
    // A column without a type (only nulls) compares with everything and matches nothing.
    if fact.data_type().is_null() || (got.is_some() && got == wanted) {
        return Ok(());
    }
    let remedy = if got.is_none() {
        remedy(fact.data_type()).to_owned()
    } else {
        format!(
            "cast one of the two, for instance the fact column to {}",
            key.data_type()
        )
    };
    Err(Error::invalid(format!(
        "a fact column cannot be compared with a dimension's key; {remedy}: \
         fact=`{}` fact_type=`{}` dimension=`{table}` key=`{}` key_type=`{}`",
        fact.name(),
        fact.data_type(),
        key.name(),
        key.data_type()
    )))
}

fn remedy(data_type: &DataType) -> &'static str {
    match plain_type(data_type) {
        t if t.is_floating() => "cast it to an integer or a decimal",
        DataType::Interval(IntervalUnit::YearMonth) => "cast it to an integer number of months",
        DataType::Interval(_) => "cast it to a duration",
        DataType::RunEndEncoded(..) | DataType::Dictionary(..) => "cast it to its value type",
        DataType::Null => "cast it to the type that it should have",
        _ => "take its parts as separate key columns, or cast it to a string",
    }
}
