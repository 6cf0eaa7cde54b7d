use std::fmt;

use arrow_schema::Schema;

use super::normalize::Normalize;
use crate::dimension::column_index;
use crate::{Dimension, Error, Result};

/// Which fact rows a join keeps, and whether it adds columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinKind {
    /// Every row; the dimension's columns are null without a match.
    #[default]
    Left,
    /// Rows with a match.
    Inner,
    /// Rows with a match; adds no columns.
    Semi,
    /// Rows without a match, those with a null key among them; adds no columns.
    Anti,
}

/// What a left join does with a key that the dimension has not. A null key is not a miss: its row
/// is always kept, with nulls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMiss {
    /// Keeps the row, with nulls.
    #[default]
    Null,
    /// Leaves the row out.
    Drop,
    /// Fails.
    Error,
    /// Keeps the row, with the values of [`JoinSpec::defaults`].
    Default,
    /// Leaves the row out of the output and puts it among the unmatched rows, which must have a place to go:
    /// [`Sinks::unmatched`](crate::Sinks::unmatched).
    Route,
}

/// One join of facts with one dimension, as a user states it.
///
/// # Examples
/// ```
/// use darner_engine::{JoinKind, JoinSpec};
///
/// let spec = JoinSpec::parse("inner airports as o on origin=faa select name as origin_name")?;
/// assert_eq!((spec.table.as_str(), spec.kind), ("airports", JoinKind::Inner));
/// # Ok::<(), darner_engine::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinSpec {
    /// The dimension's table.
    pub table: String,
    /// The name to use for it here; `None` is the table's.
    pub alias: Option<String>,
    /// Which rows are kept.
    pub kind: JoinKind,
    /// The pairs of columns that must be equal: the whole key of the dimension, in any order.
    pub on: Vec<OnColumn>,
    /// The dimension's columns to add; `None` is every column outside the key.
    pub select: Option<Vec<SelectColumn>>,
    /// What a left join does without a match; other kinds take [`OnMiss::Null`] only.
    pub on_miss: OnMiss,
    /// With [`OnMiss::Default`], columns that the join adds, by their names in the output or in the dimension, and
    /// what they are in missed rows, as text. Columns that are not named are null.
    pub defaults: Vec<(String, String)>,
    /// What is done to the fact columns of `on` before they are compared, in their order; nothing where it is shorter.
    pub normalize: Vec<Vec<Normalize>>,
}

/// A fact column and the key column that it must equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnColumn {
    /// The fact column.
    pub fact: String,
    /// The key column; `None` is the key column of the same name, or else the only one.
    pub key: Option<String>,
}

/// A column of the dimension to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectColumn {
    /// Its name in the dimension.
    pub column: String,
    /// Its name in the output; `None` keeps the name, or puts the alias before it where that is
    /// taken.
    pub name: Option<String>,
}

impl JoinSpec {
    /// The alias, or else the table.
    pub fn alias(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.table)
    }

    /// The fact columns' places in key order, and what is done to each.
    pub(super) fn key_columns(
        &self,
        fact: &Schema,
        dimension: &Dimension,
    ) -> Result<Vec<(usize, Vec<Normalize>)>> {
        let names: Vec<&str> = dimension
            .key_fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let key_error = |what: &str, column: &str| {
            Error::invalid(format!(
                "{what}: column=`{column}` key=`{}` dimension=`{}`",
                names.join(", "),
                dimension.name()
            ))
        };
        let mut fact_of_key: Vec<Option<(usize, Vec<Normalize>)>> = vec![None; names.len()];
        for (place, on) in self.on.iter().enumerate() {
            let OnColumn {
                fact: fact_column,
                key,
            } = on;
            let fact_idx = column_index(fact, fact_column)
                .map_err(|error| error.context(format_args!("fact of join `{}`", self.alias())))?;
            let key_name = key.as_ref().unwrap_or(fact_column);
            let key_idx = match names.iter().position(|name| name == key_name) {
                Some(idx) => idx,
                None if key.is_none() && names.len() == 1 => 0,
                None => {
                    let what = "a join must be on the key of its dimension; no such key column";
                    return Err(key_error(what, key_name));
                }
            };
            let steps = self.normalize.get(place).cloned().unwrap_or_default();
            if fact_of_key[key_idx].replace((fact_idx, steps)).is_some() {
                return Err(key_error("a join names a key column twice", names[key_idx]));
            }
        }
        fact_of_key
            .into_iter()
            .zip(&names)
            .map(|(fact_idx, name)| {
                let what = "a join must be on every column of the key; one is left out";
                fact_idx.ok_or_else(|| key_error(what, name))
            })
            .collect()
    }

    /// Checks what does not depend on schemas.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what: &str| {
            Err(Error::invalid(format!(
                "{what}: kind=`{}` join=`{}`",
                self.kind,
                self.alias()
            )))
        };
        if self.kind != JoinKind::Left && self.on_miss != OnMiss::Null {
            return refuse("only a left join has a choice of what to do on a miss");
        }
        if (self.on_miss == OnMiss::Default) == self.defaults.is_empty() {
            return refuse("default values and on_miss default go together");
        }
        if matches!(self.kind, JoinKind::Semi | JoinKind::Anti) && self.select.is_some() {
            return refuse("a semi or anti join adds no columns; leave out its select");
        }
        Ok(())
    }
}

impl fmt::Display for JoinKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Inner => "inner",
            Self::Semi => "semi",
            Self::Anti => "anti",
        })
    }
}

impl fmt::Display for OnMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Drop => "drop",
            Self::Error => "error",
            Self::Default => "default",
            Self::Route => "route",
        })
    }
}
