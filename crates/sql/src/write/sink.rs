//! Writes the rows of a statement as one commit.

use std::{fmt, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use darner_engine::{Error, ErrorKind};
use darner_store::TableSnapshot;
use datafusion::{
    datasource::sink::DataSink,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, SessionState, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType, execute_stream},
};
use futures::StreamExt;
use tokio::sync::mpsc::{self, Receiver};

use super::{
    apply::Change,
    rule::on_tables,
    target::{Statement, WriteTarget},
};
use crate::{blocking::start, error::to_datafusion};

/// Batches that wait to be written while the next ones are computed.
const BATCHES_AHEAD: usize = 4;

/// How often a statement is tried whose table is changed under its hands by commits that wait for no lock.
const ATTEMPTS_MAX: usize = 10;

/// Puts the rows of a query into a table.
///
/// If the query reads the table too, what it read and what is replaced must be of one state. A table that has changed
/// between planning and now is planned anew. Until the commit other statements of the catalog wait; and if somebody
/// commits who does not wait, the store refuses what is stale, and all is done again.
pub(super) struct StoreSink {
    target: WriteTarget,
    schema: SchemaRef,
    /// What plans the input anew. `None` for a session of an unknown kind.
    state: Option<SessionState>,
}

impl StoreSink {
    pub(super) fn new(target: WriteTarget, schema: SchemaRef, state: Option<SessionState>) -> Self {
        Self {
            target,
            schema,
            state,
        }
    }

    async fn try_write(
        &self,
        planned: Option<SendableRecordBatchStream>,
        context: &Arc<TaskContext>,
    ) -> Result<u64> {
        let WriteTarget {
            handle,
            name,
            spec,
            snapshot,
            statement,
            reads_table,
            ..
        } = &self.target;
        let locks = &handle.writes;
        let lock = if *reads_table {
            Some(locks.lock(name).await)
        } else {
            None
        };
        let store = handle.store();
        let is_current = || {
            let planned = snapshot.as_ref().map(TableSnapshot::version);
            planned == store.table(name).ok().map(|table| table.version())
        };
        let planned_spec = snapshot.as_ref().map(|table| Arc::clone(table.spec()));
        let (snapshot, mut rows) = match planned {
            Some(rows) if !reads_table || is_current() => (snapshot.clone(), rows),
            _ => self.plan_again(context).await?,
        };
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let change = Change {
            name: name.clone(),
            spec: Arc::clone(spec),
            planned: planned_spec,
            read: snapshot.filter(|_| *reads_table),
            statement: statement.clone(),
        };
        let writing = start(move || change.write(&store, Steps::new(receiver)))?;
        while let Some(rows) = rows.next().await {
            // Whoever writes has met an error otherwise, and tells it below.
            if sender.send(Step::Rows(rows?)).await.is_err() {
                break;
            }
        }
        let _lock = match lock {
            Some(lock) => lock,
            None => locks.lock(name).await,
        };
        let _ = sender.send(Step::Commit).await;
        drop(sender);
        writing.end().await?.map_err(to_datafusion)
    }

    /// Plans the input on the tables as they are now.
    async fn plan_again(
        &self,
        context: &Arc<TaskContext>,
    ) -> Result<(Option<TableSnapshot>, SendableRecordBatchStream)> {
        let WriteTarget { handle, name, .. } = &self.target;
        let (Some(state), Some(input)) = (&self.state, &self.target.input) else {
            return Err(to_datafusion(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "table was changed since the statement was planned: table=`{name}`; try again"
                ),
            )));
        };
        let tables = handle.store().tables();
        let newest = tables.iter().find(|table| table.name() == name);
        let input = on_tables(input, handle, &tables)?;
        let plan = state.create_physical_plan(&input).await?;
        let rows = execute_stream(plan, Arc::clone(context))?;
        Ok((newest.cloned(), rows))
    }
}

impl fmt::Debug for StoreSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSink")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl DisplayAs for StoreSink {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WriteTarget {
            name, statement, ..
        } = &self.target;
        write!(f, "StoreSink: {statement} {name}")
    }
}

#[async_trait::async_trait]
impl DataSink for StoreSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> Result<u64> {
        let mut planned = Some(data);
        let mut num_attempts = 1;
        loop {
            match self.try_write(planned.take(), context).await {
                // That a table to be made is there already will not change.
                Err(error)
                    if self.target.statement != Statement::Create
                        && is_conflict(&error)
                        && num_attempts < ATTEMPTS_MAX =>
                {
                    num_attempts += 1;
                }
                result => return result,
            }
        }
    }
}

fn is_conflict(error: &DataFusionError) -> bool {
    let DataFusionError::External(error) = error.find_root() else {
        return false;
    };
    let error = error.downcast_ref::<Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::Conflict)
}

/// What a thread that writes is told.
enum Step {
    Rows(RecordBatch),
    Commit,
}

/// The rows of a statement, on the thread that writes them.
pub(crate) struct Steps {
    steps: Box<dyn Iterator<Item = Step> + Send>,
    is_complete: bool,
}

impl Steps {
    fn new(mut receiver: Receiver<Step>) -> Self {
        Self {
            steps: Box::new(std::iter::from_fn(move || receiver.blocking_recv())),
            is_complete: false,
        }
    }

    /// Rows that are all there.
    pub(crate) fn of(rows: impl Iterator<Item = RecordBatch> + Send + 'static) -> Self {
        Self {
            steps: Box::new(rows.map(Step::Rows).chain([Step::Commit])),
            is_complete: false,
        }
    }

    /// Fails unless all rows came: a query that failed or was given up only ends.
    pub(super) fn check_complete(&self) -> darner_engine::Result<()> {
        if self.is_complete {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Cancelled,
            "the statement ended before all its rows were there; nothing was changed",
        ))
    }
}

impl Iterator for Steps {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        // After the end, whoever sends may be there still and wait for the commit.
        if self.is_complete {
            return None;
        }
        match self.steps.next()? {
            Step::Rows(rows) => Some(rows),
            Step::Commit => {
                self.is_complete = true;
                None
            }
        }
    }
}
