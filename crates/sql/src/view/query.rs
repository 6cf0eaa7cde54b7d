//! The query of a view, planned.
//!
//! Views are planned in a session of their own, with DataFusion's defaults: what a view says must not depend on who
//! asks. It knows the relations that the query names, and nothing else.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use arrow_array::RecordBatch;
use darner_engine::{Error, ErrorKind};
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
        MemorySchemaProvider, TableProvider,
    },
    common::{TableReference, internal_err, plan_err},
    error::Result,
    execution::{SessionState, SessionStateBuilder, TaskContext, runtime_env::RuntimeEnvBuilder},
    logical_expr::LogicalPlan,
    physical_plan::collect,
    prelude::{SessionConfig, SessionContext},
    sql::{parser::Statement, sqlparser::ast},
};

use super::place::place;
use crate::{
    catalog::SCHEMA,
    error::to_datafusion,
    files::{has_path, local},
    lookup_join,
    options::DarnerOptions,
    session::CATALOG,
};

/// Fewer bytes of files are not cut up for several threads, each of which gets the row groups that begin in its part: the
/// file of a day often has one. Its rows are dealt to all threads instead.
const SPLIT_BYTES_MIN: usize = 64 << 20;

/// What every view's planning begins with.
static BASE: LazyLock<Result<SessionState>> = LazyLock::new(|| {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false);
    config.options_mut().optimizer.repartition_file_min_size = SPLIT_BYTES_MIN;
    // As in every session: a list of files that was made once would not have those that came later.
    let runtime = RuntimeEnvBuilder::new()
        .with_object_list_cache_limit(0)
        .build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    DarnerOptions::add_to(&context);
    lookup_join::install(&context);
    Ok(context.state())
});

/// A session without relations. It works with so many threads.
pub(crate) fn base(num_threads: usize) -> Result<SessionState> {
    let base = match &*BASE {
        Ok(base) => base.clone(),
        Err(error) => {
            let message = format!("views cannot be planned: {error}");
            return Err(to_datafusion(Error::internal(message)));
        }
    };
    let config = base
        .config()
        .clone()
        .with_target_partitions(num_threads.max(1));
    Ok(SessionStateBuilder::new_from_existing(base)
        .with_config(config)
        .build())
}

/// A session for plans of one row, and what they run in. To make one takes as long as to find a group.
static FOR_ONE_ROW: LazyLock<Result<(SessionState, Arc<TaskContext>)>> = LazyLock::new(|| {
    let state = base(1)?;
    let context = state.task_ctx();
    Ok((state, context))
});

/// The rows of a plan that has about one.
pub(crate) async fn one_row(plan: &LogicalPlan) -> Result<Vec<RecordBatch>> {
    let (state, context) = match &*FOR_ONE_ROW {
        Ok(shared) => shared,
        Err(error) => {
            let message = format!("groups cannot be read: {error}");
            return Err(to_datafusion(Error::internal(message)));
        }
    };
    let plan = state.create_physical_plan(plan).await?;
    collect(plan, Arc::clone(context)).await
}

/// A query, parsed.
pub(crate) fn parse(state: &SessionState, query: &str) -> Result<Statement> {
    let dialect = state.config_options().sql_parser.dialect;
    let statement = state.sql_to_statement(query, &dialect)?;
    match &statement {
        Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)) => Ok(statement),
        _ => plan_err!("this is no query: one begins with SELECT, WITH or VALUES"),
    }
}

/// The text of a statement. Fails if that would be read as another one: what writes statements leaves some quotes alone.
pub(crate) fn written(statement: &Statement) -> Result<String> {
    let text = statement.to_string();
    if parse(&base(1)?, &text).is_ok_and(|again| again == *statement) {
        return Ok(text);
    }
    plan_err!(
        "the query cannot be written down so that it means the same: leave out quotes inside of texts and names, and write \
         chr(39) for one"
    )
}

/// The relations that a query names, once each.
pub(crate) fn relations(
    state: &SessionState,
    statement: &Statement,
) -> Result<Vec<TableReference>> {
    let mut names = state.resolve_table_references(statement)?;
    let mut seen = Vec::new();
    names.retain(|name| {
        let is_new = !seen.contains(name);
        seen.push(name.clone());
        is_new && !state.table_functions().contains_key(name.table())
    });
    Ok(names)
}

/// Plans a query on these relations, as it is before the optimizer.
pub(crate) async fn analyze(
    state: &SessionState,
    statement: Statement,
    relations: Vec<(TableReference, Arc<dyn TableProvider>)>,
) -> Result<(SessionState, LogicalPlan)> {
    let catalogs = MemoryCatalogProviderList::new();
    for (name, provider) in relations {
        let name = name.resolve(CATALOG, SCHEMA);
        let catalog = catalogs.catalog(&name.catalog).unwrap_or_else(|| {
            let catalog: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
            catalogs.register_catalog(name.catalog.to_string(), Arc::clone(&catalog));
            catalog
        });
        if catalog.schema(&name.schema).is_none() {
            catalog.register_schema(&name.schema, Arc::new(MemorySchemaProvider::new()))?;
        }
        let Some(schema) = catalog.schema(&name.schema) else {
            return internal_err!("a schema that was just made is not there");
        };
        schema.register_table(name.table.to_string(), provider)?;
    }
    let state = SessionStateBuilder::new_from_existing(state.clone())
        .with_catalog_list(Arc::new(catalogs))
        .build();
    let plan = state.statement_to_plan(statement).await?;
    let plan = state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})?;
    Ok((state, plan))
}

/// The files that a query names, as they stand there.
pub(crate) fn files_of(statement: &mut Statement, is_table: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    place(statement, &mut |ident| {
        if is_file(ident, is_table) {
            found.push(ident.value.clone());
        }
        None
    });
    found
}

/// Makes the paths of a query whole, so that it means the same wherever it is run. `is_table` says which names are of
/// tables.
pub(crate) fn make_whole(statement: &mut Statement, is_table: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut result = Ok(());
    place(statement, &mut |ident| {
        if !is_file(ident, is_table) {
            return None;
        }
        match whole(&ident.value) {
            Ok(whole) => Some(whole),
            Err(error) => {
                result = Err(to_datafusion(error));
                None
            }
        }
    });
    result
}

fn is_file(ident: &ast::Ident, is_table: &dyn Fn(&str) -> bool) -> bool {
    ident.quote_style.is_some()
        && !is_table(&ident.value)
        && (has_path(&ident.value) || Path::new(&ident.value).exists())
}

/// A path from the root. What is a pattern stays one.
pub(crate) fn whole(path: &str) -> darner_engine::Result<String> {
    let path = local(path)?;
    let whole = std::path::absolute(path)
        .map_err(|error| Error::io(format!("no such path: path=`{path}`"), error))?;
    whole.into_os_string().into_string().map_err(|_| {
        Error::new(
            ErrorKind::Invalid,
            format!("path is not UTF-8: path=`{path}`"),
        )
    })
}
