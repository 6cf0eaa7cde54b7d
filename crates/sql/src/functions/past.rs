//! What was, as tables: `darner_at`, `darner_history`, `darner_changes`.

use std::{fmt, sync::Arc};

use arrow_array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use darner_engine::{ChangedRows, Error};
use darner_store::{AsOf, RowCounts, TableCommit, TableSnapshot};
use datafusion::{
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider},
    error::Result,
    prelude::SessionContext,
};

use super::{as_of, check_count, rows, text};
use crate::{catalog::Catalogs, error::to_datafusion, table::StoreTable};

pub(super) fn register(context: &SessionContext, catalogs: &Arc<Catalogs>) {
    for past in [Past::At, Past::History, Past::Changes] {
        let function = PastFunction {
            past,
            catalogs: Arc::clone(catalogs),
        };
        context.register_udtf(past.name(), Arc::new(function));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    At,
    History,
    Changes,
}

impl Past {
    fn name(self) -> &'static str {
        match self {
            Self::At => "darner_at",
            Self::History => "darner_history",
            Self::Changes => "darner_changes",
        }
    }

    fn usage(self) -> (usize, &'static str) {
        match self {
            Self::At => (2, "darner_at('table', version or time)"),
            Self::History => (1, "darner_history('table')"),
            Self::Changes => (3, "darner_changes('table', since [, until])"),
        }
    }
}

struct PastFunction {
    past: Past,
    catalogs: Arc<Catalogs>,
}

impl fmt::Debug for PastFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.past.name())
    }
}

impl TableFunctionImpl for PastFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let (args, function) = (args.exprs(), self.past.name());
        let (num_max, usage) = self.past.usage();
        check_count(function, args, num_max, usage)?;
        let table = text(function, "the name of a table", args.first())?;
        match self.past {
            Past::At => {
                let as_of = as_of(function, args.get(1))?;
                self.at(table, as_of).map_err(to_datafusion)
            }
            Past::History => {
                let (_, table) = self.catalogs.table(table).map_err(to_datafusion)?;
                history(table)
            }
            Past::Changes => {
                let since = as_of(function, args.get(1))?;
                let until = match args.get(2) {
                    None => None,
                    until => Some(as_of(function, until)?),
                };
                self.changes(table, since, until)
            }
        }
    }
}

impl PastFunction {
    fn at(&self, table: &str, as_of: AsOf) -> darner_engine::Result<Arc<dyn TableProvider>> {
        let (handle, name) = self.catalogs.find(table)?;
        let table = handle.store().table_at(&name, as_of)?;
        Ok(Arc::new(StoreTable::past(&handle, table)))
    }

    fn changes(
        &self,
        table: &str,
        since: AsOf,
        until: Option<AsOf>,
    ) -> Result<Arc<dyn TableProvider>> {
        let found = self.catalogs.find(table);
        let changes = found
            .and_then(|(handle, name)| ChangedRows::find(&handle.store(), &name, since, until));
        let changes = changes.map_err(to_datafusion)?;
        rows::table(Arc::clone(changes.schema()), move || {
            Ok(Box::new(changes.rows()?))
        })
    }
}

fn history(table: TableSnapshot) -> Result<Arc<dyn TableProvider>> {
    let count = |name: &str| Field::new(name, DataType::UInt64, true);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("version", DataType::UInt64, false),
        Field::new("time", time, false),
        Field::new("kind", DataType::Utf8, false),
        count("rows_added"),
        count("rows_removed"),
        count("rows_live"),
        Field::new("readable", DataType::Boolean, false),
    ]));
    let of = Arc::clone(&schema);
    rows::table(schema, move || {
        let rows = history_rows(&of, &table.history()?)?;
        Ok(Box::new(std::iter::once(Ok(rows))))
    })
}

fn history_rows(schema: &SchemaRef, commits: &[TableCommit]) -> darner_engine::Result<RecordBatch> {
    let versions = commits.iter().map(|commit| commit.version.number);
    let times = commits.iter().map(|commit| commit.version.time_us);
    let kinds = commits.iter().map(|commit| commit.kind.name());
    let count = |of: fn(RowCounts) -> u64| -> ArrayRef {
        let counts = commits.iter().map(|commit| commit.counts.map(of));
        Arc::new(counts.collect::<UInt64Array>())
    };
    let readable = commits.iter().map(|commit| Some(commit.is_readable));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(versions)),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(kinds)),
        count(|counts| counts.num_added),
        count(|counts| counts.num_removed),
        count(|counts| counts.num_live),
        Arc::new(readable.collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::internal("a history does not fit its schema").with_source(error))
}
