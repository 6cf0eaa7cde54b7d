//! One statement, planned, and its rows.

use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use darner_engine::{Error, Result};
use datafusion::{
    logical_expr::{DdlStatement, LogicalPlan, Statement as PlanStatement},
    prelude::SessionContext,
    sql::parser::Statement,
};
use futures::StreamExt;
use tokio::sync::Semaphore;

use crate::{
    create::{self, Parsed},
    error::from_datafusion,
    guard::{Effects, Needs},
    script,
    session::Session,
    session_options::SessionOptions,
    view::ViewNode,
    worker::Task,
};

/// Batches that wait for the caller.
const BATCHES_AHEAD: usize = 4;

/// What a statement gives when it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Rows that were asked for.
    Rows,
    /// One row that says how many rows were written.
    Count,
    /// Nothing.
    Nothing,
}

/// A statement that the session allows, planned on the tables as they were then.
pub struct Plan<'s> {
    session: &'s Session,
    /// Taken when it is run.
    logical: Option<LogicalPlan>,
    needs: Needs,
}

impl<'s> Plan<'s> {
    /// Plans one statement.
    pub(crate) fn of(session: &'s Session, sql: &str) -> Result<Self> {
        let (context, options) = (session.context().clone(), Arc::clone(session.options()));
        let sql = sql.to_owned();
        let work = async move { plan(&context, &options, &sql).await };
        let (plan, needs) = session.worker().run(work)?;
        Ok(Self {
            session,
            logical: Some(plan),
            needs,
        })
    }

    /// The columns of its rows, as they are known before it runs.
    pub fn schema(&self) -> SchemaRef {
        let plan = self.logical.as_ref();
        plan.map_or_else(
            || Arc::new(Schema::empty()),
            |plan| Arc::clone(plan.schema().inner()),
        )
    }

    /// What the store must be open for.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// What running it will give.
    pub fn answer(&self) -> Answer {
        if let Some(node) = self.logical.as_ref().and_then(ViewNode::of) {
            return node.answer();
        }
        match &self.logical {
            Some(LogicalPlan::Dml(_) | LogicalPlan::Copy(_)) => Answer::Count,
            Some(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)))
                if create::has_rows(table) =>
            {
                Answer::Count
            }
            Some(LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) => Answer::Nothing,
            _ => Answer::Rows,
        }
    }

    /// Runs it. Rows come one batch at a time.
    ///
    /// # Errors
    /// Those of the statement.
    pub fn run(mut self) -> Result<QueryStream<'s>> {
        let plan = self.logical.take();
        let plan = plan.ok_or_else(|| Error::internal("plan was run already"))?;
        let context = self.session.context().clone();
        let (schema_sender, schema_receiver) = channel();
        let (sender, receiver) = channel();
        let permits = Arc::new(Semaphore::new(BATCHES_AHEAD));
        let taken = Arc::clone(&permits);
        let task = self.session.worker().spawn(async move {
            let stream = async {
                let frame = create::execute(&context, plan).await?;
                frame.execute_stream().await
            };
            let mut stream = match stream.await.map_err(from_datafusion) {
                Ok(stream) => stream,
                Err(error) => {
                    let _ = schema_sender.send(Err(error));
                    return;
                }
            };
            // Nobody listens any more when sending fails; this task is then about to be stopped.
            let _ = schema_sender.send(Ok(stream.schema()));
            while let Ok(permit) = taken.acquire().await {
                permit.forget();
                let rows = stream.next().await;
                let is_end = !matches!(rows, Some(Ok(_)));
                let _ = sender.send(rows.map(|rows| rows.map_err(from_datafusion)));
                if is_end {
                    break;
                }
            }
        });
        let schema = self.session.worker().wait(&schema_receiver)??;
        Ok(QueryStream {
            session: self.session,
            schema,
            receiver,
            permits,
            is_over: false,
            _task: task,
        })
    }
}

impl Drop for Plan<'_> {
    fn drop(&mut self) {
        if let Some(plan) = self.logical.take() {
            self.session.worker().give_back(plan);
        }
    }
}

/// Plans a statement, and refuses what the options forbid.
async fn plan(
    context: &SessionContext,
    options: &SessionOptions,
    sql: &str,
) -> Result<(LogicalPlan, Needs)> {
    let state = context.state();
    let name = {
        let (name, dialect) = script::dialect_of(&state)?;
        script::check_depth(sql, dialect.as_ref())?;
        name
    };
    let parsed = Parsed::of(&state, sql).map_err(from_datafusion)?;
    let mut plan = match parsed.plan(&state).await {
        Ok(plan) => plan,
        Err(error) => {
            let statement = state.sql_to_statement(sql, &name);
            let missing = statement.ok().and_then(|statement| {
                missing_table(context, options, &statement, &error.to_string())
            });
            return Err(missing.unwrap_or_else(|| from_datafusion(error)));
        }
    };
    if let LogicalPlan::Statement(PlanStatement::Execute(_)) = plan {
        // Puts the arguments into the prepared statement, and runs nothing.
        let frame = context.execute_logical_plan(plan).await;
        plan = frame.map_err(from_datafusion)?.into_unoptimized_plan();
    }
    let is_stored = drops_stored(context, &plan).await?;
    let effects = Effects::of(&plan, is_stored)?;
    effects.check(options)?;
    Ok((plan, effects.needs))
}

/// Whether the table that a statement drops is one of the store. A statement that drops another, inside an EXPLAIN, is
/// taken for one that does.
async fn drops_stored(context: &SessionContext, plan: &LogicalPlan) -> Result<bool> {
    let LogicalPlan::Ddl(DdlStatement::DropTable(drop)) = plan else {
        return Ok(true);
    };
    let is_there = context.table_provider(drop.name.clone()).await.is_ok();
    if is_there || drop.if_exists {
        return Ok(create::names_stored(context, &drop.name).await);
    }
    Err(no_such_table(context, drop.name.table()))
}

/// The error for a statement that could not be planned because it names a table that is not there.
fn missing_table(
    context: &SessionContext,
    options: &SessionOptions,
    statement: &Statement,
    message: &str,
) -> Option<Error> {
    let state = context.state();
    for name in state.resolve_table_references(statement).ok()? {
        let is_function = state.table_functions().contains_key(name.table());
        // Of several names, the one that the message is about.
        if !is_function
            && message.contains(&format!(".{}' not found", name.table()))
            && !context.table_exist(name.clone()).unwrap_or(false)
        {
            // FROM flights.csv is the table csv of the schema flights.
            let file = name.to_string();
            if options.allow_files
                && name.schema().is_some()
                && options.directory.join(&file).exists()
            {
                return Some(Error::not_found(format!(
                    "no such table: table=`{file}`; a file stands in single quotes: '{file}'"
                )));
            }
            return Some(no_such_table(context, &name.to_string()));
        }
    }
    None
}

fn no_such_table(context: &SessionContext, name: &str) -> Error {
    let mut names = crate::session::table_names(context);
    names.sort_by_cached_key(|known| distance(known, name));
    names.truncate(3);
    let hint = if names.is_empty() {
        String::new()
    } else {
        format!("; the nearest names are `{}`", names.join("`, `"))
    };
    Error::not_found(format!("no such table: table=`{name}`{hint}"))
}

/// How many letters two names differ by, upper and lower case being one.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.to_lowercase(), right.to_lowercase());
    datafusion::common::utils::datafusion_strsim::levenshtein(&left, &right)
}

/// The rows of a statement, batch by batch. Dropping this ends the statement.
pub struct QueryStream<'s> {
    session: &'s Session,
    schema: SchemaRef,
    receiver: Receiver<Option<Result<RecordBatch>>>,
    /// One for each batch that may wait.
    permits: Arc<Semaphore>,
    is_over: bool,
    _task: Task,
}

impl QueryStream<'_> {
    /// The columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for QueryStream<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        self.permits.add_permits(1);
        let next = match self.session.worker().wait(&self.receiver) {
            Ok(next) => next,
            Err(error) => Some(Err(error)),
        };
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
