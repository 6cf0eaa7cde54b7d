//! Keys as text, as the command line takes them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::Schema;
use darner_engine::{Error, Result};

/// Reads keys. The parts of a composite key are separated by commas; a key of one column is taken as it stands.
///
/// # Shapes
/// One array per key column, each with one value per key.
pub(crate) fn parse_keys(key_schema: &Schema, keys: &[String]) -> Result<Vec<ArrayRef>> {
    let num_columns = key_schema.fields().len();
    let mut parts: Vec<Vec<&str>> = vec![Vec::with_capacity(keys.len()); num_columns];
    for key in keys {
        let values: Vec<&str> = if num_columns == 1 {
            vec![key]
        } else {
            key.split(',').map(str::trim).collect()
        };
        if values.len() != num_columns {
            let names: Vec<&str> = key_schema
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect();
            return Err(Error::invalid(format!(
                "a key of this table has {num_columns} parts: key=`{key}` columns=`{}`",
                names.join(",")
            )));
        }
        for (column, value) in parts.iter_mut().zip(values) {
            column.push(value);
        }
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    parts
        .into_iter()
        .zip(key_schema.fields())
        .map(|(values, field)| {
            let text: ArrayRef = Arc::new(StringArray::from(values));
            let keys = cast_with_options(&text, field.data_type(), &options).map_err(|error| {
                Error::invalid(format!(
                    "not a key of this table: column=`{}` type=`{}`",
                    field.name(),
                    field.data_type()
                ))
                .with_source(error)
            })?;
            debug_assert_eq!(keys.len(), text.len());
            Ok(keys)
        })
        .collect()
}
