//! Views are made, refreshed and dropped.
//!
//! All that a refresh changes is one commit: states, what was seen of the sources, and, if the view is made, what it is.
//! It is refused if another commit has changed the view since its states were read, and then done again.

use std::{path::PathBuf, sync::Arc, thread::Builder, time::Instant};

use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use arrow_schema::SchemaRef;
use darner_engine::{Error, ErrorKind};
use darner_store::{TableSpec, Version};
use datafusion::{
    catalog::TableProvider,
    datasource::MemTable,
    error::{DataFusionError, Result},
    logical_expr::LogicalPlan,
    sql::parser::Statement,
};
use tracing::debug;

use super::{
    aggregation::{Aggregation, NewStates},
    build::Built,
    define::{self, Definition, FactsKind, Relation, Seen, StoredView, TableVersion},
    prepared::{Planned, check_states},
    query, shape,
    sources::{Look, SeenFile, new_files},
    stored::{all_states, num_keys, states_at},
};
use crate::{
    blocking::blocking,
    catalog::StoreHandle,
    create::taken,
    error::{from_datafusion, to_datafusion},
    files,
};

/// How often a refresh begins again because of others.
const TRIES_MAX: usize = 10;

/// What a refresh does about dimensions that have changed since the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDimensionChange {
    /// Rows that are counted stay as they are; new rows meet the dimension as it is now.
    #[default]
    Keep,
    /// All rows are joined anew.
    Rebuild,
}

/// How a view is refreshed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RefreshOptions {
    /// Files to count, instead of those that the view's query names: paths, directories or patterns.
    pub files: Vec<String>,
    /// Count all rows of all sources anew.
    pub rebuild: bool,
    /// What to do about dimensions that have changed.
    pub on_dimension_change: OnDimensionChange,
}

/// What a refresh has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefreshReport {
    /// The view.
    pub view: String,
    /// How it was done.
    pub kind: RefreshKind,
    /// Why all rows were read, if they were.
    pub reason: Option<String>,
    /// Files whose rows were counted.
    pub num_files: u64,
    /// Groups whose states have changed, or rows of a view that is computed anew each time.
    pub num_groups: u64,
    /// Groups that are gone.
    pub num_groups_removed: u64,
    /// Dimensions that have changed since rows were joined with them: those rows are as they were.
    pub kept_dimensions: Vec<String>,
    /// The commit that the view is as of.
    pub version: Version,
}

/// How a view was refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshKind {
    /// It was made.
    Created,
    /// It was there.
    Existed,
    /// There was nothing new.
    UpToDate,
    /// New rows were merged with the states of their groups.
    Merged,
    /// The groups of changed rows were computed anew.
    GroupsRecomputed,
    /// All rows were read.
    Rebuilt,
}

impl RefreshKind {
    /// One word, or few.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Existed => "existed",
            Self::UpToDate => "up to date",
            Self::Merged => "merged",
            Self::GroupsRecomputed => "groups recomputed",
            Self::Rebuilt => "rebuilt",
        }
    }
}

/// A view to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) struct NewView {
    pub(crate) name: String,
    /// Names for its columns, if others than the query's.
    pub(crate) columns: Vec<String>,
    pub(crate) query: String,
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
}

/// Views of a store, and how many threads work for them.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) handle: Arc<StoreHandle>,
    pub(crate) num_threads: usize,
}

impl Views {
    /// Makes a view, and counts all there is. `pushed` names a relation whose rows programs will give.
    pub(crate) async fn create(
        &self,
        new: &NewView,
        pushed: Option<&Relation>,
    ) -> Result<RefreshReport> {
        let name = &new.name;
        let _turn = self.handle.writes.lock(name).await;
        let store = self.handle.store();
        let before = StoredView::find(&store, name).map_err(to_datafusion)?;
        match &before {
            Some(view) if new.if_not_exists => {
                let mut report = RefreshReport::new(name, RefreshKind::Existed);
                report.version = view.table.version();
                return Ok(report);
            }
            Some(_) if !new.or_replace => {
                return fail(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "view exists: view=`{name}`; use IF NOT EXISTS, OR REPLACE, or drop it first"
                    ),
                ));
            }
            None if store.table(name).is_ok() => return fail(taken(name)),
            _ => {}
        }
        self.handle.check_writable()?;
        let mut definition = Definition::new(self.whole_query(&new.query, pushed)?, Vec::new());
        let planned =
            Planned::on_all(&self.handle, &definition.query, pushed, self.num_threads).await?;
        definition.columns = column_names(&planned.plan, &new.columns)?;
        match shape::shape_of(&planned.plan)? {
            Ok(shape) => {
                definition.facts = Some(shape.facts);
                definition.dimensions = shape.dimensions;
            }
            Err(reason) => definition.reason = Some(reason),
        }
        if let (Some(pushed), Some(reason)) = (pushed, &definition.reason) {
            return fail(Error::invalid(format!(
                "rows that are pushed are seen once, so the view must be refreshed by them alone: relation=`{}`; {reason}",
                pushed.name
            )));
        }
        let built = self.build(name, &definition, &Seen::default()).await?;
        let version = self.commit_all(name, Some(&definition), before.as_ref(), &built)?;
        let report = RefreshReport::new(name, RefreshKind::Created);
        Ok(built.told_in(report, definition.reason, version))
    }

    /// Refreshes a view.
    pub(crate) async fn refresh(
        &self,
        name: &str,
        options: &RefreshOptions,
    ) -> Result<RefreshReport> {
        let _turn = self.handle.writes.lock(name).await;
        self.handle.check_writable()?;
        let started = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_refresh(name, options).await {
                Err(error) if tries < TRIES_MAX && is_conflict(&error) => {}
                Err(error) => return Err(error),
                Ok(report) => {
                    debug!(
                        view = name,
                        kind = ?report.kind,
                        num_files = report.num_files,
                        num_groups = report.num_groups,
                        tries,
                        seconds = started.elapsed().as_secs_f64(),
                        "view refreshed"
                    );
                    return Ok(report);
                }
            }
        }
    }

    async fn try_refresh(&self, name: &str, options: &RefreshOptions) -> Result<RefreshReport> {
        let store = self.handle.store();
        let view = StoredView::get(&store, name).map_err(to_datafusion)?;
        let (seen, _) = view.seen(&store).map_err(to_datafusion)?;
        let definition = &view.definition;
        let kind = definition.facts_kind();
        if !options.files.is_empty() {
            check_takes_files(&view, options).map_err(to_datafusion)?;
        }
        let changed = self.changed_dimensions(&seen);
        let reason = if !definition.is_incremental() {
            definition.reason.clone()
        } else if options.rebuild {
            Some("a rebuild was asked for".to_owned())
        } else if !changed.is_empty() && options.on_dimension_change == OnDimensionChange::Rebuild {
            Some(format!("`{}` has changed", changed.join("`, `")))
        } else {
            None
        };
        if let Some(reason) = reason {
            return self.rebuild(&view, &seen, reason).await;
        }
        let mut report = RefreshReport::new(name, RefreshKind::Merged);
        report.version = view.table.version();
        report.kept_dimensions = changed;
        let Some(facts) = &definition.facts else {
            return fail(Error::internal("an incremental view has no facts"));
        };
        let relation = &facts.relation;
        if kind == Some(FactsKind::Table) {
            return self.refresh_by_table(&view, relation, seen, report).await;
        }
        let named: Vec<String> = options
            .files
            .iter()
            .map(|file| query::whole(file))
            .collect::<Result<_, _>>()
            .map_err(to_datafusion)?;
        let look = if !named.is_empty() {
            Look::Named(&named)
        } else if kind == Some(FactsKind::Files) {
            Look::Query(&relation.name)
        } else {
            report.kind = RefreshKind::UpToDate;
            return Ok(report);
        };
        self.refresh_by_files(&view, relation, look, seen, report)
            .await
    }

    /// Counts files that are not counted yet.
    async fn refresh_by_files(
        &self,
        view: &StoredView,
        relation: &Relation,
        look: Look<'_>,
        mut seen: Seen,
        mut report: RefreshReport,
    ) -> Result<RefreshReport> {
        let new = blocking(|| new_files(&view.name, look, &mut seen.files));
        let new = new.map_err(to_datafusion)?;
        if new.is_empty() {
            report.kind = RefreshKind::UpToDate;
            return Ok(report);
        }
        report.num_files = new.len() as u64;
        let table = self.table_of(&new, relation).await?;
        let states = self.new_states(view, table, &mut seen).await;
        let states = states.map_err(|error| in_files(error, &new))?;
        new.iter()
            .try_for_each(SeenFile::check_still)
            .map_err(to_datafusion)?;
        seen.files.extend(new);
        self.merge(view, &seen, states, report).await
    }

    /// Counts rows that a program gives.
    pub(crate) async fn push(
        &self,
        name: &str,
        rows: Vec<RecordBatch>,
        watermark: Option<&[u8]>,
    ) -> Result<RefreshReport> {
        let _turn = self.handle.writes.lock(name).await;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_push(name, &rows, watermark).await {
                Err(error) if tries < TRIES_MAX && is_conflict(&error) => {}
                done => return done,
            }
        }
    }

    async fn try_push(
        &self,
        name: &str,
        rows: &[RecordBatch],
        watermark: Option<&[u8]>,
    ) -> Result<RefreshReport> {
        let store = self.handle.store();
        let view = StoredView::get(&store, name).map_err(to_datafusion)?;
        let (mut seen, _) = view.seen(&store).map_err(to_datafusion)?;
        let schema = push_schema(&view).map_err(to_datafusion)?;
        let mut report = RefreshReport::new(name, RefreshKind::Merged);
        report.version = view.table.version();
        report.kept_dimensions = self.changed_dimensions(&seen);
        seen.num_pushed_rows += rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        if let Some(watermark) = watermark {
            seen.set_watermark(watermark);
        }
        // One part for each thread, in order.
        let num_parts = self.num_threads.clamp(1, rows.len().max(1));
        let size = rows.len().div_ceil(num_parts).max(1);
        let mut parts: Vec<Vec<RecordBatch>> = rows.chunks(size).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let facts = Arc::new(MemTable::try_new(schema, parts)?);
        let states = self.new_states(&view, facts, &mut seen).await?;
        self.merge(&view, &seen, states, report).await
    }

    /// Drops a view.
    pub(crate) async fn drop(&self, name: &str, if_exists: bool) -> Result<()> {
        let _turn = self.handle.writes.lock(name).await;
        let store = self.handle.store();
        match StoredView::get(&store, name) {
            Err(error) if error.kind() == ErrorKind::NotFound && if_exists => return Ok(()),
            Err(error) => return fail(error),
            Ok(_) => {}
        }
        self.handle.check_writable()?;
        let dropped = blocking(|| {
            let mut transaction = store.begin()?;
            define::forget(&mut transaction, name)?;
            transaction.commit()
        });
        dropped.map(drop).map_err(to_datafusion)
    }

    /// A query with whole paths. Fails if it has other things than a query, or what cannot be written again.
    pub(crate) fn whole_query(&self, query: &str, pushed: Option<&Relation>) -> Result<String> {
        let state = query::base(1)?;
        let mut statement: Statement = query::parse(&state, query)?;
        let store = self.handle.store();
        let is_table = |name: &str| {
            store.table(name).is_ok() || pushed.is_some_and(|pushed| pushed.name == name)
        };
        query::make_whole(&mut statement, &is_table)?;
        query::written(&statement)
    }

    /// The dimensions that have changed since rows were joined with them.
    pub(crate) fn changed_dimensions(&self, seen: &Seen) -> Vec<String> {
        let store = self.handle.store();
        let is_changed = |name: &str, first: TableVersion| {
            store
                .table(name)
                .map_or(true, |now| TableVersion::of(&now) != first)
        };
        let dimensions = seen.dimensions.iter();
        dimensions
            .filter(|seen| is_changed(&seen.name, seen.first))
            .map(|seen| seen.name.clone())
            .collect()
    }

    /// Files as a table of facts.
    pub(crate) async fn table_of(
        &self,
        new: &[SeenFile],
        relation: &Relation,
    ) -> Result<Arc<dyn TableProvider>> {
        let schema = relation.schema().map_err(to_datafusion)?;
        let paths: Vec<PathBuf> = new.iter().map(|file| PathBuf::from(&file.path)).collect();
        if paths.is_empty() {
            return Ok(Arc::new(MemTable::try_new(schema, vec![Vec::new()])?));
        }
        let state = query::base(self.num_threads)?;
        let table = files::facts_table(&state, &paths, schema).await;
        table.map_err(to_datafusion)
    }

    /// The states of new rows; says in `seen` what they were joined with.
    pub(super) async fn new_states(
        &self,
        view: &StoredView,
        facts: Arc<dyn TableProvider>,
        seen: &mut Seen,
    ) -> Result<(Aggregation, Planned, NewStates)> {
        let definition = &view.definition;
        let planned = Planned::on_facts(&self.handle, definition, facts, self.num_threads).await?;
        let aggregation = planned.aggregation().await?;
        check_states(view, &aggregation.spec)?;
        let shape = shape::shape_of(&planned.plan)?;
        let shape = shape.map_err(|reason| to_datafusion(Error::internal(reason)))?;
        let states = aggregation
            .states_of(&shape.aggregate.input, &planned.state)
            .await?;
        seen.add_dimensions(&planned.dimensions(definition));
        Ok((aggregation, planned, states))
    }

    /// Merges new states with those of their groups, and commits.
    pub(super) async fn merge(
        &self,
        view: &StoredView,
        seen: &Seen,
        (aggregation, planned, new): (Aggregation, Planned, NewStates),
        mut report: RefreshReport,
    ) -> Result<RefreshReport> {
        // To write all groups anew is the quicker way then: a table of states that was written at once has nothing but what
        // counts, and who reads it, as the next refresh does, need not look for that.
        let is_most =
            new.num_groups_min > 0 && new.num_groups_min as u64 >= view.table.num_stored_rows() / 2;
        let new = new.rows;
        let mut states = blocking(|| {
            if is_most {
                return all_states(&view.table);
            }
            states_at(&view.table, new.iter().map(|rows| rows.column(0)))
        })?;
        states.extend(new.iter().cloned());
        let merged = aggregation.merge(&states, &planned.state).await?;
        if is_most {
            let built = Built {
                seen: seen.clone(),
                spec: TableSpec::clone(view.table.spec()),
                batches: vec![merged],
            };
            // While the disk is waited for.
            (report.version, report.num_groups) = std::thread::scope(|scope| {
                let thread = Builder::new().spawn_scoped(scope, || num_keys(&new));
                let version = self.commit_all(&view.name, None, Some(view), &built)?;
                let num_groups = match thread {
                    Ok(thread) => thread.join().map_err(|_| {
                        to_datafusion(Error::internal("thread that counts groups panicked"))
                    })?,
                    Err(_) => num_keys(&new),
                };
                Ok::<_, DataFusionError>((version, num_groups as u64))
            })?;
        } else {
            report.num_groups = merged.num_rows() as u64;
            report.version = self.commit_groups(view, seen, &merged, None)?;
        }
        Ok(report)
    }

    pub(super) fn commit_groups(
        &self,
        view: &StoredView,
        seen: &Seen,
        merged: &RecordBatch,
        gone: Option<ArrayRef>,
    ) -> Result<Version> {
        let store = self.handle.store();
        let committed = blocking(|| {
            let mut transaction = store.begin()?;
            transaction.require_unchanged(&view.table);
            if merged.num_rows() > 0 {
                transaction.upsert(&view.name, merged)?;
            }
            let mut gone = gone.filter(|gone| !gone.is_empty());
            if merged.num_rows() == 0 && gone.is_none() {
                // What was seen of the sources has changed all the same, and another refresh must notice: so the table
                // changes, by a group that cannot be. Where there are columns to group by, a key has bytes.
                gone = Some(Arc::new(BinaryArray::from_iter_values([b""])));
            }
            if let Some(gone) = gone {
                let schema = Arc::clone(view.table.spec().key_schema());
                let keys = RecordBatch::try_new(schema, vec![gone]).map_err(|error| {
                    Error::internal("keys of groups do not fit").with_source(error)
                })?;
                transaction.delete(&view.name, &keys)?;
            }
            define::remember(&mut transaction, &view.name, seen)?;
            transaction.commit()
        });
        committed.map_err(to_datafusion)
    }
}

impl RefreshReport {
    pub(crate) fn new(view: &str, kind: RefreshKind) -> Self {
        Self {
            view: view.to_owned(),
            kind,
            reason: None,
            num_files: 0,
            num_groups: 0,
            num_groups_removed: 0,
            kept_dimensions: Vec::new(),
            version: Version::default(),
        }
    }
}

/// Fails if a view cannot count files that are named at a refresh.
fn check_takes_files(view: &StoredView, options: &RefreshOptions) -> darner_engine::Result<()> {
    if options.rebuild {
        return Err(Error::invalid(
            "a rebuild reads all sources, and no files that are named: leave out one of the two",
        ));
    }
    let definition = &view.definition;
    if matches!(
        definition.facts_kind(),
        Some(FactsKind::Files | FactsKind::Pushed)
    ) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the view does not count files: view=`{}`; {}",
        view.name,
        definition
            .reason
            .as_deref()
            .unwrap_or("its facts are a table of the store")
    )))
}

/// The columns of rows that are pushed.
pub(crate) fn push_schema(view: &StoredView) -> darner_engine::Result<SchemaRef> {
    match &view.definition.facts {
        Some(facts) if facts.kind != FactsKind::Table => facts.relation.schema(),
        _ => Err(Error::invalid(format!(
            "the view takes no rows that are pushed: view=`{}`; {}",
            view.name,
            view.definition
                .reason
                .as_deref()
                .unwrap_or("its facts are a table of the store: put them there")
        ))),
    }
}

/// The names of a view's columns: those that were given, or none if the query's own will do.
fn column_names(plan: &LogicalPlan, given: &[String]) -> Result<Vec<String>> {
    let own = plan.schema().fields().iter();
    let own: Vec<String> = own.map(|field| field.name().clone()).collect();
    if !given.is_empty() && given.len() != own.len() {
        return fail(Error::invalid(format!(
            "a view has as many columns as its query: names=`{}` columns=`{}`",
            given.len(),
            own.len()
        )));
    }
    let names = if given.is_empty() { &own } else { given };
    for (place, name) in names.iter().enumerate() {
        if names[..place].contains(name) {
            return fail(Error::invalid(format!(
                "two columns of the view have one name: column=`{name}`; give one of them another with AS"
            )));
        }
    }
    Ok(names.to_vec())
}

/// Names the files that were read when an error came up: DataFusion does not say of which of them it is.
pub(super) fn in_files(error: DataFusionError, files: &[SeenFile]) -> DataFusionError {
    let place = match files {
        [] => return error,
        [file] => format!("file `{}`", file.path),
        [first, .., last] => format!(
            "one of {} files, `{}` to `{}`",
            files.len(),
            first.path,
            last.path
        ),
    };
    to_datafusion(from_datafusion(error).context(place))
}

fn is_conflict(error: &DataFusionError) -> bool {
    let DataFusionError::External(inner) = error else {
        return false;
    };
    let error = inner.downcast_ref::<Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::Conflict)
}

pub(super) fn fail<T>(error: Error) -> Result<T> {
    Err(to_datafusion(error))
}
