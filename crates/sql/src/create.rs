//! `CREATE TABLE` and `DROP TABLE`.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use darner_engine::{Error, ErrorKind, is_view};
use darner_store::TableSpec;
use datafusion::{
    catalog::TableProvider,
    common::{Constraint, Constraints, TableReference, exec_err, plan_err},
    dataframe::DataFrame,
    datasource::MemTable,
    error::Result,
    execution::SessionState,
    logical_expr::{CreateMemoryTable, DdlStatement, LogicalPlan},
    prelude::{SQLOptions, SessionContext},
    sql::{
        parser::Statement,
        sqlparser::{ast, dialect::dialect_from_str},
    },
};

use crate::{
    blocking::blocking,
    catalog::{Catalogs, SCHEMA, StoreHandle},
    error::to_datafusion,
    table::StoreTable,
    view::{MaterializedView, ViewNode, ViewStatement},
    write::{self, Change, Steps, WriteTarget, into_target},
};

/// Plans a statement as [`SessionContext::sql_with_options`] does, but makes and drops tables of stores in the way that
/// suits them.
///
/// DataFusion collects the rows of a `CREATE TABLE AS` in memory before it hands them to a catalog. It makes a drop and a
/// creation of `CREATE OR REPLACE`, and leaves no table if the query fails or reads the table. And it hides why a `DROP
/// TABLE IF EXISTS` failed. Here rows are streamed into the new table, which is there with all of them or not at all, a
/// table is replaced by one commit, and errors are told. `CREATE TABLE AS` is done, like `INSERT`, when the answer's rows
/// are read: it is one row with the count.
///
/// # Errors
/// Those of the statement; what the options forbid.
///
/// # Examples
/// ```
/// # use datafusion::prelude::{SQLOptions, SessionContext};
/// # async fn copy(context: &SessionContext) -> datafusion::error::Result<()> {
/// let sql = "CREATE OR REPLACE TABLE large (PRIMARY KEY (id)) AS SELECT * FROM names WHERE length(name) > 10";
/// darner_sql::sql(context, sql, SQLOptions::new()).await?.collect().await?;
/// # Ok(())
/// # }
/// ```
pub async fn sql(context: &SessionContext, sql: &str, options: SQLOptions) -> Result<DataFrame> {
    let state = context.state();
    let plan = Parsed::of(&state, sql)?.plan(&state).await?;
    options.verify_plan(&plan)?;
    execute(context, plan).await
}

/// Plans a statement as [`SessionState::statement_to_plan`] does, which finds the primary key of a `CREATE TABLE (PRIMARY
/// KEY (...)) AS SELECT` only among columns that have no table.
///
/// # Errors
/// As for [`sql`].
pub async fn statement_to_plan(
    state: &SessionState,
    mut statement: Statement,
) -> Result<LogicalPlan> {
    write::check_statement(&statement)?;
    if let Statement::Statement(inner) = &statement
        && is_about_view(inner)
    {
        return ViewNode::plan(state, ViewStatement::of(ast::Statement::clone(inner))?);
    }
    let key = take_key(&mut statement);
    let mut plan = state.statement_to_plan(statement).await?;
    if let (Some(key), LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create))) = (key, &mut plan)
    {
        let normalize = state.config_options().sql_parser.enable_ident_normalization;
        let fields = create.input.schema().fields();
        let mut columns = Vec::with_capacity(key.len());
        for ident in key {
            let name = match ident.quote_style {
                None if normalize => ident.value.to_lowercase(),
                _ => ident.value,
            };
            let Some(column) = fields.iter().position(|field| *field.name() == name) else {
                let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
                return plan_err!(
                    "no such key column: column=`{name}` columns=`{}`",
                    names.join(", ")
                );
            };
            columns.push(column);
        }
        let others = create.constraints.iter().cloned();
        let all = std::iter::once(Constraint::PrimaryKey(columns)).chain(others);
        create.constraints = Constraints::new_unverified(all.collect());
    }
    Ok(plan)
}

/// A statement as it was written: about a view, or one that DataFusion reads.
pub(crate) enum Parsed {
    View(ViewStatement),
    Other(Box<Statement>),
}

impl Parsed {
    pub(crate) fn of(state: &SessionState, sql: &str) -> Result<Self> {
        let name = state.config_options().sql_parser.dialect;
        if let Some(dialect) = dialect_from_str(name)
            && let Some(statement) = ViewStatement::parse(sql, dialect.as_ref())?
        {
            return Ok(Self::View(statement));
        }
        Ok(Self::Other(Box::new(state.sql_to_statement(sql, &name)?)))
    }

    pub(crate) async fn plan(self, state: &SessionState) -> Result<LogicalPlan> {
        match self {
            Self::View(statement) => ViewNode::plan(state, statement),
            Self::Other(statement) => statement_to_plan(state, *statement).await,
        }
    }
}

/// Whether a statement that the parser knows is about a materialized view.
fn is_about_view(statement: &ast::Statement) -> bool {
    match statement {
        ast::Statement::CreateView(create) => create.materialized,
        ast::Statement::Drop { object_type, .. } => {
            *object_type == ast::ObjectType::MaterializedView
        }
        _ => false,
    }
}

/// Takes the primary key out of a `CREATE TABLE AS` that names no other columns.
fn take_key(statement: &mut Statement) -> Option<Vec<ast::Ident>> {
    let Statement::Statement(statement) = statement else {
        return None;
    };
    let ast::Statement::CreateTable(create) = &mut **statement else {
        return None;
    };
    if create.query.is_none() || !create.columns.is_empty() {
        return None;
    }
    let is_key = |constraint: &ast::TableConstraint| {
        matches!(constraint, ast::TableConstraint::PrimaryKey(_))
    };
    let place = create.constraints.iter().position(is_key)?;
    let ast::TableConstraint::PrimaryKey(key) = &create.constraints[place] else {
        return None;
    };
    let columns = key.columns.iter().map(|column| match &column.column.expr {
        ast::Expr::Identifier(ident) => Some(ident.clone()),
        _ => None,
    });
    let columns = columns.collect::<Option<Vec<_>>>()?;
    create.constraints.remove(place);
    Some(columns)
}

/// Does what a plan says if that is to make or drop a table of a store; plans it as DataFusion does otherwise.
///
/// # Errors
/// As for [`sql`].
pub async fn execute(context: &SessionContext, plan: LogicalPlan) -> Result<DataFrame> {
    if let Some(node) = ViewNode::of(&plan) {
        return Box::pin(node.run(context)).await;
    }
    match plan {
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => {
            let state = context.state();
            if let Some((handle, name)) = stored_name(&state, &create.name) {
                return create_table(context, &handle, name, create).await;
            }
            let create = LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create));
            context.execute_logical_plan(create).await
        }
        LogicalPlan::Ddl(DdlStatement::DropTable(drop)) => {
            let stored = stored_name(&context.state(), &drop.name);
            if let Some((handle, name)) = stored
                && names_stored(context, &drop.name).await
            {
                drop_stored(&handle, &name)?;
                return context.read_empty();
            }
            let drop = LogicalPlan::Ddl(DdlStatement::DropTable(drop));
            context.execute_logical_plan(drop).await
        }
        LogicalPlan::Ddl(ddl) => {
            // DataFusion would drop it first.
            if let Some(name) = replaced(&ddl)
                && names_stored(context, name).await
            {
                return plan_err!(
                    "a table of the store cannot be replaced by what is not stored: table=`{name}`; drop it first"
                );
            }
            context.execute_logical_plan(LogicalPlan::Ddl(ddl)).await
        }
        plan => context.execute_logical_plan(plan).await,
    }
}

/// What makes room for a view or a file.
fn replaced(ddl: &DdlStatement) -> Option<&TableReference> {
    match ddl {
        DdlStatement::CreateView(create) if create.or_replace => Some(&create.name),
        DdlStatement::CreateExternalTable(create) if create.or_replace => Some(&create.name),
        _ => None,
    }
}

/// Whether a name stands for a table that is stored: not if something of the session hides it.
pub(crate) async fn names_stored(context: &SessionContext, name: &TableReference) -> bool {
    let table = context.table_provider(name.clone()).await;
    table.is_ok_and(|table| table.is::<StoreTable>() || table.is::<MaterializedView>())
}

/// Whether a table is made of the rows of a query.
pub(crate) fn has_rows(create: &CreateMemoryTable) -> bool {
    !matches!(&*create.input, LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row)
}

/// The catalog of a store that a name belongs to, and the name there.
pub(crate) fn stored_name(
    state: &SessionState,
    name: &TableReference,
) -> Option<(Arc<StoreHandle>, String)> {
    let options = &state.config_options().catalog;
    let name = name
        .clone()
        .resolve(&options.default_catalog, &options.default_schema);
    let handle = Catalogs::handle(state, &name.catalog)?;
    (&*name.schema == SCHEMA).then(|| (handle, name.table.to_string()))
}

async fn create_table(
    context: &SessionContext,
    handle: &Arc<StoreHandle>,
    name: String,
    create: CreateMemoryTable,
) -> Result<DataFrame> {
    let is_there = context.table_exist(create.name.clone())?;
    let stored = handle.store().table(&name).ok();
    match (create.if_not_exists, create.or_replace) {
        (true, true) => return plan_err!("IF NOT EXISTS and OR REPLACE exclude each other"),
        (true, false) if is_there => return context.read_empty(),
        (false, false) if is_there => return to_error(taken(&name)),
        (false, true) if is_there && stored.is_none() => {
            return plan_err!(
                "only a table of the store can be replaced by one: table=`{name}`; drop it first"
            );
        }
        _ => {}
    }
    handle.check_writable()?;
    if is_view(&handle.store(), &name) {
        return plan_err!(
            "a table cannot take the place of a materialized view: view=`{name}`; DROP MATERIALIZED VIEW {name} first"
        );
    }
    if create.temporary {
        return plan_err!("a store has no temporary tables: table=`{name}`");
    }
    let is_query = has_rows(&create);
    if let Some((column, _)) = create.column_defaults.first() {
        return to_error(no_defaults(&name, column));
    }
    let schema = Arc::clone(create.input.schema().inner());
    let spec = table_spec(&name, &schema, Some(&create.constraints), is_query)?;
    let target = WriteTarget {
        handle: Arc::clone(handle),
        name: name.clone(),
        spec: Arc::new(spec),
        statement: match stored {
            Some(_) => write::Statement::Overwrite,
            None => write::Statement::Create,
        },
        snapshot: stored,
        reads_table: false,
        input: None,
        schema,
    };
    let plan = into_target(target, create.name, create.input)?;
    let rows = context.execute_logical_plan(plan).await?;
    if is_query {
        return Ok(rows);
    }
    rows.collect().await?;
    context.read_empty()
}

/// Makes a table of a store from one in memory, which is what DataFusion makes of a `CREATE TABLE`.
pub(crate) fn store_table(handle: &StoreHandle, name: &str, table: &MemTable) -> Result<()> {
    handle.check_writable()?;
    let schema = table.schema();
    let has_default = |field: &&Arc<Field>| table.get_column_default(field.name()).is_some();
    if let Some(field) = schema.fields().iter().find(has_default) {
        return to_error(no_defaults(name, field.name()));
    }
    let mut rows: Vec<RecordBatch> = Vec::new();
    for partition in &table.batches {
        let Ok(batches) = partition.try_read() else {
            return exec_err!("table is written to meanwhile: table=`{name}`");
        };
        rows.extend(batches.iter().cloned());
    }
    let spec = table_spec(name, &schema, table.constraints(), !rows.is_empty())?;
    let change = Change {
        name: name.to_owned(),
        spec: Arc::new(spec),
        planned: None,
        read: None,
        statement: write::Statement::Create,
    };
    let store = handle.store();
    let written = blocking(|| change.write(&store, Steps::of(rows.into_iter())));
    written.map(|_| ()).map_err(to_datafusion)
}

/// Drops a table of a store.
pub(crate) fn drop_stored(handle: &StoreHandle, name: &str) -> Result<()> {
    handle.check_writable()?;
    let store = handle.store();
    if is_view(&store, name) {
        return plan_err!(
            "a materialized view is dropped as one: view=`{name}`; DROP MATERIALIZED VIEW {name}"
        );
    }
    let dropped = blocking(|| {
        let mut transaction = store.begin()?;
        transaction.drop_table(name)?;
        transaction.commit()
    });
    dropped.map(|_| ()).map_err(to_datafusion)
}

/// The columns and key of a new table. What a query happens to find without nulls may have some later: that its columns
/// are declared so says nothing.
fn table_spec(
    name: &str,
    schema: &Schema,
    constraints: Option<&Constraints>,
    is_query: bool,
) -> Result<TableSpec> {
    let mut key = None;
    for constraint in constraints.into_iter().flat_map(|all| all.iter()) {
        match constraint {
            Constraint::PrimaryKey(columns) if key.is_none() => key = Some(columns),
            Constraint::PrimaryKey(_) => {
                return plan_err!("a table has one primary key: table=`{name}`");
            }
            Constraint::Unique(_) => {
                return plan_err!(
                    "columns of a store's table cannot be UNIQUE; only its PRIMARY KEY is: table=`{name}`"
                );
            }
        }
    }
    let Some(key) = key else {
        return plan_err!(
            "a table of a store needs a primary key: table=`{name}`; write CREATE TABLE {name} (id BIGINT, ..., PRIMARY \
             KEY (id)), or CREATE TABLE {name} (PRIMARY KEY (id)) AS SELECT ..."
        );
    };
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(column, field)| {
            let is_nullable = !key.contains(&column) && (is_query || field.is_nullable());
            Field::new(field.name(), field.data_type().clone(), is_nullable)
        })
        .collect();
    let names: Vec<&str> = key
        .iter()
        .map(|column| fields[*column].name().as_str())
        .collect();
    let spec = TableSpec::new(&Schema::new(fields.clone()), &names);
    spec.map_err(|error| to_datafusion(error.context(name)))
}

/// What is said of a name that something has already.
pub(crate) fn taken(name: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("table exists: table=`{name}`; use IF NOT EXISTS, OR REPLACE, or drop it first"),
    )
}

fn no_defaults(name: &str, column: &str) -> Error {
    Error::invalid(format!(
        "columns of a store's table have no DEFAULT: table=`{name}` column=`{column}`; a value that is left out is null"
    ))
}

fn to_error<T>(error: Error) -> Result<T> {
    Err(to_datafusion(error))
}
