//! Which columns come out of a join, under which names and as which types.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, Scalar, StringArray,
    cast::AsArray,
    types::{Int32Type, UInt32Type},
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef};
use arrow_select::zip::zip;

use super::spec::{JoinKind, JoinSpec, OnMiss, SelectColumn};
use crate::dimension::{Column, Pack, Wanted, column_index, too_large};
use crate::{Dimension, Error, ErrorKind, Result};

/// How a dimension's columns come out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// In the type that the dimension declares.
    #[default]
    Plain,
    /// Strings and binary as views over the dimension's buffers, all else plain.
    View,
    /// The dimension's column itself as the values of a dictionary, its build rows as the keys:
    /// nothing is gathered, and all columns of a dimension share one buffer of keys, which are
    /// `Int32` (`UInt32` for a dimension of more than 2^31 - 1 rows). Values may be null. Booleans,
    /// nested types, dictionaries, intervals, nulls and half floats come plain: IPC or Parquet
    /// cannot hold them as dictionary values, or not to advantage. Strings of a dimension whose
    /// column passes 2 GiB have 64-bit offsets.
    Dictionary,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::View => "view",
            Self::Dictionary => "dictionary",
        })
    }
}

/// One column that a dimension adds.
#[derive(Debug)]
pub(super) struct OutputColumn {
    /// Its place in the dimension.
    pub(super) column: usize,
    form: OutputForm,
    /// What missed rows have instead of null: an array of one value.
    default: Option<ArrayRef>,
}

/// Values of more bytes than this, on average, are long.
const LONG_BYTES: usize = 64;

impl OutputColumn {
    /// Whether plain values of it would take much more than the form that it has.
    pub(super) fn is_long(&self, dimension: &Dimension) -> bool {
        let values = dimension.column(self.column).values();
        self.form != OutputForm::Plain
            && values.get_buffer_memory_size() / LONG_BYTES > values.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputForm {
    Plain,
    View,
    Dictionary,
}

/// The columns that a join adds, and their fields in the output.
pub(super) fn plan_columns(
    spec: &JoinSpec,
    dimension: &Dimension,
    encoding: Encoding,
    taken: &mut HashSet<String>,
) -> Result<Vec<(OutputColumn, Field)>> {
    if matches!(spec.kind, JoinKind::Semi | JoinKind::Anti) {
        return Ok(Vec::new());
    }
    let all;
    let select = if let Some(select) = &spec.select {
        select
    } else {
        let is_key = |idx: usize| dimension.key_indices().contains(&idx);
        let fields = dimension.schema().fields().iter().enumerate();
        all = fields
            .filter(|(idx, _)| !is_key(*idx))
            .map(|(_, field)| SelectColumn {
                column: field.name().clone(),
                name: None,
            })
            .collect();
        &all
    };
    // Null keys leave nulls even where a miss drops the row or fails.
    let has_nulls = spec.kind == JoinKind::Left;
    debug_assert!(has_nulls || spec.on_miss == OnMiss::Null);
    for (name, _) in &spec.defaults {
        let is_known = |c: &SelectColumn| c.column == *name || c.name.as_ref() == Some(name);
        if !select.iter().any(is_known) {
            let names: Vec<&str> = select.iter().map(|c| c.column.as_str()).collect();
            return Err(Error::invalid(format!(
                "a default is for a column that the join does not add: column=`{name}` join=`{}` columns=`{}`",
                spec.alias(),
                names.join(", ")
            )));
        }
    }
    select
        .iter()
        .map(|SelectColumn { column, name }| {
            let idx = column_index(dimension.schema(), column)
                .map_err(|error| error.context(format_args!("join `{}`", spec.alias())))?;
            let name = output_name(spec.alias(), column, name.as_deref(), taken)?;
            let held = dimension.column(idx);
            let default = spec
                .defaults
                .iter()
                .find(|(named, _)| *named == name)
                .or_else(|| spec.defaults.iter().find(|(named, _)| named == column));
            let encoding = match encoding {
                // The default is no value of the dimension's dictionary.
                Encoding::Dictionary if default.is_some() => Encoding::Plain,
                encoding => encoding,
            };
            let (form, data_type) = output_form(held, encoding, dimension.num_rows());
            let default = default
                .map(|(_, text)| default_value(text, &data_type))
                .transpose()
                .map_err(|error| {
                    error.context(format_args!("join `{}`: default of `{name}`", spec.alias()))
                })?;
            if form == OutputForm::View {
                // Now rather than at the first gather, which then takes no lock.
                held.view_values()?;
            }
            let field = held.field().as_ref().clone();
            let is_nullable = has_nulls || field.is_nullable();
            let field = field
                .with_name(name)
                .with_data_type(data_type)
                .with_nullable(is_nullable);
            let column = OutputColumn {
                column: idx,
                form,
                default,
            };
            Ok((column, field))
        })
        .collect()
}

fn output_name(
    alias: &str,
    column: &str,
    name: Option<&str>,
    taken: &mut HashSet<String>,
) -> Result<String> {
    let refuse = |name: &str| {
        Err(Error::invalid(format!(
            "an output column's name is taken; give it another with `as`: name=`{name}` \
             column=`{column}` join=`{alias}`"
        )))
    };
    if let Some(name) = name {
        return if taken.insert(name.to_owned()) {
            Ok(name.to_owned())
        } else {
            refuse(name)
        };
    }
    if taken.insert(column.to_owned()) {
        return Ok(column.to_owned());
    }
    let prefixed = format!("{alias}_{column}");
    if taken.insert(prefixed.clone()) {
        Ok(prefixed)
    } else {
        refuse(&prefixed)
    }
}

fn output_form(column: &Column, encoding: Encoding, num_rows: usize) -> (OutputForm, DataType) {
    let declared = column.field().data_type();
    match encoding {
        Encoding::View => {
            if let Some(view_type) = column.view_type() {
                return (OutputForm::View, view_type);
            }
        }
        Encoding::Dictionary if suits_dictionary(declared) => {
            let keys = if has_wide_keys(num_rows) {
                DataType::UInt32
            } else {
                DataType::Int32
            };
            let values = column.values().data_type().clone();
            let data_type = DataType::Dictionary(Box::new(keys), Box::new(values));
            return (OutputForm::Dictionary, data_type);
        }
        Encoding::Plain | Encoding::Dictionary => {}
    }
    (OutputForm::Plain, declared.clone())
}

fn suits_dictionary(data_type: &DataType) -> bool {
    !data_type.is_nested()
        && !matches!(
            data_type,
            DataType::Boolean
                | DataType::Null
                | DataType::Dictionary(..)
                | DataType::Interval(_)
                | DataType::Float16
        )
}

fn has_wide_keys(num_rows: usize) -> bool {
    i32::try_from(num_rows).is_err()
}

/// The columns of a join that are gathered row by row, see [`Pack`].
#[derive(Debug)]
pub(super) struct PackedColumns {
    pack: Arc<Pack>,
    /// Their places among the join's columns, ascending.
    places: Vec<usize>,
}

impl PackedColumns {
    /// Bytes of a row, at most; `None` if it is not known yet whether they are packed.
    pub(super) fn row_bytes(&self) -> Option<usize> {
        self.pack.is_sure().then(|| self.pack.row_bytes())
    }

    /// Those of a join's columns that can be packed, if there is use in it.
    pub(super) fn plan(columns: &[OutputColumn], dimension: &Dimension) -> Result<Option<Self>> {
        let mut places = Vec::new();
        let mut held = Vec::new();
        for (place, OutputColumn { column, form, .. }) in columns.iter().enumerate() {
            let column = dimension.column(*column);
            let values = match form {
                OutputForm::Plain => column.values(),
                OutputForm::View => column.view_values()?,
                OutputForm::Dictionary => continue,
            };
            if Pack::takes(values) {
                places.push(place);
                held.push(Arc::clone(values));
            }
        }
        let pack = dimension.pack(held);
        Ok(pack.map(|pack| Self { pack, places }))
    }
}

/// What a join is going to do. Made by [`StarJoin::plan`](crate::StarJoin::plan).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JoinPlan<'j> {
    /// The join.
    pub spec: &'j JoinSpec,
    /// The dimension that it probes.
    pub dimension: &'j Dimension,
    /// The columns that it adds.
    pub columns: Vec<ColumnPlan<'j>>,
    /// Bytes of the rows into which a large dimension's columns are packed when as many rows were gathered as it has:
    /// at most so many, and fewer where columns turn out to have few values. `None` if they are packed only if a column
    /// turns out to, or not at all.
    pub packed_row_bytes: Option<usize>,
}

/// How a join adds a column.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ColumnPlan<'j> {
    /// Its name and type in the output.
    pub field: &'j Field,
    /// Its name in the dimension.
    pub column: &'j str,
    /// The encoding that it comes in: that of the join, where its type has that.
    pub encoding: Encoding,
    /// Whether it is one of those that are packed for sure.
    pub is_packed: bool,
}

/// How the columns of a join, which come out as `fields`, are made.
pub(super) fn describe<'j>(
    columns: &[OutputColumn],
    packed: Option<&PackedColumns>,
    fields: impl Iterator<Item = &'j FieldRef>,
    dimension: &'j Dimension,
) -> Vec<ColumnPlan<'j>> {
    let plans = columns.iter().zip(fields).enumerate();
    let plans = plans.map(|(place, (column, field))| ColumnPlan {
        field,
        column: dimension.schema().field(column.column).name(),
        encoding: match column.form {
            OutputForm::Plain => Encoding::Plain,
            OutputForm::View => Encoding::View,
            OutputForm::Dictionary => Encoding::Dictionary,
        },
        is_packed: packed
            .is_some_and(|packed| packed.pack.is_sure() && packed.places.contains(&place)),
    });
    plans.collect()
}

/// The columns of one join for rows whose build rows are `build_idx`.
pub(super) fn emit(
    columns: &[OutputColumn],
    packed: Option<&PackedColumns>,
    dimension: &Dimension,
    build_idx: &[u32],
    out: &mut Vec<ArrayRef>,
) -> Result<()> {
    if columns.is_empty() {
        return Ok(());
    }
    let wanted = Wanted::new(build_idx);
    let mut gathered: Vec<Option<ArrayRef>> = vec![None; columns.len()];
    if let Some(PackedColumns { pack, places }) = packed {
        let arrays = pack
            .gather(&wanted)
            .map_err(|error| too_large(dimension.name(), error))?;
        for (place, array) in places.iter().zip(arrays) {
            gathered[*place] = Some(array);
        }
    }
    let mut keyed: Option<ArrayRef> = None;
    for (OutputColumn { column, form, .. }, gathered) in columns.iter().zip(gathered) {
        let column = dimension.column(*column);
        out.push(match (form, gathered) {
            (OutputForm::Plain, Some(gathered)) => column.declare(gathered)?,
            (OutputForm::View, Some(gathered)) => gathered,
            (OutputForm::Plain, None) => column.gather(&wanted)?,
            (OutputForm::View, None) => column.gather_views(&wanted)?,
            (OutputForm::Dictionary, _) => {
                let array = match &keyed {
                    Some(keyed) => keyed
                        .as_any_dictionary()
                        .with_values(Arc::clone(column.values())),
                    None => dictionary(&wanted, dimension.num_rows(), column.values())?,
                };
                Arc::clone(keyed.insert(array))
            }
        });
    }
    Ok(())
}

/// Puts the defaults of a join's columns, which were made last, into the rows that it has missed.
pub(super) fn fill_defaults(
    columns: &[OutputColumn],
    is_missed: &BooleanArray,
    out: &mut [ArrayRef],
) -> Result<()> {
    let first = out.len().saturating_sub(columns.len());
    for (column, array) in columns.iter().zip(&mut out[first..]) {
        if let Some(default) = &column.default {
            *array = zip(is_missed, &Scalar::new(default), array).map_err(|error| {
                // Nothing else can be wrong with columns of one type.
                Error::new(
                    ErrorKind::Resource,
                    "a batch with its defaults is too large for a column's type; take smaller batches or another encoding",
                )
                .with_source(error)
            })?;
        }
    }
    Ok(())
}

/// A default as an array of one value.
fn default_value(text: &str, data_type: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let array = StringArray::from(vec![text]);
    cast_with_options(&array, data_type, &options).map_err(|error| {
        Error::invalid(format!(
            "the text is no value of the column's type: text=`{text}` type=`{data_type}`"
        ))
        .with_source(error)
    })
}

/// A dimension's column as a dictionary, with its rows as the keys. All columns of a dimension are as long as each other,
/// so other values can be put under the same keys.
#[expect(
    unsafe_code,
    reason = "Arrow looks at one key after the other, in the time that a probe takes"
)]
fn dictionary(wanted: &Wanted<'_>, num_rows: usize, values: &ArrayRef) -> Result<ArrayRef> {
    let has_wide_keys = has_wide_keys(num_rows);
    let most = if has_wide_keys {
        u32::MAX
    } else {
        i32::MAX.cast_unsigned()
    };
    let num_values = u32::try_from(values.len()).unwrap_or(u32::MAX);
    if !wanted.are_below(num_values.min(most)) {
        return Err(Error::internal(
            "cannot use a dimension's column as a dictionary: a row is past its end",
        ));
    }
    let values = Arc::clone(values);
    Ok(if has_wide_keys {
        let keys = wanted.indices().clone();
        // SAFETY: keys are rows that were found, which are below the number of values, or 0 where they are null: all that
        // `try_new` would look at.
        Arc::new(unsafe { DictionaryArray::<UInt32Type>::new_unchecked(keys, values) })
    } else {
        let keys = Int32Array::new(wanted.numbers(u32::cast_signed).into(), wanted.nulls());
        // SAFETY: as above, and none is negative.
        Arc::new(unsafe { DictionaryArray::<Int32Type>::new_unchecked(keys, values) })
    })
}
