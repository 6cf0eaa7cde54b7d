//! What is done to fact keys before they are compared, as a join declares it.

use std::fmt;
use std::sync::Arc;

use arrow_array::builder::{GenericStringBuilder, StringViewBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, OffsetSizeTrait};
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{DataType, Field};

use crate::{Error, Result};

/// One thing that is done to the values of a fact column before they are compared with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// White space at both ends goes.
    Trim,
    /// Letters become capitals.
    Upper,
    /// Letters become small.
    Lower,
    /// The value in another type. One that the type cannot hold is in no dimension: its row is missed.
    Cast(DataType),
}

impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trim => f.write_str("trim"),
            Self::Upper => f.write_str("upper"),
            Self::Lower => f.write_str("lower"),
            Self::Cast(data_type) => write!(f, "cast to {data_type}"),
        }
    }
}

/// The field of a column after these steps.
pub(super) fn normalized_field(field: &Field, steps: &[Normalize]) -> Result<Field> {
    let mut data_type = field.data_type().clone();
    for step in steps {
        data_type = match step {
            Normalize::Cast(to) if can_cast_types(&data_type, to) => to.clone(),
            Normalize::Cast(to) => {
                return Err(Error::invalid(format!(
                    "a fact column cannot be cast: column=`{}` type=`{data_type}` to=`{to}`",
                    field.name()
                )));
            }
            _ if is_text(&data_type) => data_type,
            step => {
                return Err(Error::invalid(format!(
                    "only text has a {step}; cast the column to string first: column=`{}` type=`{data_type}`",
                    field.name()
                )));
            }
        };
    }
    Ok(field.clone().with_data_type(data_type))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A column after these steps, whose types were checked.
pub(super) fn normalize(column: &ArrayRef, steps: &[Normalize]) -> Result<ArrayRef> {
    const OPTIONS: CastOptions<'static> = CastOptions {
        // What cannot be cast is null here, and told from the nulls of the facts by the caller.
        safe: true,
        format_options: arrow_cast::display::FormatOptions::new(),
    };
    let mut column = Arc::clone(column);
    for step in steps {
        column = match step {
            Normalize::Trim => change(&column, |value, out| out.push_str(value.trim()))?,
            Normalize::Upper => change(&column, |value, out| {
                if value.is_ascii() {
                    out.push_str(value);
                    out.make_ascii_uppercase();
                } else {
                    out.extend(value.chars().flat_map(char::to_uppercase));
                }
            })?,
            Normalize::Lower => change(&column, |value, out| {
                if value.is_ascii() {
                    out.push_str(value);
                    out.make_ascii_lowercase();
                } else {
                    // As a whole: a sigma at the end of a word is another letter.
                    out.push_str(&value.to_lowercase());
                }
            })?,
            Normalize::Cast(to) => cast_with_options(&column, to, &OPTIONS).map_err(|error| {
                Error::invalid(format!("a fact column cannot be cast to {to}")).with_source(error)
            })?,
        };
    }
    Ok(column)
}

/// Every text of a column changed; those of a dictionary once each.
fn change(column: &ArrayRef, change_one: fn(&str, &mut String)) -> Result<ArrayRef> {
    fn strings<O: OffsetSizeTrait>(
        column: &ArrayRef,
        change_one: fn(&str, &mut String),
    ) -> ArrayRef {
        let column = column.as_string::<O>();
        let num_bytes = column.value_data().len();
        let mut builder = GenericStringBuilder::<O>::with_capacity(column.len(), num_bytes);
        let mut text = String::new();
        for value in column {
            builder.append_option(value.map(|value| {
                text.clear();
                change_one(value, &mut text);
                &text
            }));
        }
        Arc::new(builder.finish())
    }
    Ok(match column.data_type() {
        DataType::Utf8 => strings::<i32>(column, change_one),
        DataType::LargeUtf8 => strings::<i64>(column, change_one),
        DataType::Utf8View => {
            let column = column.as_string_view();
            let mut builder = StringViewBuilder::with_capacity(column.len());
            let mut text = String::new();
            for value in column {
                builder.append_option(value.map(|value| {
                    text.clear();
                    change_one(value, &mut text);
                    &text
                }));
            }
            Arc::new(builder.finish())
        }
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            dictionary.with_values(change(dictionary.values(), change_one)?)
        }
        other => {
            return Err(Error::internal(format!("no text: type=`{other}`")));
        }
    })
}
