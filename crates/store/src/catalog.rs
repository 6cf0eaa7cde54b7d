//! What a table is: its name, columns and key.

use std::{collections::HashSet, sync::Arc};

use arrow_array::RecordBatch;
use arrow_ipc::{
    convert::try_schema_from_flatbuffer_bytes,
    writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions},
};
use arrow_schema::{DataType, Schema, SchemaRef};

use crate::{
    codec::{Decoder, Encoder},
    error::{Error, Result},
    settings::NAME_BYTES_MAX,
};

/// The columns of a table and which of them are its key.
#[derive(Clone, Debug)]
pub struct TableSpec {
    schema: SchemaRef,
    key_columns: Vec<usize>,
    key_schema: SchemaRef,
}

impl TableSpec {
    /// Checks and makes a table's specification.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a key column is missing, named twice or of a type that
    /// cannot be a key (floating point and nested types), or if two columns have one name.
    pub fn new(schema: &Schema, key_columns: &[impl AsRef<str>]) -> Result<Self> {
        let mut names = HashSet::new();
        for field in schema.fields() {
            if !names.insert(field.name()) {
                return Err(Error::invalid(format!(
                    "two columns have one name: column=`{}`",
                    field.name()
                )));
            }
        }
        if key_columns.is_empty() {
            return Err(Error::invalid("a table needs at least one key column"));
        }
        let mut indices = Vec::new();
        for name in key_columns {
            let name = name.as_ref();
            let index = schema.index_of(name).map_err(|_| {
                Error::invalid(format!(
                    "no such key column: column=`{name}` columns=`{}`",
                    schema
                        .fields()
                        .iter()
                        .map(|f| f.name().as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ))
            })?;
            if indices.contains(&index) {
                return Err(Error::invalid(format!(
                    "key column is named twice: column=`{name}`"
                )));
            }
            let data_type = schema.field(index).data_type();
            if !is_key_type(data_type) {
                return Err(Error::invalid(format!(
                    "column cannot be a key: column=`{name}` type=`{data_type}`; cast it to an integer, decimal or string"
                )));
            }
            indices.push(index);
        }
        // Through the encoding and back: that gives nested dictionaries the ids that the page decoder looks for.
        let schema = decode_schema(&encode_schema(schema))?;
        Self::from_parts(schema, indices)
    }

    fn from_parts(schema: SchemaRef, key_columns: Vec<usize>) -> Result<Self> {
        let key_schema = schema
            .project(&key_columns)
            .map_err(|error| Error::data("key columns are not in the schema").with_source(error))?;
        let key_schema = decode_schema(&encode_schema(&key_schema))?;
        Ok(Self {
            schema,
            key_columns,
            key_schema,
        })
    }

    /// All columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Positions of the key columns in the schema, in key order.
    pub fn key_columns(&self) -> &[usize] {
        &self.key_columns
    }

    /// The key columns alone, in key order: the schema of what deletes a row.
    pub fn key_schema(&self) -> &SchemaRef {
        &self.key_schema
    }

    /// Whether two tables take the same rows: equal column names, types and keys.
    pub fn is_same_shape(&self, other: &Self) -> bool {
        self.key_columns == other.key_columns && check_columns(&self.schema, &other.schema).is_ok()
    }

    /// Checks that rows fit the table and have no null in their key.
    pub(crate) fn check_rows(&self, rows: &RecordBatch) -> Result<()> {
        check_columns(&self.schema, rows.schema_ref())?;
        check_nulls(&self.schema, rows, 0..rows.num_columns())?;
        check_key_nulls(rows, self.key_columns.iter().copied())
    }

    /// Checks that keys fit the table and are not null.
    pub(crate) fn check_keys(&self, keys: &RecordBatch) -> Result<()> {
        check_columns(&self.key_schema, keys.schema_ref())?;
        check_key_nulls(keys, 0..keys.num_columns())
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put_bytes(&encode_schema(&self.schema));
        out.put_u32(u32::try_from(self.key_columns.len()).unwrap_or(u32::MAX));
        for column in &self.key_columns {
            out.put_u32(u32::try_from(*column).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        let schema = decode_schema(input.get_bytes()?)?;
        let num_keys = input.get_u32()?;
        let key_columns = (0..num_keys)
            .map(|_| input.get_u32().map(|c| c as usize))
            .collect::<Result<_>>()?;
        Self::from_parts(schema, key_columns)
    }
}

/// Fails unless two schemas have the same column names and types in the same order.
fn check_columns(expected: &Schema, got: &Schema) -> Result<()> {
    if expected.fields().len() != got.fields().len() {
        let names = |s: &Schema| {
            s.fields()
                .iter()
                .map(|f| f.name().as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        return Err(Error::invalid(format!(
            "rows do not have the table's columns: got=`{}` expected=`{}`",
            names(got),
            names(expected)
        )));
    }
    for (expected, got) in expected.fields().iter().zip(got.fields()) {
        if expected.name() != got.name() || expected.data_type() != got.data_type() {
            return Err(Error::invalid(format!(
                "rows do not have the table's columns: got=`{}` type=`{}` expected=`{}` expected_type=`{}`",
                got.name(),
                got.data_type(),
                expected.name(),
                expected.data_type()
            )));
        }
    }
    Ok(())
}

/// Fails if a key column has a null, at the first such row.
fn check_key_nulls(rows: &RecordBatch, columns: impl Iterator<Item = usize>) -> Result<()> {
    for column in columns {
        if let Some(nulls) = rows.column(column).logical_nulls()
            && let Some(row) = (0..rows.num_rows()).find(|row| nulls.is_null(*row))
        {
            return Err(Error::invalid(format!(
                "a key cannot be null: column=`{}` row=`{row}`",
                rows.schema_ref().field(column).name()
            )));
        }
    }
    Ok(())
}

/// Fails if a column that the table declares without nulls has one.
fn check_nulls(
    schema: &Schema,
    rows: &RecordBatch,
    columns: impl Iterator<Item = usize>,
) -> Result<()> {
    for column in columns {
        let field = schema.field(column);
        if !field.is_nullable() && rows.column(column).logical_null_count() > 0 {
            return Err(Error::invalid(format!(
                "column is declared without nulls but has some: column=`{}`",
                field.name()
            )));
        }
    }
    Ok(())
}

/// Types that a key column can have: those on which equality by value is plain.
pub fn is_key_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_key_type(value),
        DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_)
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => true,
        data_type => data_type.is_integer(),
    }
}

/// Checks the name of a table or watermark.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a name has 1 to {NAME_BYTES_MAX} bytes: name=`{name}`"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "a name has no control characters: name=`{name:?}`"
        )));
    }
    Ok(())
}

fn encode_schema(schema: &Schema) -> Vec<u8> {
    let mut tracker = DictionaryTracker::new(false);
    IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &IpcWriteOptions::default())
        .ipc_message
}

fn decode_schema(bytes: &[u8]) -> Result<SchemaRef> {
    try_schema_from_flatbuffer_bytes(bytes)
        .map(Arc::new)
        .map_err(|error| Error::data("schema in the catalog is not readable").with_source(error))
}
