//! What a lookup join does, apart from where its rows come from.

use std::{collections::BTreeSet, fmt, sync::Arc};

use arrow_schema::SchemaRef;
use datafusion::{
    common::{JoinSide, JoinType},
    physical_expr::{PhysicalExpr, PhysicalExprRef},
    physical_plan::joins::utils::ColumnIndex,
};

use super::side::DimensionSide;

/// Which facts come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those with a match.
    Inner,
    /// All; the dimension's columns are null without a match.
    Left,
    /// Those with a match, and nothing of the dimension.
    Semi,
    /// Those without one.
    Anti,
    /// Those that are not in the dimension for certain, as `NOT IN` means it: a null may be anything that is there.
    NotIn,
    /// All, with a column that says whether there is a match.
    Mark,
}

impl Kind {
    /// What a join does to the facts, if the dimension is on this side. `None` if it gives out rows of the dimension
    /// for which there is no fact.
    pub(super) fn of(
        join_type: JoinType,
        dimension: JoinSide,
        is_null_aware: bool,
    ) -> Option<Self> {
        use JoinType as Type;
        Some(match (join_type, dimension) {
            (Type::Inner, _) => Self::Inner,
            (Type::Left, JoinSide::Right) | (Type::Right, JoinSide::Left) => Self::Left,
            (Type::LeftSemi, JoinSide::Right) | (Type::RightSemi, JoinSide::Left) => Self::Semi,
            (Type::LeftAnti, JoinSide::Right) if is_null_aware => Self::NotIn,
            (Type::LeftAnti, JoinSide::Right) | (Type::RightAnti, JoinSide::Left) => Self::Anti,
            (Type::LeftMark, JoinSide::Right) | (Type::RightMark, JoinSide::Left) => Self::Mark,
            _ => return None,
        })
    }

    /// Whether every fact comes out.
    pub(super) fn keeps_all(self) -> bool {
        matches!(self, Self::Left | Self::Mark)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Semi => "semi",
            Self::Anti => "anti",
            Self::NotIn => "not in",
            Self::Mark => "mark",
        })
    }
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// This column of the facts.
    Fact(usize),
    /// This column of the plan that the dimension stands for.
    Dimension(usize),
    /// Whether there is a match.
    Mark,
}

impl Source {
    /// What DataFusion says of a join's column, if the dimension is on this side.
    pub(super) fn of(column: &ColumnIndex, dimension: JoinSide) -> Self {
        match column.side {
            JoinSide::None => Self::Mark,
            side if side == dimension => Self::Dimension(column.index),
            _ => Self::Fact(column.index),
        }
    }
}

/// What must be true beside the equality of keys, for a fact and the one row that it may match.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    pub(super) expression: Arc<dyn PhysicalExpr>,
    /// The columns that it sees.
    pub(super) sources: Vec<Source>,
    pub(super) schema: SchemaRef,
}

/// What a lookup join does to facts of a schema.
#[derive(Clone, Debug)]
pub(super) struct LookupSpec {
    pub(super) kind: Kind,
    pub(super) dimension: DimensionSide,
    /// What each column of the key must equal, in the order of the key.
    pub(super) keys: Vec<PhysicalExprRef>,
    pub(super) residual: Option<Residual>,
    /// The columns that come out, and their schema.
    pub(super) output: Vec<Source>,
    pub(super) schema: SchemaRef,
}

impl LookupSpec {
    /// The columns of the plan that the dimension stands for which are needed, ascending.
    pub(super) fn dimension_columns(&self) -> Vec<usize> {
        self.needed(|source| match source {
            Source::Dimension(column) => Some(column),
            Source::Fact(_) | Source::Mark => None,
        })
    }

    /// The columns of the facts that are needed beside those that are compared, ascending.
    pub(super) fn fact_columns(&self) -> Vec<usize> {
        self.needed(|source| match source {
            Source::Fact(column) => Some(column),
            Source::Dimension(_) | Source::Mark => None,
        })
    }

    fn needed(&self, of: impl Fn(Source) -> Option<usize>) -> Vec<usize> {
        let residual = self.residual.iter().flat_map(|residual| &residual.sources);
        let sources = self.output.iter().chain(residual);
        let columns: BTreeSet<usize> = sources.filter_map(|source| of(*source)).collect();
        columns.into_iter().collect()
    }

    /// The names of the table's columns that the dimension must have beside its key.
    pub(super) fn table_columns(&self) -> Vec<String> {
        let columns = self.dimension_columns().into_iter();
        columns
            .filter_map(|column| self.dimension.table_column(column))
            .map(str::to_owned)
            .collect()
    }
}
