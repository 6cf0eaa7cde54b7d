use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, Field, FieldRef, Schema, SchemaRef};

use super::{Dimension, Matches, Pack, Wanted};
use crate::index::NO_MATCH;
use crate::{Error, ErrorKind, Result};

/// The rows that [`Dimension::get_many`] found.
#[derive(Clone, Debug)]
pub struct Found {
    /// One row per key asked for, in that order; all null where there is none, so that every field
    /// is nullable.
    pub batch: RecordBatch,
    /// Whether there is a row for the key.
    pub is_found: BooleanArray,
}

/// The columns of a dimension that are gathered row by row.
#[derive(Debug)]
pub(super) struct WholePack {
    pack: Arc<Pack>,
    /// Of each column, whether it is one of them.
    is_packed: Vec<bool>,
}

/// A key to look up.
///
/// # Examples
/// Numbers, strings and bytes become one by themselves: `dimension.get("JFK")`, `dimension.contains(7)`.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    /// For a key of one column of integers, dates, times, booleans, or decimals of 32 or 64 bits: the number that the
    /// column stores. For dates of 32 bits that is days, for times ticks of the column's unit, for decimals the digits
    /// without the point.
    Int(i64),
    /// As `Int`.
    UInt(u64),
    /// For a key of one column of strings or binary.
    Bytes(&'a [u8]),
    /// For any key: arrays of one row, in key order, of types that can be compared. A null has no row.
    Arrays(&'a [ArrayRef]),
}

macro_rules! key_from {
    ($($from:ty => $key:ident),*) => {
        $(impl From<$from> for Key<'_> {
            fn from(value: $from) -> Self {
                Self::$key(value.into())
            }
        })*
    };
}

key_from!(i8 => Int, i16 => Int, i32 => Int, i64 => Int, u8 => UInt, u16 => UInt, u32 => UInt, u64 => UInt);

impl<'a> From<&'a str> for Key<'a> {
    fn from(value: &'a str) -> Self {
        Self::Bytes(value.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a> From<&'a String> for Key<'a> {
    fn from(value: &'a String) -> Self {
        Self::Bytes(value.as_bytes())
    }
}

impl<'a> From<&'a Vec<ArrayRef>> for Key<'a> {
    fn from(value: &'a Vec<ArrayRef>) -> Self {
        Self::Arrays(value)
    }
}

impl<'a> From<&'a [ArrayRef]> for Key<'a> {
    fn from(value: &'a [ArrayRef]) -> Self {
        Self::Arrays(value)
    }
}

impl<'a, const N: usize> From<&'a [ArrayRef; N]> for Key<'a> {
    fn from(value: &'a [ArrayRef; N]) -> Self {
        Self::Arrays(value)
    }
}

impl Dimension {
    /// The row with a key; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the key cannot be compared with that of the dimension, or
    /// consists of arrays that have not one row.
    pub fn get<'a>(&self, key: impl Into<Key<'a>>) -> Result<Option<RecordBatch>> {
        let Some(row) = self.find(key.into())? else {
            return Ok(None);
        };
        let columns = self
            .columns
            .iter()
            .map(|column| column.slice(row, 1))
            .collect::<Result<_>>()?;
        batch(Arc::clone(&self.schema), columns, 1).map(Some)
    }

    /// Whether there is a row with a key.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn contains<'a>(&self, key: impl Into<Key<'a>>) -> Result<bool> {
        Ok(self.find(key.into())?.is_some())
    }

    /// The rows with these keys, in their order.
    ///
    /// # Errors
    /// As for [`probe`](Self::probe); [`ErrorKind::Resource`](crate::ErrorKind::Resource) if
    /// strings of the rows pass 2 GiB and their type does not hold that.
    pub fn get_many(&self, keys: &[ArrayRef]) -> Result<Found> {
        let mut matches = Matches::default();
        self.probe(keys, &mut matches)?;
        let wanted = Wanted::new(matches.build_idx());
        let columns = self.gather(&wanted)?;
        let fields: Vec<Field> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let schema = Schema::new_with_metadata(fields, self.schema.metadata().clone());
        Ok(Found {
            batch: batch(Arc::new(schema), columns, wanted.len())?,
            is_found: matches
                .build_idx()
                .iter()
                .map(|&row| Some(row != NO_MATCH))
                .collect(),
        })
    }

    /// A column, by its place in the schema, of the rows that a probe has found; null where it found none.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there is no such column,
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource) if strings of the rows pass 2 GiB and their type does not
    /// hold that.
    /// # Panics
    /// May panic with the matches of another dimension.
    pub fn column_of(&self, column: usize, matches: &Matches) -> Result<ArrayRef> {
        let Some(found) = self.columns.get(column) else {
            return Err(Error::invalid(format!(
                "a dimension has no such column: column=`{column}` columns=`{}` dimension=`{}`",
                self.columns.len(),
                self.name()
            )));
        };
        found.gather(&Wanted::new(matches.build_idx()))
    }

    /// All columns of some rows. Those of a large dimension come from one place a row, see [`Pack`].
    fn gather(&self, wanted: &Wanted<'_>) -> Result<Vec<ArrayRef>> {
        let whole = self.whole.get_or_init(|| {
            let is_packed = self
                .columns
                .iter()
                .map(|column| Pack::takes(column.values()));
            let is_packed: Vec<bool> = is_packed.collect();
            let packed = self.columns.iter().zip(&is_packed).filter(|(_, is)| **is);
            let packed = packed.map(|(column, _)| Arc::clone(column.values()));
            let pack = self.pack(packed.collect());
            pack.map(|pack| WholePack { pack, is_packed })
        });
        let Some(WholePack { pack, is_packed }) = whole else {
            let columns = self.columns.iter().map(|column| column.gather(wanted));
            return columns.collect();
        };
        let gathered = pack.gather(wanted);
        let gathered = gathered.map_err(|error| too_large(self.name(), error))?;
        let mut gathered = gathered.into_iter();
        let columns = self.columns.iter().zip(is_packed);
        let columns = columns.map(|(column, is_packed)| {
            let array = is_packed.then(|| gathered.next()).flatten();
            array.map_or_else(|| column.gather(wanted), |array| column.declare(array))
        });
        columns.collect()
    }

    #[inline]
    fn find(&self, key: Key<'_>) -> Result<Option<usize>> {
        let number = |value| {
            let value = self.form.int(value);
            value.map_or(NO_MATCH, |value| self.index.find_int(value))
        };
        let row = match key {
            Key::Arrays(arrays) => return self.find_arrays(arrays),
            Key::Int(value) if self.form.is_number() => number(value.into()),
            Key::UInt(value) if self.form.is_number() => number(value.into()),
            Key::Bytes(bytes) if self.form.is_bytes() => self.index.find_bytes(bytes),
            Key::Int(_) | Key::UInt(_) => return Err(self.other_key("a number")),
            Key::Bytes(_) => return Err(self.other_key("a string or bytes")),
        };
        Ok((row != NO_MATCH).then_some(row as usize))
    }

    fn find_arrays(&self, key: &[ArrayRef]) -> Result<Option<usize>> {
        if key.iter().any(|part| part.len() != 1) {
            return Err(Error::invalid(format!(
                "a key to look up must have one row: dimension=`{}`",
                self.name()
            )));
        }
        let mut matches = Matches::default();
        self.probe(key, &mut matches)?;
        Ok(matches
            .build_idx()
            .first()
            .filter(|&&row| row != NO_MATCH)
            .map(|&row| row as usize))
    }

    fn other_key(&self, got: &str) -> Error {
        let columns = self.key_fields().iter();
        let columns: Vec<String> = columns
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect();
        Error::invalid(format!(
            "a dimension has another kind of key; look it up with arrays: got=`{got}` key=`{}` dimension=`{}`",
            columns.join(", "),
            self.name()
        ))
    }
}

/// What a gather of packed columns says when a column's type does not hold the rows.
pub(crate) fn too_large(dimension: &str, error: ArrowError) -> Error {
    Error::new(
        ErrorKind::Resource,
        format!(
            "a batch is too large for a column's type; take smaller batches or another encoding: \
             dimension=`{dimension}`"
        ),
    )
    .with_source(error)
}

/// Fields for arrays that have no names.
pub(super) fn fields_of(arrays: &[ArrayRef]) -> Vec<FieldRef> {
    arrays
        .iter()
        .enumerate()
        .map(|(idx, array)| {
            Arc::new(Field::new(
                format!("key {}", idx + 1),
                array.data_type().clone(),
                true,
            ))
        })
        .collect()
}

/// A batch whose number of rows is known even without columns.
pub(crate) fn batch(
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    num_rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| Error::internal("cannot put a batch together").with_source(error))
}

/// The place of a column; the error names the nearest one and lists all.
pub(crate) fn column_index(schema: &Schema, column: &str) -> Result<usize> {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    match names.iter().filter(|name| **name == column).count() {
        1 => Ok(names
            .iter()
            .position(|name| *name == column)
            .unwrap_or_default()),
        0 => Err(unknown_column(column, &names)),
        _ => Err(Error::invalid(format!(
            "a column name stands for several columns: column=`{column}`"
        ))),
    }
}

fn unknown_column(column: &str, names: &[&str]) -> Error {
    let distance =
        |name: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &column.to_lowercase());
    let nearest = names
        .iter()
        .map(|name| (distance(name), *name))
        .min()
        .filter(|(distance, _)| *distance <= column.chars().count() / 3 + 1)
        .map(|(_, name)| format!("; did you mean `{name}`?"));
    Error::invalid(format!(
        "no such column{}: column=`{column}` columns=`{}`",
        nearest.unwrap_or_default(),
        names.join(", ")
    ))
}
