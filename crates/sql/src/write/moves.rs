//! Rows that may get other keys.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, RecordBatch, cast::AsArray, types::Int32Type,
};
use darner_engine::{Error, Matches, NO_MATCH, Result, load_dimension};
use darner_store::TableSnapshot;
use datafusion::arrow::compute::{filter, filter_record_batch, kernels::cmp::distinct, or};

use super::apply::{Writing, check_unique, key_text, to_type};

/// What a `MERGE` does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowAction {
    Insert,
    Update,
    Delete,
}

impl RowAction {
    fn has_old(self) -> bool {
        self != Self::Insert
    }

    fn has_new(self) -> bool {
        self != Self::Delete
    }
}

/// Rows by their old and their new keys. The old keys go before any new row comes, so that rows can also swap theirs.
/// All is held until it is known that no row takes the place of one that stays.
#[derive(Default)]
pub(super) struct Moves {
    /// The keys of the rows that were there.
    olds: Vec<Vec<ArrayRef>>,
    /// Those of them that have no new row.
    gone: Vec<Vec<ArrayRef>>,
    news: Vec<RecordBatch>,
    num_rows: u64,
}

impl Moves {
    /// Takes in rows that all were there, with their old keys.
    pub(super) fn update(
        &mut self,
        writing: &Writing<'_, '_>,
        new: RecordBatch,
        old: Vec<ArrayRef>,
    ) -> Result<()> {
        self.num_rows += new.num_rows() as u64;
        let is_moved = are_distinct(&old, &writing.keys(&new))?;
        self.gone.push(only(&old, &is_moved)?);
        self.olds.push(old);
        self.news.push(new);
        Ok(())
    }

    /// Takes in rows of a `MERGE`: their columns, their old keys, and which of the actions is done with each.
    pub(super) fn merge(
        &mut self,
        writing: &Writing<'_, '_>,
        rows: &RecordBatch,
        actions: &[RowAction],
    ) -> Result<()> {
        let (num_columns, key) = (
            writing.spec.schema().fields().len(),
            writing.spec.key_schema(),
        );
        let num_keys = key.fields().len();
        let missing = || Error::internal("rows of a MERGE have no action");
        let places: &Int32Array = rows
            .columns()
            .get(num_columns + num_keys)
            .and_then(|places| places.as_primitive_opt::<Int32Type>())
            .ok_or_else(missing)?;
        let actions: Option<Vec<RowAction>> = places
            .iter()
            .map(|place| actions.get(usize::try_from(place?).ok()?).copied())
            .collect();
        let actions = actions.ok_or_else(missing)?;
        let mask = |is: fn(RowAction) -> bool| -> BooleanArray {
            actions.iter().map(|action| Some(is(*action))).collect()
        };
        let (has_old, has_new) = (mask(RowAction::has_old), mask(RowAction::has_new));
        let new = writing.fit(&rows.columns()[..num_columns])?;
        let mut old = Vec::with_capacity(num_keys);
        for (column, field) in rows.columns()[num_columns..].iter().zip(key.fields()) {
            old.push(to_type(column, field)?);
        }
        // A row that is deleted stands here with the key that it had.
        let is_gone = or(
            &are_distinct(&old, &writing.keys(&new))?,
            &mask(|action| action == RowAction::Delete),
        );
        let is_gone = is_gone.and_then(|gone| datafusion::arrow::compute::and(&gone, &has_old));
        let is_gone = is_gone.map_err(failed)?;
        self.num_rows += rows.num_rows() as u64;
        self.gone.push(only(&old, &is_gone)?);
        self.olds.push(only(&old, &has_old)?);
        self.news
            .push(filter_record_batch(&new, &has_new).map_err(failed)?);
        Ok(())
    }

    /// Checks all keys and stages all changes. Returns the number of rows. `twice` says what it means that a row that
    /// was there comes twice.
    pub(super) fn finish(
        self,
        writing: &mut Writing<'_, '_>,
        table: &TableSnapshot,
        twice: &str,
    ) -> Result<u64> {
        let (name, spec) = (writing.name, Arc::clone(writing.spec));
        check_unique(name, &spec, &self.olds, twice)?;
        let new_keys: Vec<Vec<ArrayRef>> =
            self.news.iter().map(|rows| writing.keys(rows)).collect();
        check_unique(name, &spec, &new_keys, "several rows would get one key")?;
        check_free(table, &self.olds, &new_keys)?;
        for gone in self.gone {
            let keys = RecordBatch::try_new(Arc::clone(spec.key_schema()), gone);
            writing.transaction.delete(name, &keys.map_err(failed)?)?;
        }
        for new in self.news {
            writing.transaction.upsert(name, &new)?;
        }
        Ok(self.num_rows)
    }
}

/// Fails if a new key is that of a row that keeps it.
fn check_free(table: &TableSnapshot, olds: &[Vec<ArrayRef>], news: &[Vec<ArrayRef>]) -> Result<()> {
    let dimension = load_dimension(table, Some(&[]))?;
    let mut matches = Matches::default();
    let mut leaving = HashSet::new();
    for old in olds {
        dimension.probe(old, &mut matches)?;
        leaving.extend(matches.build_idx().iter().copied());
    }
    for new in news {
        dimension.probe(new, &mut matches)?;
        let is_taken = |row: &u32| *row != NO_MATCH && !leaving.contains(row);
        if let Some(row) = matches.build_idx().iter().position(is_taken) {
            return Err(Error::data(format!(
                "{}: a row would get the key of another row: key=`{}`",
                table.name(),
                key_text(new, row)
            )));
        }
    }
    Ok(())
}

/// Which rows have another key on one side than on the other.
fn are_distinct(left: &[ArrayRef], right: &[ArrayRef]) -> Result<BooleanArray> {
    let num_rows = left.first().map_or(0, Array::len);
    let mut all = BooleanArray::from(vec![false; num_rows]);
    for (left, right) in left.iter().zip(right) {
        let one = distinct(left, right).map_err(failed)?;
        all = or(&all, &one).map_err(failed)?;
    }
    Ok(all)
}

fn only(columns: &[ArrayRef], mask: &BooleanArray) -> Result<Vec<ArrayRef>> {
    let kept = columns.iter().map(|column| filter(column, mask));
    kept.collect::<Result<_, _>>().map_err(failed)
}

fn failed(error: arrow_schema::ArrowError) -> Error {
    Error::internal("keys of changed rows cannot be compared").with_source(error)
}
