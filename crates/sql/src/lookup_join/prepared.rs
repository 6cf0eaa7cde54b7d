//! A lookup join that has its dimension: facts in, joined rows out.
//!
//! The engine's [`StarJoin`] finds the rows and gathers the columns. It goes by names, and those of DataFusion's plans
//! need not be distinct, so columns have names of their own in here: `f3` is the fact column 3, `k0` the first part of
//! the key where that has to be computed, `d5` the column 5 of the table.

use std::{fmt, sync::Arc};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, cast::AsArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_engine::{
    Collect, Dimension, Encoding, JoinCounters, JoinKind, JoinSpec, JoinTimes, OnColumn, Scratch,
    SelectColumn, StarJoin,
};
use datafusion::{
    arrow::compute::{
        CastOptions, and, cast_with_options, filter_record_batch, is_not_null,
        kernels::nullif::nullif, not,
    },
    common::internal_datafusion_err,
    error::{DataFusionError, Result},
    physical_expr::{PhysicalExpr, PhysicalExprRef, expressions::Column},
};

use super::spec::{Kind, LookupSpec, Source};
use crate::error::to_datafusion;

/// See the [module](self).
pub(super) struct Prepared {
    join: StarJoin,
    kind: Kind,
    /// Parts of the key that are computed, and come after the columns of the facts.
    computed: Vec<PhysicalExprRef>,
    /// Where the joined rows have a column that is null where there was no match, if that is asked for.
    found: Option<usize>,
    /// Where they have the key's only part, for `NOT IN` among rows.
    null_key: Option<usize>,
    residual: Option<PreparedResidual>,
    output: Vec<Place>,
    schema: SchemaRef,
}

struct PreparedResidual {
    expression: Arc<dyn PhysicalExpr>,
    places: Vec<Place>,
    schema: SchemaRef,
}

/// Where a column stands in what the engine's join gives.
enum Place {
    Fact(usize),
    /// With the type that it is to have, if that is not the table's.
    Dimension(usize, Option<DataType>),
    Mark,
}

/// What became of a batch.
pub(super) struct Joined {
    pub(super) rows: RecordBatch,
    pub(super) counters: JoinCounters,
    pub(super) times: JoinTimes,
}

/// Says nothing of the dimension, which is a whole table.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl Prepared {
    /// Plans the lookup of facts of a schema in a dimension, which has the columns that the join needs.
    ///
    /// # Errors
    /// If they do not fit, which the planner has made sure of.
    pub(super) fn try_new(
        spec: &LookupSpec,
        facts: &SchemaRef,
        dimension: Arc<Dimension>,
    ) -> Result<Self> {
        let has_residual = spec.residual.is_some();
        let kind = match spec.kind {
            Kind::Inner => JoinKind::Inner,
            Kind::Semi if has_residual => JoinKind::Inner,
            Kind::Semi => JoinKind::Semi,
            Kind::Anti if has_residual => JoinKind::Left,
            Kind::Anti | Kind::NotIn => JoinKind::Anti,
            Kind::Left | Kind::Mark => JoinKind::Left,
        };
        let mut columns = Columns::new(spec, facts)?;
        let found = kind == JoinKind::Left && (has_residual || spec.kind == Kind::Mark);
        let found = found.then(|| columns.ask_found()).flatten();
        // Nothing is unknown about what is not in an empty set.
        let null_key = spec.kind == Kind::NotIn && dimension.num_rows() > 0;
        let null_key = null_key.then(|| columns.ask_null_key()).flatten();
        let join = columns.join(kind, dimension)?.with_collect(Collect {
            missing_keys: false,
            missed_rows: false,
            times: true,
        });
        let residual = spec.residual.as_ref().map(|residual| {
            Ok::<_, DataFusionError>(PreparedResidual {
                expression: Arc::clone(&residual.expression),
                places: columns.places(&residual.sources)?,
                schema: nullable(&residual.schema),
            })
        });
        Ok(Self {
            join,
            kind: spec.kind,
            found: found.map(|index| columns.table_place(index)).transpose()?,
            null_key: null_key.map(|fact| columns.fact_place(fact)).transpose()?,
            residual: residual.transpose()?,
            output: columns.places(&spec.output)?,
            schema: Arc::clone(&spec.schema),
            computed: columns.computed,
        })
    }

    /// Joins one batch of facts. Rows keep their order.
    ///
    /// # Errors
    /// Those of the further condition, and [`ErrorKind::Resource`](darner_engine::ErrorKind::Resource) if a column of
    /// the output passes what its type holds.
    pub(super) fn join(&self, facts: &RecordBatch, scratch: &mut Scratch) -> Result<Joined> {
        let facts = self.facts(facts)?;
        let joined = self.join.join(&facts, scratch).map_err(to_datafusion)?;
        let mut rows = joined.batch;
        let mut matched = match self.found {
            None => None,
            Some(at) => Some(is_not_null(rows.column(at))?),
        };
        if let Some(residual) = &self.residual {
            let is_true = residual.evaluate(&rows, matched.as_ref())?;
            matched = Some(match &matched {
                None => is_true,
                Some(matched) => and(matched, &is_true)?,
            });
        }
        let kept = match (self.kind, self.null_key) {
            (Kind::NotIn, Some(at)) => Some(is_not_null(rows.column(at))?),
            (Kind::Inner | Kind::Semi, _) => matched.clone(),
            (Kind::Anti, _) => matched.as_ref().map(not).transpose()?,
            (Kind::Left | Kind::Mark | Kind::NotIn, _) => None,
        };
        if let Some(kept) = kept.filter(BooleanArray::has_false) {
            rows = filter_record_batch(&rows, &kept)?;
        }
        let missed = match (self.kind, &matched, &self.residual) {
            (Kind::Left, Some(matched), Some(_)) => Some(not(matched)?),
            _ => None,
        };
        let columns = self.output.iter().map(|place| {
            let Place::Mark = place else {
                let column = place.column(&rows)?;
                return match (&missed, place) {
                    (Some(missed), Place::Dimension(..)) => Ok(nullif(&column, missed)?),
                    _ => Ok(column),
                };
            };
            let mark = matched.clone();
            let mark = mark.ok_or_else(|| internal_datafusion_err!("a mark join marks nothing"))?;
            Ok(Arc::new(mark) as ArrayRef)
        });
        let columns = columns.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let schema = Arc::clone(&self.schema);
        Ok(Joined {
            rows: RecordBatch::try_new_with_options(schema, columns, &options)?,
            counters: joined.counters.first().copied().unwrap_or_default(),
            times: joined.times.first().copied().unwrap_or_default(),
        })
    }

    /// The facts under the names that they have here, with the parts of the key that are computed.
    fn facts(&self, facts: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = facts.columns().to_vec();
        for key in &self.computed {
            columns.push(key.evaluate(facts)?.into_array(facts.num_rows())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(facts.num_rows()));
        let schema = Arc::clone(self.join.fact_schema());
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

/// The columns that go into the engine's join, and those that come out: facts first, then the dimension's.
struct Columns<'s> {
    spec: &'s LookupSpec,
    /// The facts' columns, and the computed parts of the key.
    fields: Vec<Field>,
    computed: Vec<PhysicalExprRef>,
    /// The parts of the key among them.
    keys: Vec<usize>,
    /// Those that come out, ascending.
    facts: Vec<usize>,
    /// The columns of the table that come out, ascending.
    table: Vec<usize>,
}

impl<'s> Columns<'s> {
    fn new(spec: &'s LookupSpec, facts: &SchemaRef) -> Result<Self> {
        let mut fields: Vec<Field> = facts.fields().iter().enumerate().map(fact_field).collect();
        let mut computed = Vec::new();
        let mut keys = Vec::new();
        for key in &spec.keys {
            if let Some(column) = key.downcast_ref::<Column>() {
                keys.push(column.index());
            } else {
                let name = format!("k{}", computed.len());
                keys.push(fields.len());
                fields.push(Field::new(name, key.data_type(facts)?, true));
                computed.push(Arc::clone(key));
            }
        }
        let table = spec.dimension_columns().into_iter();
        let table = table.filter_map(|column| Some(spec.dimension.column(column)?.index));
        let mut table: Vec<usize> = table.collect();
        table.sort_unstable();
        table.dedup();
        Ok(Self {
            spec,
            fields,
            computed,
            keys,
            facts: spec.fact_columns(),
            table,
        })
    }

    /// Has a column come out that is null where nothing was found: one of the key, which is never null itself.
    fn ask_found(&mut self) -> Option<usize> {
        let spec = self.spec.dimension.snapshot().spec();
        let index = *spec.key_columns().first()?;
        self.table.push(index);
        self.table.sort_unstable();
        self.table.dedup();
        Some(index)
    }

    /// Has the key's first part come out, of the facts.
    fn ask_null_key(&mut self) -> Option<usize> {
        let key = *self.keys.first()?;
        self.facts.push(key);
        self.facts.sort_unstable();
        self.facts.dedup();
        Some(key)
    }

    fn join(&self, kind: JoinKind, dimension: Arc<Dimension>) -> Result<StarJoin> {
        let snapshot = self.spec.dimension.snapshot();
        let fact_name = |column: usize| self.fields[column].name().clone();
        let select = self.table.iter().map(|&index| SelectColumn {
            column: snapshot.schema().field(index).name().clone(),
            name: Some(format!("d{index}")),
        });
        let on = self.keys.iter().zip(snapshot.key_names());
        let on = on.map(|(&fact, key)| OnColumn {
            fact: fact_name(fact),
            key: Some(key.to_owned()),
        });
        let spec = JoinSpec {
            table: dimension.name().to_owned(),
            alias: None,
            kind,
            on: on.collect(),
            select: matches!(kind, JoinKind::Inner | JoinKind::Left).then(|| select.collect()),
            ..JoinSpec::default()
        };
        let facts: Vec<String> = self.facts.iter().map(|&fact| fact_name(fact)).collect();
        let schema = Arc::new(Schema::new(self.fields.clone()));
        StarJoin::new(
            &schema,
            Some(&facts),
            vec![(spec, dimension)],
            // What queries see of a table: see `string_views.rs`.
            Encoding::View,
        )
        .map_err(to_datafusion)
    }

    /// Where a column of the facts comes out.
    fn fact_place(&self, fact: usize) -> Result<usize> {
        self.facts.binary_search(&fact).map_err(|_| lost())
    }

    /// Where a column of the table comes out.
    fn table_place(&self, index: usize) -> Result<usize> {
        let at = self.table.binary_search(&index).map_err(|_| lost())?;
        Ok(self.facts.len() + at)
    }

    fn places(&self, sources: &[Source]) -> Result<Vec<Place>> {
        let places = sources.iter().map(|source| {
            Ok(match *source {
                Source::Fact(fact) => Place::Fact(self.fact_place(fact)?),
                Source::Dimension(column) => {
                    let column = self.spec.dimension.column(column).ok_or_else(lost)?;
                    Place::Dimension(self.table_place(column.index)?, column.cast.clone())
                }
                Source::Mark => Place::Mark,
            })
        });
        places.collect()
    }
}

/// What cannot be, since the planner looked at every column.
fn lost() -> DataFusionError {
    internal_datafusion_err!("a lookup join has lost a column")
}

impl PreparedResidual {
    /// Whether the condition is true, of the rows that have found something. What it says of others means nothing.
    ///
    /// It is not asked about others, since it might fail there.
    fn evaluate(&self, rows: &RecordBatch, found: Option<&BooleanArray>) -> Result<BooleanArray> {
        let columns = self.places.iter().map(|place| place.column(rows));
        let columns = columns.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let seen = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let said = match found {
            None => self.expression.evaluate(&seen)?,
            Some(found) => self.expression.evaluate_selection(&seen, found)?,
        };
        let said = said.into_array(rows.num_rows())?;
        let said = said
            .as_boolean_opt()
            .ok_or_else(|| internal_datafusion_err!("a join's condition is not a boolean"))?;
        // What is unknown is not true.
        let is_true = match said.nulls() {
            None => said.values().clone(),
            Some(nulls) => said.values() & nulls.inner(),
        };
        Ok(BooleanArray::new(is_true, None))
    }
}

impl Place {
    fn column(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        Ok(match self {
            Self::Fact(at) | Self::Dimension(at, None) => Arc::clone(rows.column(*at)),
            Self::Dimension(at, Some(data_type)) => {
                // As DataFusion casts: what does not fit is an error.
                let options = CastOptions {
                    safe: false,
                    ..CastOptions::default()
                };
                cast_with_options(rows.column(*at), data_type, &options)?
            }
            Self::Mark => return Err(internal_datafusion_err!("a mark is no column of the rows")),
        })
    }
}

/// Nulls are DataFusion's business, not to be looked for again.
fn fact_field((at, field): (usize, &Arc<Field>)) -> Field {
    Field::new(format!("f{at}"), field.data_type().clone(), true)
}

/// A miss has nulls where the dimension has none.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields: Vec<Field> = fields
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(Schema::new(fields))
}
