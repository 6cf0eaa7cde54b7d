//! Where a hash join becomes a lookup.

use std::sync::Arc;

use arrow_schema::{Field, FieldRef, Schema};
use darner_engine::{BUILD_ROWS_MAX, DimensionBuilder};
use datafusion::{
    common::{
        JoinSide, NullEquality,
        tree_node::{Transformed, TreeNode},
    },
    config::ConfigOptions,
    error::Result,
    execution::{SessionStateBuilder, session_state::SessionState},
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr, PhysicalExprRef,
        expressions::{BinaryExpr, Column},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, StatisticsArgs, StatisticsContext,
        joins::{HashJoinExec, utils::build_join_schema},
    },
    prelude::SessionContext,
};

use super::{
    exec::LookupJoinExec,
    side::{DimensionSide, SideColumn},
    spec::{Kind, LookupSpec, Residual, Source},
};
use crate::options::DarnerOptions;

/// DataFusion's rule that decides which side of a hash join is built, and how.
const JOIN_SELECTION: &str = "join_selection";

/// A dimension has to have fewer rows than this many times the facts, or be there already. To build one takes about ten
/// times as long a row as to look one up, and reads columns that the facts may never touch; a hash join would build its
/// table of the few facts instead and stream the table of the store past it.
const ROWS_PER_FACT_MAX: usize = 20;

/// Bytes that a hash index takes for each key.
const INDEX_BYTES: usize = 24;

/// The same of a key of bytes that are no more than its record.
const BYTES_INDEX_BYTES: usize = 80;

/// Teaches a session to join with tables of the store by lookups.
pub(crate) fn install(context: &SessionContext) {
    let state = context.state_ref();
    let mut state = state.write();
    let rules = state.physical_optimizers();
    if rules.iter().any(|rule| rule.name() == LookupJoin::NAME) {
        return;
    }
    let mut rules = rules.to_vec();
    let at = rules.iter().position(|rule| rule.name() == JOIN_SELECTION);
    rules.insert(at.unwrap_or(0), Arc::new(LookupJoin));
    let session_id = state.session_id().to_owned();
    let builder = SessionStateBuilder::new_from_existing(SessionState::clone(&state));
    *state = builder
        .with_session_id(session_id)
        .with_physical_optimizer_rules(rules)
        .build();
}

/// Replaces hash joins by lookups, where one side is a whole table of a store and is joined on its key.
#[derive(Debug)]
struct LookupJoin;

impl LookupJoin {
    const NAME: &str = "lookup_join";
}

impl PhysicalOptimizerRule for LookupJoin {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = DarnerOptions::of(config);
        if !options.lookup_join {
            return Ok(plan);
        }
        let replaced = plan.transform_up(|plan| {
            let Some(join) = plan.downcast_ref::<HashJoinExec>() else {
                return Ok(Transformed::no(plan));
            };
            Ok(match Lookup::of(join, &options)? {
                Some(lookup) => Transformed::yes(Arc::new(lookup.exec(join)?)),
                None => Transformed::no(plan),
            })
        });
        Ok(replaced?.data)
    }

    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A hash join as a lookup.
struct Lookup {
    spec: LookupSpec,
    side: JoinSide,
}

impl Lookup {
    /// The better way to do a join by lookup, if there is one.
    fn of(join: &HashJoinExec, options: &DarnerOptions) -> Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for side in [JoinSide::Right, JoinSide::Left] {
            let Some(lookup) = Self::on(join, side)? else {
                continue;
            };
            let is_smaller = found.as_ref().is_none_or(|found| {
                let rows = |lookup: &Self| lookup.spec.dimension.snapshot().num_stored_rows();
                rows(&lookup) < rows(found)
            });
            if is_smaller && lookup.pays(join, options)? {
                found = Some(lookup);
            }
        }
        Ok(found)
    }

    /// The join as a lookup in the dimension on this side, if it can be one.
    fn on(join: &HashJoinExec, side: JoinSide) -> Result<Option<Self>> {
        let Some(kind) = Kind::of(join.join_type, side, join.null_aware) else {
            return Ok(None);
        };
        let (facts, table) = sides(join, side);
        let Some(dimension) = DimensionSide::find(table) else {
            return Ok(None);
        };
        let schema = facts.schema();
        let pairs = join.on.iter().map(|(left, right)| match side {
            JoinSide::Left => (right, left),
            _ => (left, right),
        });
        let Some(Compared { keys, others }) = Compared::new(&dimension, &schema, pairs)? else {
            return Ok(None);
        };
        let residual = join.filter.as_ref().map(|filter| Residual {
            expression: Arc::clone(filter.expression()),
            sources: filter
                .column_indices()
                .iter()
                .map(|column| Source::of(column, side))
                .collect(),
            schema: Arc::clone(filter.schema()),
        });
        let residual = with_equalities(residual, &others, join.null_equality, facts, table)?;
        if kind == Kind::NotIn && residual.is_some() {
            return Ok(None);
        }
        let (left, right) = (join.left.schema(), join.right.schema());
        let (_, columns) = build_join_schema(&left, &right, &join.join_type);
        let output = match &join.projection {
            None => columns.iter().collect(),
            Some(projection) => projection
                .iter()
                .map(|&at| &columns[at])
                .collect::<Vec<_>>(),
        };
        let spec = LookupSpec {
            kind,
            dimension,
            keys,
            residual,
            output: output
                .into_iter()
                .map(|column| Source::of(column, side))
                .collect(),
            schema: join.schema(),
        };
        // What is computed from columns of the table, other than by a cast that loses nothing, it does not have.
        let columns = spec.dimension_columns();
        let has_all = columns
            .iter()
            .all(|&column| spec.dimension.column(column).is_some());
        Ok(has_all.then_some(Self { spec, side }))
    }

    /// Whether a lookup is likely to be faster than the hash join.
    fn pays(&self, join: &HashJoinExec, options: &DarnerOptions) -> Result<bool> {
        let dimension = &self.spec.dimension;
        dimension
            .cache()
            .set_bytes_max(options.dimension_cache_bytes);
        let columns = self.spec.table_columns();
        if dimension.cache().has(dimension.snapshot(), &columns) {
            return Ok(true);
        }
        let num_rows =
            usize::try_from(dimension.snapshot().num_stored_rows()).unwrap_or(usize::MAX);
        if num_rows > BUILD_ROWS_MAX as usize
            || estimated_bytes(dimension, &self.spec.dimension_columns(), num_rows)
                > options.dimension_cache_bytes
        {
            return Ok(false);
        }
        let (facts, _) = sides(join, self.side);
        let facts = StatisticsContext::new().compute(facts.as_ref(), &StatisticsArgs::new())?;
        let num_facts = facts.num_rows.get_value();
        Ok(num_facts.is_none_or(|facts| num_rows <= facts.saturating_mul(ROWS_PER_FACT_MAX)))
    }

    fn exec(self, join: &HashJoinExec) -> Result<LookupJoinExec> {
        let (facts, table) = sides(join, self.side);
        let table = StatisticsContext::new().compute(table.as_ref(), &StatisticsArgs::new())?;
        let statistics = Arc::new(table.column_statistics.clone());
        let spec = Arc::new(self.spec);
        LookupJoinExec::try_new(Arc::clone(facts), spec, statistics, join.fetch())
    }
}

/// The facts and the plan of the table, if the table is on this side.
fn sides(
    join: &HashJoinExec,
    dimension: JoinSide,
) -> (&Arc<dyn ExecutionPlan>, &Arc<dyn ExecutionPlan>) {
    match dimension {
        JoinSide::Left => (&join.right, &join.left),
        _ => (&join.left, &join.right),
    }
}

/// What a dimension with these columns will take, from what is known without reading it.
fn estimated_bytes(dimension: &DimensionSide, columns: &[usize], num_rows: usize) -> usize {
    let snapshot = dimension.snapshot();
    let width = |index: usize| {
        let data_type = snapshot.schema().field(index).data_type();
        data_type.primitive_width()
    };
    let all = 0..snapshot.schema().fields().len();
    let fixed = num_rows.saturating_mul(all.filter_map(width).sum());
    let num_bytes = usize::try_from(snapshot.num_bytes()).unwrap_or(usize::MAX);
    // Nobody knows which of the other columns takes how much of the rest.
    let rest = num_bytes.saturating_sub(fixed);
    let columns = columns
        .iter()
        .filter_map(|&column| Some(dimension.column(column)?.index))
        .chain(snapshot.spec().key_columns().iter().copied());
    let mut has_rest = false;
    let mut row_bytes = match snapshot.spec().key_columns() {
        [key] if width(*key).is_none() => BYTES_INDEX_BYTES,
        _ => INDEX_BYTES,
    };
    for index in columns {
        match width(index) {
            Some(width) => row_bytes += width,
            None => has_rest = true,
        }
    }
    let rest = if has_rest { rest } else { 0 };
    num_rows.saturating_mul(row_bytes).saturating_add(rest)
}

/// What a join compares: facts with the key, and whatever else must be equal.
struct Compared<'j> {
    /// In the order of the key.
    keys: Vec<PhysicalExprRef>,
    others: Vec<(&'j PhysicalExprRef, &'j PhysicalExprRef)>,
}

impl<'j> Compared<'j> {
    /// Finds the key among pairs of an expression over the facts and one over the dimension's side. `None` if it is not
    /// all there, or does not compare as DataFusion would compare it.
    fn new(
        dimension: &DimensionSide,
        facts: &Schema,
        pairs: impl Iterator<Item = (&'j PhysicalExprRef, &'j PhysicalExprRef)>,
    ) -> Result<Option<Self>> {
        let key_columns = dimension.snapshot().spec().key_columns();
        let mut keys: Vec<Option<PhysicalExprRef>> = vec![None; key_columns.len()];
        let mut others = Vec::new();
        for (fact, column) in pairs {
            let found = dimension.resolve(column);
            let part = |found: &SideColumn| key_columns.iter().position(|key| *key == found.index);
            match found.as_ref().and_then(part).map(|part| &mut keys[part]) {
                Some(key @ None) => {
                    let found = found.map(|found| dimension.data_type(&found));
                    if found != Some(fact.data_type(facts)?) {
                        return Ok(None);
                    }
                    *key = Some(Arc::clone(fact));
                }
                _ => others.push((fact, column)),
            }
        }
        let Some(keys) = keys.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        Ok(can_compare(dimension, facts, &keys)?.then_some(Self { keys, others }))
    }
}

/// Whether a dimension's key can be compared with facts of these types. Asks the one that knows: a dimension, without
/// rows.
fn can_compare(
    dimension: &DimensionSide,
    facts: &Schema,
    keys: &[PhysicalExprRef],
) -> Result<bool> {
    let snapshot = dimension.snapshot();
    let names: Vec<String> = snapshot
        .key_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let fields = keys.iter().map(|key| {
        let field = Field::new("key", key.data_type(facts)?, true);
        Ok(FieldRef::new(field))
    });
    let fields: Vec<FieldRef> = fields.collect::<Result<_>>()?;
    let key_schema = Arc::clone(snapshot.spec().key_schema());
    let empty = DimensionBuilder::new(snapshot.name(), key_schema, &names)
        .and_then(DimensionBuilder::finish);
    Ok(empty.is_ok_and(|empty| empty.bind(&fields).is_ok()))
}

/// A join's condition and these equalities, which are not of the key.
fn with_equalities(
    residual: Option<Residual>,
    equalities: &[(&PhysicalExprRef, &PhysicalExprRef)],
    null_equality: NullEquality,
    facts: &Arc<dyn ExecutionPlan>,
    table: &Arc<dyn ExecutionPlan>,
) -> Result<Option<Residual>> {
    let operator = match null_equality {
        NullEquality::NullEqualsNothing => Operator::Eq,
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
    };
    let (facts, table) = (facts.schema(), table.schema());
    equalities
        .iter()
        .try_fold(residual, |residual, (fact, other)| {
            let (mut sources, mut fields, before) = match residual {
                None => (Vec::new(), Vec::new(), None),
                Some(residual) => (
                    residual.sources,
                    residual.schema.fields().to_vec(),
                    Some(residual.expression),
                ),
            };
            let mut see =
                |expression: &PhysicalExprRef, schema: &Schema, source: fn(usize) -> Source| {
                    let seen = Arc::clone(expression).transform_up(|part| {
                        let Some(column) = part.downcast_ref::<Column>() else {
                            return Ok(Transformed::no(part));
                        };
                        sources.push(source(column.index()));
                        fields.push(FieldRef::new(schema.field(column.index()).clone()));
                        let column = Column::new(column.name(), fields.len() - 1);
                        Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>))
                    });
                    seen.map(|seen| seen.data)
                };
            let fact = see(fact, &facts, Source::Fact)?;
            let other = see(other, &table, Source::Dimension)?;
            let equal: PhysicalExprRef = Arc::new(BinaryExpr::new(fact, operator, other));
            let expression = match before {
                None => equal,
                Some(before) => Arc::new(BinaryExpr::new(before, Operator::And, equal)),
            };
            Ok(Some(Residual {
                expression,
                sources,
                schema: Arc::new(Schema::new(fields)),
            }))
        })
}
