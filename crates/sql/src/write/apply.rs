//! The rows of a statement as changes of a transaction.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{Field, SchemaRef};
use darner_engine::{Error, OnDuplicate, Result, UniqueKeys};
use darner_store::{Store, TableSnapshot, TableSpec, Transaction};
use datafusion::{
    arrow::compute::{CastOptions, cast_with_options},
    common::ScalarValue,
};

use super::{
    moves::{Moves, RowAction},
    sink::Steps,
    target::Statement,
};

/// What it means that a key comes twice.
const TWICE_INSERTED: &str = "a statement may give each key once, as SELECT DISTINCT ON (key) does";
const TWICE_UPDATED: &str = "a row is updated once, but matches several rows of FROM";
const TWICE_MERGED: &str = "a row is merged once, but matches several rows of USING";

/// A statement that changes a table.
pub(crate) struct Change {
    pub(crate) name: String,
    /// The table as it is, or as it is to be.
    pub(crate) spec: Arc<TableSpec>,
    /// The columns and key that the table had when the statement was planned; `None` if it is to be made.
    pub(crate) planned: Option<Arc<TableSpec>>,
    /// The state of the table that was read. The commit fails if it is not in that state any more.
    pub(crate) read: Option<TableSnapshot>,
    pub(crate) statement: Statement,
}

impl Change {
    /// Writes all rows and commits. Returns how many rows were added, changed or removed.
    pub(crate) fn write(&self, store: &Store, rows: Steps) -> Result<u64> {
        let mut transaction = store.begin()?;
        if let Some(read) = &self.read {
            transaction.require_unchanged(read);
        }
        self.check_shape(&mut transaction)?;
        let mut writing = Writing {
            name: &self.name,
            spec: &self.spec,
            transaction: &mut transaction,
            rows,
        };
        let num_rows = match &self.statement {
            Statement::Upsert => writing.upsert(TWICE_INSERTED)?,
            Statement::Overwrite => {
                writing.transaction.replace(&self.name, self.new_spec())?;
                writing.fill()?
            }
            Statement::Create => {
                writing
                    .transaction
                    .create_table(&self.name, self.new_spec())?;
                writing.fill()?
            }
            Statement::Delete => writing.delete()?,
            Statement::Clear => self.clear(&mut writing)?,
            Statement::Update { moved } if moved.is_empty() => writing.upsert(TWICE_UPDATED)?,
            Statement::Update { moved } => self.update_keys(&mut writing, moved)?,
            Statement::Merge { actions } => self.merge(&mut writing, actions)?,
        };
        transaction.commit()?;
        Ok(num_rows)
    }

    /// Fails if the table has other columns than when the statement was planned, so that it does not get the old ones.
    fn check_shape(&self, transaction: &mut Transaction<'_>) -> Result<()> {
        let Some(planned) = &self.planned else {
            return Ok(());
        };
        let spec = transaction.table_spec(&self.name);
        if spec.is_some_and(|spec| spec.is_same_shape(planned)) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "table was dropped or has other columns since the statement was planned: table=`{}`",
            self.name
        )))
    }

    fn new_spec(&self) -> TableSpec {
        TableSpec::clone(&self.spec)
    }

    fn state_read(&self) -> Result<&TableSnapshot> {
        let missing = || Error::internal("a statement did not read the table that it changes");
        self.read.as_ref().ok_or_else(missing)
    }

    fn clear(&self, writing: &mut Writing<'_, '_>) -> Result<u64> {
        writing.finish()?;
        let num_rows = self.state_read()?.num_rows()?;
        if num_rows > 0 {
            writing.transaction.replace(&self.name, self.new_spec())?;
        }
        Ok(num_rows)
    }

    fn update_keys(&self, writing: &mut Writing<'_, '_>, moved: &[usize]) -> Result<u64> {
        let num_columns = self.spec.schema().fields().len();
        let mut moves = Moves::default();
        while let Some(rows) = writing.next() {
            let new = writing.fit(&rows.columns()[..num_columns])?;
            let mut old = writing.keys(&new);
            for (column, place) in moved.iter().enumerate() {
                let key = self.spec.key_schema().field(*place);
                old[*place] = to_type(rows.column(num_columns + column), key)?;
            }
            moves.update(writing, new, old)?;
        }
        writing.finish()?;
        moves.finish(writing, self.state_read()?, TWICE_UPDATED)
    }

    fn merge(&self, writing: &mut Writing<'_, '_>, actions: &[RowAction]) -> Result<u64> {
        let mut moves = Moves::default();
        while let Some(rows) = writing.next() {
            moves.merge(writing, &rows, actions)?;
        }
        writing.finish()?;
        moves.finish(writing, self.state_read()?, TWICE_MERGED)
    }
}

/// What is on its way into a transaction.
pub(super) struct Writing<'a, 's> {
    pub(super) name: &'a str,
    pub(super) spec: &'a Arc<TableSpec>,
    pub(super) transaction: &'a mut Transaction<'s>,
    rows: Steps,
}

impl Writing<'_, '_> {
    fn next(&mut self) -> Option<RecordBatch> {
        self.rows.next()
    }

    fn finish(&mut self) -> Result<()> {
        // Nothing may come any more.
        self.rows.by_ref().for_each(drop);
        self.rows.check_complete()
    }

    /// Puts rows beside those that are there, or in their places. `twice` says what it means that a key comes twice.
    fn upsert(&mut self, twice: &str) -> Result<u64> {
        let fields = self.spec.key_schema().fields().to_vec();
        let mut unique = UniqueKeys::new(self.name, &fields, OnDuplicate::Error)?;
        let mut num_rows = 0;
        while let Some(rows) = self.next() {
            let rows = self.fit(rows.columns())?;
            num_rows += rows.num_rows() as u64;
            unique.push(&self.keys(&rows))?;
            self.transaction.upsert(self.name, &rows)?;
        }
        self.finish()?;
        check_duplicates(self.name, unique, twice)?;
        Ok(num_rows)
    }

    /// Puts all rows into a table that has none.
    fn fill(&mut self) -> Result<u64> {
        let num_rows = self.upsert(TWICE_INSERTED)?;
        self.transaction.declare_distinct(self.name)?;
        Ok(num_rows)
    }

    fn delete(&mut self) -> Result<u64> {
        let schema = self.spec.key_schema();
        let mut num_rows = 0;
        while let Some(rows) = self.next() {
            num_rows += rows.num_rows() as u64;
            let columns = rows.columns().iter().zip(schema.fields());
            let columns: Result<Vec<ArrayRef>> = columns
                .map(|(column, field)| to_type(column, field))
                .collect();
            let keys = RecordBatch::try_new(Arc::clone(schema), columns?).map_err(|error| {
                Error::internal("keys do not fit their schema").with_source(error)
            })?;
            self.transaction.delete(self.name, &keys)?;
        }
        self.finish()?;
        Ok(num_rows)
    }

    /// Rows as the table has them. Refuses nulls where there may be none.
    pub(super) fn fit(&self, columns: &[ArrayRef]) -> Result<RecordBatch> {
        let schema = self.spec.schema();
        if columns.len() != schema.fields().len() {
            return Err(Error::invalid(format!(
                "rows do not have the table's columns: table=`{}` got=`{}` expected=`{}`",
                self.name,
                columns.len(),
                schema.fields().len()
            )));
        }
        let mut fitting = Vec::with_capacity(columns.len());
        for (place, (column, field)) in columns.iter().zip(schema.fields()).enumerate() {
            let column = to_type(column, field)?;
            self.check_null(&column, place, field)?;
            fitting.push(column);
        }
        RecordBatch::try_new(SchemaRef::clone(schema), fitting).map_err(|error| {
            Error::invalid(format!("rows do not fit the table: table=`{}`", self.name))
                .with_source(error)
        })
    }

    fn check_null(&self, column: &ArrayRef, place: usize, field: &Field) -> Result<()> {
        let is_key = self.spec.key_columns().contains(&place);
        if (field.is_nullable() && !is_key) || column.logical_null_count() == 0 {
            return Ok(());
        }
        let (what, why) = if is_key {
            ("a key", "a row without a key cannot be found again")
        } else {
            ("a value", "the column was declared NOT NULL")
        };
        Err(Error::data(format!(
            "{}: {what} is null: column=`{}`; {why}",
            self.name,
            field.name()
        )))
    }

    pub(super) fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        let columns = self.spec.key_columns().iter();
        columns
            .map(|column| Arc::clone(rows.column(*column)))
            .collect()
    }
}

/// A column in the type that the table has it in. What comes from SQL is of that type already.
pub(super) fn to_type(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(column, field.data_type(), &options).map_err(|error| {
        Error::invalid(format!(
            "a column has another type than in the table: column=`{}` got=`{}` expected=`{}`",
            field.name(),
            column.data_type(),
            field.data_type()
        ))
        .with_source(error)
    })
}

/// Fails if a key comes twice.
pub(super) fn check_unique(
    name: &str,
    spec: &TableSpec,
    keys: &[Vec<ArrayRef>],
    twice: &str,
) -> Result<()> {
    let fields = spec.key_schema().fields().to_vec();
    let mut unique = UniqueKeys::new(name, &fields, OnDuplicate::Error)?;
    keys.iter().try_for_each(|keys| unique.push(keys))?;
    check_duplicates(name, unique, twice)
}

fn check_duplicates(table: &str, unique: UniqueKeys, twice: &str) -> Result<()> {
    let Some(duplicates) = unique.finish()?.duplicates else {
        return Ok(());
    };
    Err(Error::data(format!(
        "{table}: {} duplicate key{} (first: {}); {twice}",
        duplicates.num_duplicate_rows,
        if duplicates.num_duplicate_rows == 1 {
            ""
        } else {
            "s"
        },
        duplicates.first.key
    )))
}

/// The key of a row as text.
pub(super) fn key_text(keys: &[ArrayRef], row: usize) -> String {
    let parts = keys.iter().map(|column| {
        ScalarValue::try_from_array(column, row)
            .map_or_else(|_| "?".to_owned(), |value| value.to_string())
    });
    parts.collect::<Vec<_>>().join(", ")
}
