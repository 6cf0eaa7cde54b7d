//! Whether new rows alone can refresh a view.
//!
//! The states of groups are kept below *one* aggregate: what is above it is done when the view is read, on finished
//! groups. What is below it must give, for the facts of yesterday and those of today, what it gives for each of the two:
//! each row of the facts goes its own way through projections, filters and joins with dimensions.

use std::sync::Arc;

use datafusion::{
    common::{
        JoinType, Result,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, TableScan, Volatility},
};

use super::{
    define::{Facts, FactsKind, Relation},
    relation::Placeholder,
    retract::{Retraction, retractable},
};

/// A query of which new rows refresh the groups.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The aggregate of the query.
    pub(crate) aggregate: Aggregate,
    /// The aggregate whose states are stored: the same, or with functions that nobody sees.
    pub(crate) kept: Aggregate,
    /// How rows are taken back from the states, or which function forbids that, in words that follow `because`.
    pub(crate) retraction: Result<Retraction, String>,
    pub(crate) facts: Facts,
    pub(crate) dimensions: Vec<Relation>,
}

/// Looks at a query. The inner error says why all rows are needed each time, in words that end a sentence.
pub(crate) fn shape_of(plan: &LogicalPlan) -> Result<Result<Shape, String>> {
    if let Some(reason) = forbidden(plan)? {
        return Ok(Err(reason));
    }
    let aggregate = match aggregate_of(plan) {
        Ok(aggregate) => aggregate,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut scans = Vec::new();
    aggregate.input.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans.push(scan.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let facts = match facts_of(&aggregate.input, &scans) {
        Ok(facts) => facts,
        Err(reason) => return Ok(Err(reason)),
    };
    match rows_apart(&aggregate.input, &facts.relation.name) {
        Ok(true) => {}
        Ok(false) => return Ok(Err("the query reads no facts".to_owned())),
        Err(reason) => return Ok(Err(reason)),
    }
    let mut dimensions: Vec<Relation> = Vec::new();
    for scan in &scans {
        let Some(placeholder) = placeholder(scan) else {
            return Ok(Err(format!("`{}` is no table", scan.table_name)));
        };
        if placeholder.name() == facts.relation.name
            || dimensions
                .iter()
                .any(|known| known.name == placeholder.name())
        {
            continue;
        }
        if placeholder.kind() != Some(FactsKind::Table) {
            return Ok(Err(format!(
                "`{}` is joined with the facts, and is no table of the store",
                placeholder.name()
            )));
        }
        dimensions.push(Relation::of(placeholder.name(), &*scan.source));
    }
    let retractable = match facts.kind {
        FactsKind::Table => retractable(&aggregate)?,
        FactsKind::Files | FactsKind::Pushed => Err("rows of its facts stay".to_owned()),
    };
    let (kept, retraction) = match retractable {
        Ok((kept, retraction)) => (kept, Ok(retraction)),
        Err(reason) => (aggregate.clone(), Err(reason)),
    };
    Ok(Ok(Shape {
        aggregate,
        kept,
        retraction,
        facts,
        dimensions,
    }))
}

/// What gives another answer each time, or is no part of the plan that can be seen.
fn forbidden(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut reason = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                reason = match expr {
                    Expr::ScalarFunction(call)
                        if call.func.signature().volatility != Volatility::Immutable =>
                    {
                        Some(format!(
                            "`{}` gives another value each time it is asked",
                            call.func.name()
                        ))
                    }
                    Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
                    | Expr::SetComparison(_) => {
                        Some("the query has a subquery in an expression".to_owned())
                    }
                    _ => None,
                };
                Ok(match &reason {
                    Some(_) => TreeNodeRecursion::Stop,
                    None => TreeNodeRecursion::Continue,
                })
            })
        })
    })?;
    Ok(reason)
}

/// The aggregate below what can be done with finished groups.
fn aggregate_of(plan: &LogicalPlan) -> Result<Aggregate, String> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let mut is_nested = false;
            // An aggregate of a dimension is a dimension; one of the facts is met by `rows_apart`.
            for expr in &aggregate.aggr_expr {
                is_nested |= matches!(expr, Expr::WindowFunction(_));
            }
            if is_nested {
                return Err("the query has a window".to_owned());
            }
            Ok(aggregate.clone())
        }
        LogicalPlan::Projection(node) => aggregate_of(&node.input),
        LogicalPlan::Filter(node) => aggregate_of(&node.input),
        LogicalPlan::SubqueryAlias(node) => aggregate_of(&node.input),
        LogicalPlan::Sort(node) => aggregate_of(&node.input),
        LogicalPlan::Limit(node) => aggregate_of(&node.input),
        LogicalPlan::Window(node) => aggregate_of(&node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => match aggregate_of(input) {
            Err(_) => Err(
                "DISTINCT keeps no states; write GROUP BY with the same columns instead".to_owned(),
            ),
            found => found,
        },
        LogicalPlan::TableScan(_) | LogicalPlan::Join(_) => {
            Err("the query has no GROUP BY and no aggregate".to_owned())
        }
        other => Err(format!("the query has {} above its groups", name_of(other))),
    }
}

fn name_of(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "another GROUP BY",
        LogicalPlan::Union(_) => "a UNION",
        LogicalPlan::Distinct(_) => "a DISTINCT",
        LogicalPlan::Window(_) => "a window",
        LogicalPlan::Sort(_) => "an ORDER BY",
        LogicalPlan::Limit(_) => "a LIMIT",
        LogicalPlan::Join(_) => "a join",
        LogicalPlan::Subquery(_) => "a subquery",
        LogicalPlan::RecursiveQuery(_) => "a recursive query",
        LogicalPlan::Values(_) => "VALUES",
        LogicalPlan::EmptyRelation(_) => "no FROM",
        _ => "a step that needs all rows",
    }
}

/// The relation whose rows are the facts: the files, or what programs push, or else the table that comes first.
fn facts_of(input: &LogicalPlan, scans: &[TableScan]) -> Result<Facts, String> {
    let facts = |scan: &TableScan| {
        let placeholder = placeholder(scan);
        let placeholder = placeholder
            .ok_or_else(|| format!("`{}` is no table of the store and no file", scan.table_name))?;
        let kind = placeholder.kind().ok_or_else(|| {
            let name = placeholder.name();
            format!("`{name}` is a view, or a directory of directories")
        })?;
        Ok(Facts {
            kind,
            relation: Relation::of(placeholder.name(), &*scan.source),
        })
    };
    let is_stream = |scan: &&TableScan| {
        let kind = placeholder(scan).and_then(Placeholder::kind);
        matches!(kind, Some(FactsKind::Files | FactsKind::Pushed))
    };
    let mut streams = scans.iter().filter(is_stream);
    let first = streams.next();
    if let (Some(_), Some(_)) = (first, streams.next()) {
        return Err("the query reads files twice; load one of them into a table".to_owned());
    }
    if let Some(scan) = first {
        return facts(scan);
    }
    let mut node = input;
    let scan = loop {
        node = match node {
            LogicalPlan::TableScan(scan) => break scan,
            LogicalPlan::Join(join) => match join.join_type {
                JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark => &join.right,
                _ => &join.left,
            },
            other => match other.inputs()[..] {
                [input] => input,
                _ => return Err(format!("the query has {} below its groups", name_of(other))),
            },
        };
    };
    let found = facts(scan)?;
    let is_same = |scan: &&TableScan| {
        placeholder(scan).is_some_and(|placeholder| placeholder.name() == found.relation.name)
    };
    if scans.iter().filter(is_same).count() > 1 {
        return Err(format!("`{}` is joined with itself", found.relation.name));
    }
    Ok(found)
}

fn placeholder(scan: &TableScan) -> Option<&Placeholder> {
    let source = &scan.source;
    let source = source.downcast_ref::<datafusion::datasource::DefaultTableSource>()?;
    source.table_provider.downcast_ref::<Placeholder>()
}

/// Whether a plan has the facts in it. Fails if their rows do not go through it each for itself.
fn rows_apart(plan: &LogicalPlan, facts: &str) -> Result<bool, String> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            Ok(placeholder(scan).is_some_and(|placeholder| placeholder.name() == facts))
        }
        LogicalPlan::Projection(node) => rows_apart(&node.input, facts),
        LogicalPlan::Filter(node) => rows_apart(&node.input, facts),
        LogicalPlan::SubqueryAlias(node) => rows_apart(&node.input, facts),
        LogicalPlan::Unnest(node) => rows_apart(&node.input, facts),
        LogicalPlan::Join(join) => {
            let left = rows_apart(&join.left, facts)?;
            let right = rows_apart(&join.right, facts)?;
            let is_apart = match join.join_type {
                _ if !left && !right => true,
                JoinType::Inner => left != right,
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                    left && !right
                }
                JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark => right && !left,
                JoinType::Full => false,
            };
            if is_apart {
                return Ok(left || right);
            }
            Err(format!(
                "a {} join gives rows of the dimension that no fact has asked for, or leaves facts out because of \
                 others",
                join.join_type
            ))
        }
        other => {
            for input in other.inputs() {
                if rows_apart(input, facts)? {
                    return Err(format!("the query has {} below its groups", name_of(other)));
                }
            }
            Ok(false)
        }
    }
}

/// The plan of a query with its aggregate replaced by finished groups.
pub(crate) fn over_groups(plan: &LogicalPlan, groups: &Arc<LogicalPlan>) -> Result<LogicalPlan> {
    if let LogicalPlan::Aggregate(_) = plan {
        return Ok(LogicalPlan::clone(groups));
    }
    let inputs = plan.inputs();
    let [input] = inputs[..] else {
        return datafusion::common::internal_err!("no single way leads to the groups");
    };
    let input = over_groups(input, groups)?;
    plan.with_new_exprs(plan.expressions(), vec![input])
}

/// The tables of the store in a plan, with their versions.
pub(crate) fn stored_tables(plan: &LogicalPlan) -> Result<Vec<darner_store::TableSnapshot>> {
    let mut tables = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(placeholder) = provider.downcast_ref::<Placeholder>()
            && let Some(table) = placeholder.table()
        {
            tables.push(table.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tables)
}
