//! Makes statements queries, before the optimizer takes them apart.

use std::{collections::HashMap, sync::Arc};

use darner_engine::{Error, ErrorKind};
use darner_store::TableSnapshot;
use datafusion::{
    common::{
        Column, DFSchema, Result, TableReference,
        config::ConfigOptions,
        plan_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::{DefaultTableSource, provider_as_source},
    logical_expr::{
        DmlStatement, EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableScan,
        TableSource, Values, WriteOp, dml::InsertOp,
    },
    optimizer::AnalyzerRule,
};

use super::{
    merge::merge,
    target::{Statement, WriteTarget},
};
use crate::{catalog::StoreHandle, error::to_datafusion, functions::looks_into, table::StoreTable};

/// The rule: see the module.
#[derive(Debug)]
pub(crate) struct WriteRule;

impl AnalyzerRule for WriteRule {
    fn name(&self) -> &'static str {
        "darner_write"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Below an EXPLAIN there is one too.
        let rewritten = plan.transform_down(|plan| match plan {
            LogicalPlan::Dml(statement) => rewrite(statement),
            plan => Ok(Transformed::no(plan)),
        });
        Ok(rewritten?.data)
    }
}

/// The table of a store that a source stands for.
fn store_table(source: &Arc<dyn TableSource>) -> Option<&StoreTable> {
    let source = source.downcast_ref::<DefaultTableSource>()?;
    source.table_provider.downcast_ref::<StoreTable>()
}

fn rewrite(statement: DmlStatement) -> Result<Transformed<LogicalPlan>> {
    let Some(table) = store_table(&statement.target) else {
        return Ok(Transformed::no(LogicalPlan::Dml(statement)));
    };
    let snapshot = table.snapshot().clone();
    let handle = Arc::clone(writable(table)?);
    let (change, input) = match &statement.op {
        WriteOp::Insert(op) => {
            let change = match op {
                InsertOp::Overwrite => Statement::Overwrite,
                InsertOp::Append | InsertOp::Replace => Statement::Upsert,
            };
            (change, with_nulls(statement.input)?)
        }
        WriteOp::Delete if is_whole(&statement.input) => (Statement::Clear, nothing()),
        WriteOp::Truncate => (Statement::Clear, nothing()),
        WriteOp::Delete => (Statement::Delete, keys(&snapshot, &statement.input)?),
        WriteOp::Update => update(&snapshot, &statement.table_name, &statement.input)?,
        WriteOp::MergeInto(op) => merge(
            &snapshot,
            &statement.table_name,
            &statement.target,
            &statement.input,
            op,
        )?,
        op => {
            return plan_err!(
                "{} is not possible on a table of a store: table=`{}`",
                op.name(),
                snapshot.name()
            );
        }
    };
    let schema = Arc::clone(input.schema().inner());
    let target = WriteTarget::of(handle, snapshot, change, schema);
    let plan = into_target(target, statement.table_name, input)?;
    Ok(Transformed::yes(plan))
}

/// A statement that puts the rows of a plan into a target.
pub(crate) fn into_target(
    mut target: WriteTarget,
    name: TableReference,
    input: Arc<LogicalPlan>,
) -> Result<LogicalPlan> {
    target.reads_table |= reads(&input, &target.handle, &target.name)?;
    target.input = Some(Arc::clone(&input));
    let target = provider_as_source(Arc::new(target));
    let op = WriteOp::Insert(InsertOp::Append);
    Ok(LogicalPlan::Dml(DmlStatement::new(name, target, op, input)))
}

/// The store to write a table to.
pub(crate) fn writable(table: &StoreTable) -> Result<&Arc<StoreHandle>> {
    let Some(handle) = table.handle() else {
        return plan_err!(
            "table is as of one version and cannot be changed: table=`{}`; name it in its catalog",
            table.snapshot().name()
        );
    };
    handle.check_writable()?;
    Ok(handle)
}

/// Lets the values of an insertion be null where the table's may not, because DataFusion would refuse them by the names
/// `column1`, `column2`, and so on. They are checked when they are written.
fn with_nulls(input: Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let LogicalPlan::Projection(projection) = &*input else {
        return Ok(input);
    };
    let LogicalPlan::Values(values) = &*projection.input else {
        return Ok(input);
    };
    let fields = values.schema.iter().map(|(qualifier, field)| {
        let field = field.as_ref().clone().with_nullable(true);
        (qualifier.cloned(), Arc::new(field))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), values.schema.metadata().clone())?;
    let values = LogicalPlan::Values(Values {
        schema: Arc::new(schema),
        values: values.values.clone(),
    });
    let projection = Projection::try_new(projection.expr.clone(), Arc::new(values))?;
    Ok(Arc::new(LogicalPlan::Projection(projection)))
}

/// Whether a plan is all rows of a table.
fn is_whole(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none())
}

fn nothing() -> Arc<LogicalPlan> {
    Arc::new(LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(DFSchema::empty()),
    }))
}

/// The keys of the rows that a plan finds in a table.
fn keys(table: &TableSnapshot, input: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let (spec, found) = (table.spec(), input.schema());
    let mut columns = Vec::new();
    for column in spec.key_columns() {
        let name = spec.schema().field(*column).name();
        let place = found.fields().get(*column);
        if place.is_none_or(|field| field.name() != name) {
            return plan_err!(
                "cannot tell which rows to delete, because the plan lost a key column: table=`{}` column=`{name}`",
                table.name()
            );
        }
        columns.push(Expr::Column(Column::from(found.qualified_field(*column))));
    }
    let keys = LogicalPlanBuilder::new_from_arc(Arc::clone(input)).project(columns)?;
    Ok(Arc::new(keys.build()?))
}

/// The rows that an update changes, in their new form, and the old values of key columns that are assigned to.
fn update(
    table: &TableSnapshot,
    name: &TableReference,
    input: &Arc<LogicalPlan>,
) -> Result<(Statement, Arc<LogicalPlan>)> {
    let lost = |what: &str| {
        plan_err!(
            "cannot tell which rows to update, because the plan lost {what}: table=`{}`",
            table.name()
        )
    };
    let spec = table.spec();
    let num_columns = spec.schema().fields().len();
    let LogicalPlan::Projection(projection) = &**input else {
        // What an optimizer leaves of a condition that is never true.
        if is_empty(input) && input.schema().fields().len() == num_columns {
            return Ok((Statement::Update { moved: vec![] }, Arc::clone(input)));
        }
        return lost("its columns");
    };
    if projection.expr.len() != num_columns {
        return lost("its columns");
    }
    let Some(qualifier) = first_table(&projection.input, name) else {
        if is_empty(&projection.input) {
            return Ok((Statement::Update { moved: vec![] }, Arc::clone(input)));
        }
        return lost("the table");
    };
    let mut moved = Vec::new();
    let mut exprs = projection.expr.clone();
    for (place, column) in spec.key_columns().iter().enumerate() {
        let name = spec.schema().field(*column).name();
        let old = Column::new(Some(qualifier.clone()), name);
        if is_column(&exprs[*column], &old) {
            continue;
        }
        if !projection.input.schema().has_column(&old) {
            return lost(&format!("the old value of column `{name}`"));
        }
        let is_column = |name: &str| spec.schema().index_of(name).is_ok();
        let unused = unused_name(&format!("old key {}", place + 1), is_column);
        exprs.push(Expr::Column(old).alias(unused));
        moved.push(place);
    }
    let rows = Projection::try_new(exprs, Arc::clone(&projection.input))?;
    let rows = LogicalPlan::Projection(rows);
    Ok((Statement::Update { moved }, Arc::new(rows)))
}

fn is_empty(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row)
}

/// Whether an expression is a column as it is, under its own name.
fn is_column(expr: &Expr, column: &Column) -> bool {
    match expr {
        Expr::Alias(alias) if alias.name == column.name => is_column(&alias.expr, column),
        Expr::Column(found) => found.name == column.name && found.relation == column.relation,
        _ => false,
    }
}

/// What the columns of the table that is updated are qualified with: it is the first that is read.
fn first_table(plan: &LogicalPlan, name: &TableReference) -> Option<TableReference> {
    let is_target = |scan: &TableScan| scan.table_name.resolved_eq(name);
    match plan {
        LogicalPlan::TableScan(scan) => is_target(scan).then(|| scan.table_name.clone()),
        LogicalPlan::SubqueryAlias(alias) => match &*alias.input {
            LogicalPlan::TableScan(scan) if is_target(scan) => Some(alias.alias.clone()),
            _ => None,
        },
        plan => first_table(plan.inputs().first()?, name),
    }
}

/// A name that is not taken.
pub(super) fn unused_name(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut name = wanted.to_owned();
    while is_taken(&name) {
        name.insert(0, '_');
    }
    name
}

/// Whether a plan reads a table of a catalog, in a scan or by lookups.
fn reads(plan: &LogicalPlan, handle: &Arc<StoreHandle>, table: &str) -> Result<bool> {
    let mut is_read = false;
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(found) = live_table(scan, handle)
        {
            is_read |= found.name() == table;
        }
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                is_read |= looks_into(expr, handle, table);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(is_read)
}

/// The table that a scan reads, if it is one that goes with its catalog.
fn live_table<'s>(scan: &'s TableScan, handle: &Arc<StoreHandle>) -> Option<&'s TableSnapshot> {
    let table = store_table(&scan.source)?;
    let is_live = table.handle().is_some_and(|of| Arc::ptr_eq(of, handle));
    is_live.then(|| table.snapshot())
}

/// A plan on other snapshots of the tables of a catalog.
pub(super) fn on_tables(
    plan: &LogicalPlan,
    handle: &Arc<StoreHandle>,
    tables: &[TableSnapshot],
) -> Result<LogicalPlan> {
    let tables: HashMap<&str, &TableSnapshot> =
        tables.iter().map(|table| (table.name(), table)).collect();
    let newest = plan.clone().transform_up_with_subqueries(|plan| {
        let LogicalPlan::TableScan(scan) = plan else {
            return Ok(Transformed::no(plan));
        };
        let Some(before) = live_table(&scan, handle) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let newest = tables.get(before.name()).copied();
        let Some(newest) = newest.filter(|table| table.spec().is_same_shape(before.spec())) else {
            return Err(to_datafusion(Error::new(
                ErrorKind::Invalid,
                format!(
                    "table was dropped or has other columns since the statement was planned: table=`{}`",
                    before.name()
                ),
            )));
        };
        let table = StoreTable::of(Arc::clone(handle), newest.clone());
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan {
            source: provider_as_source(Arc::new(table)),
            ..scan
        })))
    });
    Ok(newest?.data)
}
