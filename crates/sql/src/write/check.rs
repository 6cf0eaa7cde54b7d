//! Parts of DELETE and UPDATE that the parser takes and DataFusion leaves out: without them more rows would change than
//! were meant.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::{
    common::plan_err,
    error::{DataFusionError, Result},
    sql::{
        parser::Statement,
        sqlparser::ast::{self, AssignmentTarget, FromTable, TableFactor, TableWithJoins},
    },
};

/// Refuses a statement that changes rows, also inside of another, if it says what would be left out.
///
/// # Errors
/// A plan's error that names the part.
pub(crate) fn check_statement(statement: &Statement) -> Result<()> {
    match statement {
        Statement::Statement(statement) => {
            let refused = ast::visit_statements(&**statement, |statement| match check(statement) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            });
            match refused {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(error) => Err(error),
            }
        }
        Statement::Explain(explain) => check_statement(&explain.statement),
        _ => Ok(()),
    }
}

fn check(statement: &ast::Statement) -> Result<(), DataFusionError> {
    match statement {
        ast::Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) =
                &delete.from;
            tables
                .iter()
                .try_for_each(|table| check_target("DELETE", table))
        }
        ast::Statement::Update(update) => {
            check_target("UPDATE", &update.table)?;
            let mut set = BTreeSet::new();
            for assignment in &update.assignments {
                let AssignmentTarget::ColumnName(name) = &assignment.target else {
                    continue;
                };
                let parts: Vec<String> = name.0.iter().map(ToString::to_string).collect();
                if let [.., table, _] = &parts[..]
                    && !is_name_of(table, &update.table.relation)
                {
                    return plan_err!(
                        "UPDATE sets columns of its own table alone: column=`{name}`"
                    );
                }
                if !set.insert(parts.last().cloned()) {
                    return plan_err!("UPDATE sets a column twice: column=`{name}`");
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A table with nothing but a name and perhaps an alias.
fn check_target(what: &str, target: &TableWithJoins) -> Result<(), DataFusionError> {
    let TableFactor::Table { name, alias, .. } = &target.relation else {
        return Ok(());
    };
    let plain = TableFactor::Table {
        name: name.clone(),
        alias: alias.clone(),
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    if target.relation != plain {
        return plan_err!(
            "{what} takes a table, and a condition after WHERE: got=`{}` expected=`{name}`",
            target.relation
        );
    }
    if !target.joins.is_empty() {
        return plan_err!(
            "{what} takes one table; use MERGE INTO {name} USING ..., or a subquery after WHERE: got=`{target}`"
        );
    }
    Ok(())
}

/// Whether a qualifier is a table's alias, or the last part of its name.
fn is_name_of(qualifier: &str, table: &TableFactor) -> bool {
    let TableFactor::Table { name, alias, .. } = table else {
        return true;
    };
    let same = |ident: &ast::Ident| ident.to_string().eq_ignore_ascii_case(qualifier);
    match alias {
        Some(alias) => same(&alias.name),
        None => name
            .0
            .last()
            .is_some_and(|part| part.to_string().eq_ignore_ascii_case(qualifier)),
    }
}
