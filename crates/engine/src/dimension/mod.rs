//! Dimensions: immutable keyed rows, ready to be probed.

mod builder;
mod cells;
mod codes;
mod column;
mod gather;
mod lookup;
mod matches;
mod packed;
mod resolve;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::{FieldRef, SchemaRef};

pub use self::builder::DimensionBuilder;
pub(crate) use self::column::Column;
pub(crate) use self::gather::Wanted;
use self::lookup::WholePack;
pub use self::lookup::{Found, Key};
pub(crate) use self::lookup::{batch, column_index, too_large};
pub use self::matches::Matches;
use self::matches::SeenDictionary;
pub(crate) use self::packed::Pack;
pub(crate) use self::resolve::{Event, Step, resolve};
use crate::index::{Index, Layout, NO_MATCH};
use crate::key::{KeyForm, KeyPlan, KeyScratch, null_union, plain_column, plain_columns};
use crate::{Error, Result};

/// The build side of a join: rows with a unique key, and the index over it.
///
/// Immutable; share it by `Arc`. Rows are numbered from 0 in the order in which they were inserted;
/// rows that were superseded or deleted while it was built have no number and can't be seen.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
/// use darner_engine::{DimensionBuilder, Matches, NO_MATCH};
///
/// let rows = RecordBatch::try_from_iter([
///     ("id", Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef),
///     ("name", Arc::new(StringArray::from(vec!["seven", "eight"])) as ArrayRef),
/// ])?;
/// let mut builder = DimensionBuilder::new("numbers", rows.schema(), &["id".to_owned()])?;
/// builder.upsert(rows)?;
/// let dimension = builder.finish()?;
///
/// let facts: ArrayRef = Arc::new(Int32Array::from(vec![Some(8), None, Some(9)]));
/// let mut matches = Matches::default();
/// dimension.probe(&[facts], &mut matches)?;
/// assert_eq!(matches.build_idx(), [1, NO_MATCH, NO_MATCH]);
/// assert_eq!((matches.num_matched(), matches.num_null_keys()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Dimension {
    /// A number that no other dimension of this process has.
    id: u64,
    version: u64,
    schema: SchemaRef,
    /// The places of the key columns in the schema, in key order.
    key_indices: Vec<usize>,
    columns: Vec<Column>,
    num_rows: u32,
    form: KeyForm,
    index: Index,
    layout: Layout,
    /// Columns that joins have asked for together.
    packs: Mutex<Vec<Arc<Pack>>>,
    /// All that can be packed, when lookups of many keys have asked for it. `None` if it is of no use.
    whole: OnceLock<Option<WholePack>>,
}

impl Dimension {
    /// The name that it was built with.
    pub fn name(&self) -> &str {
        self.form.table()
    }

    /// The version of the table that it holds; 0 if none was given.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All columns, in the order given to the builder, less those that its projection left out.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The key columns, in key order.
    pub fn key_fields(&self) -> &[FieldRef] {
        self.form.fields()
    }

    /// The number of rows, which is the number of distinct keys.
    pub fn num_rows(&self) -> usize {
        self.num_rows as usize
    }

    /// The layout of the index, and why.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The bytes that the index takes.
    pub fn index_bytes(&self) -> usize {
        self.index.num_bytes() + self.form.num_bytes()
    }

    /// The bytes that columns and index take. Grows when a join first asks for a column as views, and when columns are
    /// packed into rows because many were gathered.
    pub fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().map(Column::num_bytes);
        let packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        let packed = packs.iter().map(|pack| pack.num_bytes());
        self.index_bytes() + columns.chain(packed).sum::<usize>()
    }

    /// Columns that are gathered together, of which `Pack::takes` is true. `None` if to pack them is of no use.
    pub(crate) fn pack(&self, columns: Vec<ArrayRef>) -> Option<Arc<Pack>> {
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = packs.iter().find(|pack| pack.is_of(&columns)) {
            return Some(Arc::clone(pack));
        }
        let pack = Arc::new(Pack::new(columns)?);
        packs.push(Arc::clone(&pack));
        Some(pack)
    }

    /// Prepares the comparison of fact columns of these types (in key order) with the key.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if their number is not that of the key
    /// columns or a pair cannot be compared; the message names both columns, both types and a
    /// remedy.
    pub fn bind(&self, fact_fields: &[FieldRef]) -> Result<KeyPlan> {
        self.form.bind(fact_fields)
    }

    /// Finds the build row of every key: [`bind`](Self::bind) and
    /// [`probe_bound`](Self::probe_bound) in one.
    ///
    /// # Shapes
    /// `keys`: one array per key column, in key order, equal lengths, of comparable types, nulls
    /// allowed. Afterwards `out` has one entry per key.
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) as for `bind`, and if lengths differ.
    pub fn probe(&self, keys: &[ArrayRef], out: &mut Matches) -> Result<()> {
        self.probe_bound(&self.bind(&lookup::fields_of(keys))?, keys, out)
    }

    /// Finds the build row of every key, with a plan that [`bind`](Self::bind) of this dimension
    /// made.
    ///
    /// # Shapes
    /// As for [`probe`](Self::probe); the types must be those that were bound.
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if types, number or lengths of the columns
    /// are others.
    /// # Panics
    /// May panic with a plan of another dimension.
    pub fn probe_bound(&self, plan: &KeyPlan, keys: &[ArrayRef], out: &mut Matches) -> Result<()> {
        let num_rows = keys.first().map_or(0, Array::len);
        if keys.iter().any(|key| key.len() != num_rows) || keys.len() != self.key_indices.len() {
            return Err(Error::invalid(format!(
                "key columns must be as many as the key has and of one length: got=`{:?}` \
                 expected=`{}` dimension=`{}`",
                keys.iter().map(Array::len).collect::<Vec<_>>(),
                self.key_indices.len(),
                self.name()
            )));
        }
        let Matches {
            build_idx,
            nulls,
            scratch,
            dictionary,
            ..
        } = out;
        build_idx.clear();
        if plan.is_always_null() {
            build_idx.resize(num_rows, NO_MATCH);
            *nulls = (num_rows > 0).then(|| NullBuffer::new_null(num_rows));
        } else {
            *nulls = null_union(keys);
            match keys {
                [key] if self.is_worth_mapping(key, dictionary) => {
                    self.probe_dictionary(plan, key, scratch, dictionary, build_idx)?;
                }
                _ => self.probe_plain(plan, &plain_columns(keys)?, scratch, build_idx)?,
            }
            clear_nulls(nulls.as_ref(), build_idx);
        }
        out.count();
        Ok(())
    }

    /// Probes plain columns. What comes out at a null means nothing.
    fn probe_plain(
        &self,
        plan: &KeyPlan,
        columns: &[ArrayRef],
        scratch: &mut KeyScratch,
        build_idx: &mut Vec<u32>,
    ) -> Result<()> {
        let encoded = plan.encode(columns, scratch)?;
        self.index.probe(&encoded.values, build_idx);
        for &row in encoded.misses {
            build_idx[row as usize] = NO_MATCH;
        }
        Ok(())
    }

    /// Whether a key column is a dictionary of which all values are better looked for once: because as many keys of it
    /// have come, now or before, as it has values.
    fn is_worth_mapping(&self, key: &ArrayRef, seen: &mut Option<SeenDictionary>) -> bool {
        let Some(dictionary) = key.as_any_dictionary_opt() else {
            return false;
        };
        let values = dictionary.values();
        let known =
            seen.take_if(|seen| seen.dimension == self.id && Arc::ptr_eq(&seen.values, values));
        let seen = seen.insert(known.unwrap_or_else(|| SeenDictionary {
            dimension: self.id,
            values: Arc::clone(values),
            num_keys: 0,
            rows: None,
        }));
        seen.num_keys += dictionary.len();
        !values.is_empty() && seen.num_keys >= values.len()
    }

    /// Probes every value of a dictionary, which was seen just now, once. What comes out at a null means nothing.
    fn probe_dictionary(
        &self,
        plan: &KeyPlan,
        column: &ArrayRef,
        scratch: &mut KeyScratch,
        seen: &mut Option<SeenDictionary>,
        build_idx: &mut Vec<u32>,
    ) -> Result<()> {
        let dictionary = column.as_any_dictionary();
        let known = seen.as_mut().and_then(|seen| seen.rows.take());
        let values = plain_column(dictionary.values())?;
        let rows = if let Some(rows) = known {
            plan.check(&[values])?;
            rows
        } else {
            let mut rows = Vec::with_capacity(values.len());
            self.probe_plain(plan, &[values], scratch, &mut rows)?;
            rows
        };
        let keys = dictionary.normalized_keys();
        build_idx.extend(keys.into_iter().map(|key| rows[key]));
        if let Some(seen) = seen {
            seen.rows = Some(rows);
        }
        Ok(())
    }

    pub(crate) fn column(&self, idx: usize) -> &Column {
        &self.columns[idx]
    }

    pub(crate) fn key_indices(&self) -> &[usize] {
        &self.key_indices
    }

    /// The live rows in the order of their insertion, in batches of up to `batch_rows` rows (at
    /// least one).
    ///
    /// Columns are in schema order and shared, not copied, but for strings that had to be held with
    /// 64-bit offsets.
    ///
    /// # Errors
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource) if one batch's strings pass 2 GiB and
    /// their type does not hold that.
    pub fn batches(&self, batch_rows: usize) -> impl Iterator<Item = Result<RecordBatch>> + '_ {
        let batch_rows = batch_rows.max(1);
        (0..self.num_rows()).step_by(batch_rows).map(move |start| {
            let len = batch_rows.min(self.num_rows() - start);
            let columns = self
                .columns
                .iter()
                .map(|column| column.slice(start, len))
                .collect::<Result<_>>()?;
            batch(Arc::clone(&self.schema), columns, len)
        })
    }
}

fn clear_nulls(nulls: Option<&NullBuffer>, build_idx: &mut [u32]) {
    if let Some(nulls) = nulls {
        for (row, is_valid) in build_idx.iter_mut().zip(nulls) {
            if !is_valid {
                *row = NO_MATCH;
            }
        }
    }
}
