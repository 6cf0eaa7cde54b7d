//! `MERGE INTO` as a query: a join, and of each of its rows what becomes of it.

use std::sync::Arc;

use darner_store::TableSnapshot;
use datafusion::{
    common::{Column, JoinType, Result, TableReference, plan_err},
    logical_expr::{
        Case, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableSource,
        dml::{MergeIntoAction, MergeIntoClause, MergeIntoClauseKind, MergeIntoOp},
        lit,
    },
    scalar::ScalarValue,
};

use super::{moves::RowAction, rule::unused_name, target::Statement};

/// The rows that a `MERGE` does something with: the table's columns as they are to be, the old key, and the place of
/// the clause that is the first to fit.
pub(super) fn merge(
    table: &TableSnapshot,
    name: &TableReference,
    target: &Arc<dyn TableSource>,
    source: &Arc<LogicalPlan>,
    op: &MergeIntoOp,
) -> Result<(Statement, Arc<LogicalPlan>)> {
    let spec = table.spec();
    let has = |is: fn(&MergeIntoClauseKind) -> bool| op.clauses.iter().any(|c| is(&c.kind));
    let has_inserts = has(MergeIntoClauseKind::is_not_matched_by_target);
    let has_rest = has(|kind| *kind == MergeIntoClauseKind::NotMatchedBySource);
    let kind = match (has_inserts, has_rest) {
        (false, false) => JoinType::Inner,
        (true, false) => JoinType::Right,
        (false, true) => JoinType::Left,
        (true, true) => JoinType::Full,
    };
    let taken = |column: &str| {
        let is = |name: &String| name == column;
        let fields = source
            .schema()
            .fields()
            .iter()
            .chain(spec.schema().fields());
        fields.map(|field| field.name()).any(is)
    };
    let (marker, action) = (unused_name("merged", taken), unused_name("action", taken));
    let mut columns = columns(source);
    columns.push(lit(true).alias(&marker));
    let source = LogicalPlanBuilder::new_from_arc(Arc::clone(source)).project(columns)?;
    let joined = LogicalPlanBuilder::scan(name.clone(), Arc::clone(target), None)?
        .join_on(source.build()?, kind, [op.on.clone()])?
        .build()?;

    // A key is never null, so that it tells whether there is a row of the table.
    let Some(key) = spec.key_schema().fields().first() else {
        return plan_err!("a table has no key: table=`{}`", table.name());
    };
    let in_table = Expr::Column(Column::new(Some(name.clone()), key.name()));
    let in_source = Expr::Column(Column::new_unqualified(&marker));
    let mut choices = Vec::with_capacity(op.clauses.len());
    for (place, clause) in (0_i32..).zip(&op.clauses) {
        let (in_table, in_source) = (in_table.clone(), in_source.clone());
        let fits = match clause.kind.canonical() {
            MergeIntoClauseKind::Matched => in_table.is_not_null().and(in_source.is_not_null()),
            MergeIntoClauseKind::NotMatchedBySource => in_source.is_null(),
            _ => in_table.is_null(),
        };
        let fits = match &clause.predicate {
            Some(predicate) => fits.and(predicate.clone()),
            None => fits,
        };
        choices.push((Box::new(fits), Box::new(lit(place))));
    }
    let mut columns = self::columns(&joined);
    columns.push(Expr::Case(Case::new(None, choices, None)).alias(&action));
    let action = Expr::Column(Column::new_unqualified(&action));
    let chosen = LogicalPlanBuilder::from(joined)
        .project(columns)?
        .filter(action.clone().is_not_null())?
        .build()?;

    let mut rows = Vec::new();
    for (place, field) in spec.schema().fields().iter().enumerate() {
        let old = Expr::Column(Column::new(Some(name.clone()), field.name()));
        let mut values = Vec::with_capacity(op.clauses.len());
        for (clause_place, clause) in (0_i32..).zip(&op.clauses) {
            let value = new_value(clause, place, field.name(), &old);
            let value = value.cast_to(field.data_type(), chosen.schema())?;
            values.push((Box::new(lit(clause_place)), Box::new(value)));
        }
        let value = Case::new(Some(Box::new(action.clone())), values, None);
        rows.push(Expr::Case(value).alias(field.name()));
    }
    for (place, field) in spec.key_schema().fields().iter().enumerate() {
        let old = Expr::Column(Column::new(Some(name.clone()), field.name()));
        let is_column = |name: &str| spec.schema().index_of(name).is_ok();
        rows.push(old.alias(unused_name(&format!("old key {}", place + 1), is_column)));
    }
    let is_column = |name: &str| spec.schema().index_of(name).is_ok();
    rows.push(action.alias(unused_name("action", is_column)));
    let rows = LogicalPlanBuilder::from(chosen).project(rows)?.build()?;
    let actions = op.clauses.iter().map(|clause| match &clause.action {
        MergeIntoAction::Insert { .. } => RowAction::Insert,
        MergeIntoAction::Update(_) => RowAction::Update,
        MergeIntoAction::Delete => RowAction::Delete,
    });
    let actions = actions.collect();
    Ok((Statement::Merge { actions }, Arc::new(rows)))
}

/// All columns of a plan, as they are.
fn columns(plan: &LogicalPlan) -> Vec<Expr> {
    let columns = plan.schema().columns().into_iter();
    columns.map(Expr::Column).collect()
}

/// What a column of a row is to be.
fn new_value(clause: &MergeIntoClause, place: usize, name: &str, old: &Expr) -> Expr {
    let value = match &clause.action {
        MergeIntoAction::Delete => return old.clone(),
        MergeIntoAction::Update(assignments) => {
            let assigned = assignments.iter().find(|(column, _)| column == name);
            return assigned.map_or_else(|| old.clone(), |(_, value)| value.clone());
        }
        MergeIntoAction::Insert { columns, values } if columns.is_empty() => values.get(place),
        MergeIntoAction::Insert { columns, values } => {
            let place = columns.iter().position(|column| column == name);
            place.and_then(|place| values.get(place))
        }
    };
    let null = || Expr::Literal(ScalarValue::Null, None);
    value.cloned().unwrap_or_else(null)
}
