//! Says what a job would do, and whether it can, without doing any of it.
//!
//! What a step would make is known to the steps after it: a table that is not loaded yet, a file that is not written
//! yet. Joins are planned on dimensions that have the columns and no rows.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_schema::{Schema, SchemaRef};
use darner_engine::{BatchMap, DimensionBuilder, Error, LoadMode, Source, is_view};
use darner_sql::{Expressions, Session, relations_of};
use darner_store::{Store, TableSnapshot, TableSpec};

use super::{
    checked::{Checked, Column, Join, Size, columns},
    directory::{self, split},
    file::Job,
    memory::{DimensionMemory, Due, EnrichMemory},
    order::{Step, in_order, only, reads},
    step::{DimensionStep, EnrichStep, OneOrMore, QuestionStep, ViewStep},
    steps::{can_be_table, open_dimension, plan, session_options},
};
use crate::{
    context::Context,
    enrichment::{plan_joins, view_key},
    error::{Failure, Result},
    files::{check_outputs, input_paths, known_types},
    memory::dimension_bytes,
    names::hint,
    print,
    report::{kind, on},
    storage::{check_output, open_all, shown},
};

/// Bytes of an input that are decoded to estimate what it takes in memory.
const SAMPLE_BYTES: u64 = 8 << 20;

/// A table as it will be when the steps before are done.
struct Table {
    schema: SchemaRef,
    /// Of a view, the joins name it.
    key: Vec<String>,
    is_view: bool,
    size: Option<Size>,
}

/// What is known of the job so far.
struct Checker<'c> {
    context: &'c Context,
    job: &'c Job,
    store: Option<Arc<Store>>,
    tables: HashMap<String, Table>,
    /// Outputs that will be there: their columns, and whether they are about to change.
    outputs: Vec<(PathBuf, SchemaRef)>,
}

/// What a step reads.
struct Inputs {
    paths: Vec<PathBuf>,
    /// `None` if the files are yet to be written by a step before.
    source: Option<Box<dyn Source>>,
    schema: SchemaRef,
}

/// Prints what would be done.
///
/// # Errors
/// The first problem that was found, after all of them were printed.
pub(crate) fn check(context: &Context, job: &Job, names: &[String]) -> Result<()> {
    let steps = only(in_order(job)?, names)?;
    let context = &context.with_store(&job.path(&job.store));
    let store = if context.has_store() {
        Some(Arc::new(context.read_store()?))
    } else {
        None
    };
    let mut checker = Checker {
        context,
        job,
        store,
        tables: HashMap::new(),
        outputs: Vec::new(),
    };
    let mut all = Vec::with_capacity(steps.len());
    let mut failures = Vec::new();
    for step in &steps {
        context.check_cancel()?;
        let mut checked = Checked {
            kind: step.kind(),
            name: step.name().to_owned(),
            ..Checked::default()
        };
        let result = match step {
            Step::Dimension(name, step) => checker.dimension(name, step, &mut checked),
            Step::Enrich(name, step) => checker.enrich(name, step, &mut checked),
            Step::View(name, step) => checker.view(name, step, &mut checked),
            Step::Check(_, step) => checker.question(step, "check", &mut checked),
            Step::Summary(_, step) => checker.question(step, "ask", &mut checked),
        };
        if let Err(failure) = result {
            let error = match failure {
                Failure::Error(error) => error.context(step),
                other => return Err(other),
            };
            checked.problem = Some(print::with_causes(&error));
            failures.push(error);
        }
        all.push(checked);
    }
    if context.json {
        let text = serde_json::to_string_pretty(&all)
            .map_err(|error| Error::internal("steps cannot be encoded").with_source(error))?;
        print::result(text)?;
    } else {
        let width = all.iter().map(|step| step.name.chars().count()).max();
        for checked in &all {
            for line in checked.lines(width.unwrap_or(0)) {
                print::result(line)?;
            }
        }
    }
    let num_failures = failures.len();
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return Ok(());
    };
    if num_failures == 1 {
        return Err(first.into());
    }
    let kind = first.kind();
    for error in std::iter::once(first).chain(failures) {
        print::problem(&error);
    }
    Err(Error::new(
        kind,
        format!("{}: {num_failures} problems", job.file.display()),
    )
    .into())
}

impl Checker<'_> {
    fn dimension(&mut self, name: &str, step: &DimensionStep, checked: &mut Checked) -> Result<()> {
        let mut options = step.source_options()?;
        let mode: LoadMode = step.mode.into();
        if let (LoadMode::Upsert, Some(store)) = (mode, &self.store) {
            options.known_types = known_types(store, name);
        }
        "load".clone_into(&mut checked.why);
        checked.action = "load";
        let mut inputs = self.inputs(&step.from, checked, |paths| {
            open_dimension(step, paths, &options)
        })?;
        if let (None, Some(columns)) = (&inputs.source, &step.columns) {
            let columns = Expressions::new(&inputs.schema, None, Some(&columns.to_vec()))?;
            inputs.schema = Arc::clone(columns.schema());
        }
        let key = step.key.to_vec();
        let spec = TableSpec::new(&with_key(&inputs.schema, &key), &key)?;
        let size = match &mut inputs.source {
            Some(source) => Some(estimate(&mut **source)?),
            None => None,
        };
        let stored = self.stored(name);
        let due = match (&self.store, &inputs.source) {
            (_, None) => Due::Yes("its files are made by a step before".to_owned()),
            (None, _) => Due::Yes("the table is not there yet".to_owned()),
            (Some(store), _) => DimensionMemory::new(step, &inputs.paths)?.due(store, name),
        };
        let table = match (due, &stored) {
            (Due::No(version), Some(stored)) => {
                checked.action = "skip";
                checked.why = format!("unchanged since version {version}");
                Table::of(stored)
            }
            (due, stored) => {
                if let Due::Yes(why) = due {
                    checked.why = why;
                }
                if let (LoadMode::Upsert, Some(stored)) = (mode, stored) {
                    check_upsert(stored, &inputs.schema, &key)?;
                }
                Table {
                    schema: Arc::clone(spec.schema()),
                    key,
                    is_view: false,
                    size,
                }
            }
        };
        checked.columns = columns(&table.schema, &table.key);
        checked.set_size(table.size);
        self.tables.insert(name.to_owned(), table);
        Ok(())
    }

    fn enrich(&mut self, name: &str, step: &EnrichStep, checked: &mut Checked) -> Result<()> {
        checked.action = "enrich";
        let output = self.job.path(&step.to);
        checked.output = Some(shown(&output));
        let options = step.source_options()?;
        let inputs = self.inputs(&step.from, checked, |paths| open_all(paths, &options))?;
        let joins = step.joins()?;
        let mut planned = Vec::with_capacity(joins.len());
        for spec in &joins {
            let table = self.table(&spec.table)?;
            let key = if table.is_view {
                view_key(spec, &table.schema)?
            } else {
                table.key.clone()
            };
            let dimension =
                DimensionBuilder::new(&spec.table, Arc::clone(&table.schema), &key)?.finish()?;
            planned.push((spec.clone(), Arc::new(dimension)));
        }
        let plan = plan(self.job, name, step, inputs.paths.clone())?;
        let enrichment = plan_joins(&plan, &inputs.schema, planned)?;
        for plan in enrichment.join().plan() {
            let table = self.table(&plan.spec.table)?;
            let size = table.size;
            let memory_bytes = size.map(|size| {
                dimension_bytes(
                    &table.schema,
                    &table.key,
                    (size.rows, size.bytes),
                    plan.spec,
                )
            });
            checked.is_estimate |= size.is_some_and(|size| size.is_estimate);
            checked.joins.push(Join {
                name: plan.spec.alias().to_owned(),
                table: plan.spec.table.clone(),
                kind: kind(plan.spec),
                on: on(plan.spec),
                columns: plan
                    .columns
                    .iter()
                    .map(|c| c.field.name().clone())
                    .collect(),
                memory_bytes,
            });
        }
        let sizes: Option<Vec<u64>> = checked.joins.iter().map(|join| join.memory_bytes).collect();
        checked.memory_bytes = sizes.map(|sizes| sizes.iter().sum());
        let schema = Arc::clone(enrichment.output_schema());
        checked.columns = columns(&schema, &[]);
        self.outputs.push((output, Arc::clone(&schema)));
        let outputs: Vec<PathBuf> = step.outputs().map(|path| self.job.path(path)).collect();
        let paths: Vec<&Path> = outputs.iter().map(PathBuf::as_path).collect();
        check_outputs(&self.context.store_dir, &inputs.paths, &paths)?;
        let options = step.sink_options()?;
        if step.is_directory() {
            let (schema, ..) = split(step).columns(&schema)?;
            check_output(Path::new("name.parquet"), &schema, &options)?;
            directory::inputs(&self.job.patterns(&step.from)?).or_else(|failure| {
                // They are yet to be written.
                inputs.source.is_none().then(Vec::new).ok_or(failure)
            })?;
        } else {
            check_output(paths[0], &schema, &options)?;
            if let (Some(path), Some(schema)) = (&plan.unmatched, enrichment.unmatched_schema()) {
                check_output(path, schema, &options)?;
            }
        }
        let changed = joins.iter().find(|join| {
            let table = self.tables.get(&join.table);
            table.is_some_and(|table| table.is_new(self.stored(&join.table).as_ref()))
        });
        let due = match (&self.store, &inputs.source, changed) {
            (_, None, _) => Due::Yes("its files are made by a step before".to_owned()),
            (_, _, Some(join)) => Due::Yes(format!("{} is to be loaded before", join.table)),
            (None, ..) => Due::Yes("it was not made by this job yet".to_owned()),
            (Some(store), ..) if step.is_directory() => {
                let todo = directory::todo(self.job, store, step)?;
                match todo.due.first() {
                    None => Due::No(todo.report()),
                    Some((_, why)) => Due::Yes(format!(
                        "{} of {} files are to be made; the first: {why}",
                        todo.due.len(),
                        todo.inputs.len()
                    )),
                }
            }
            (Some(store), ..) => EnrichMemory::new(store, step, &joins, &inputs.paths)?
                .due(store, self.job, name, step, &joins),
        };
        match due {
            Due::No(report) => {
                checked.action = "skip";
                let rows = print::counted(report.rows_written, "row");
                checked.why = format!("unchanged, {rows}");
            }
            Due::Yes(why) => checked.why = why,
        }
        Ok(())
    }

    /// Plans the question, on tables and files that may have no rows yet.
    fn question(
        &mut self,
        step: &QuestionStep,
        action: &'static str,
        checked: &mut Checked,
    ) -> Result<()> {
        checked.action = action;
        let session = self.session_for(&step.query, |path| self.job.path(path))?;
        session.plan(&step.query)?;
        Ok(())
    }

    /// Plans the query of a view in the same way.
    fn view(&mut self, name: &str, step: &ViewStep, checked: &mut Checked) -> Result<()> {
        let is_planned = |output: &str| {
            let steps = self.job.enrich.0.iter();
            let mut steps = steps.filter(|(name, _)| name == output);
            steps.any(|(_, step)| {
                let path = self.job.path(&step.to);
                self.outputs.iter().any(|(output, _)| *output == path)
            })
        };
        let query = self.job.view_query(step, is_planned)?;
        let session = self.session_for(&query, Path::to_path_buf)?;
        let plan = session.plan(&query)?;
        let schema = plan.schema();
        checked.columns = schema
            .fields()
            .iter()
            .map(|field| Column {
                name: field.name().clone(),
                data_type: field.data_type().to_string(),
                key: false,
            })
            .collect();
        let is_there = session.view_names().iter().any(|view| view == name);
        (checked.action, checked.why) = if is_there {
            ("refresh", "with what is new in its sources".to_owned())
        } else {
            ("make", "there is no such view yet".to_owned())
        };
        self.tables.insert(
            name.to_owned(),
            Table {
                schema,
                key: Vec::new(),
                is_view: true,
                size: self.stored(name).as_ref().map(Size::of),
            },
        );
        Ok(())
    }

    /// A place for questions about what the steps before leave.
    fn session(&self) -> Result<Session> {
        let session = Session::with_options(session_options(self.context, self.job))?;
        if let Some(store) = &self.store {
            session.register_store(Arc::clone(store));
        }
        let stored = self
            .store
            .as_ref()
            .map_or_else(Vec::new, |store| store.table_names());
        for (name, table) in &self.tables {
            if !stored.contains(name) {
                session.register_empty(name, &table.schema)?;
            }
        }
        for (name, step) in &self.job.enrich.0 {
            let path = self.job.path(&step.to);
            let planned = self.outputs.iter().find(|(output, _)| *output == path);
            match planned {
                Some((_, schema)) => session.register_empty(name, schema)?,
                None if can_be_table(&path) => {
                    session.register_file(name, &path)?;
                }
                None => {}
            }
        }
        Ok(session)
    }

    /// Such a place for a query that may name files, whose paths `path_of` gives, and which are yet to be written.
    fn session_for(&self, query: &str, path_of: impl Fn(&Path) -> PathBuf) -> Result<Session> {
        let session = self.session()?;
        // What is no query is told of when it is planned.
        for name in relations_of(query).unwrap_or_default() {
            let path = path_of(Path::new(&name));
            let mut outputs = self.outputs.iter();
            let planned = outputs.find(|(output, _)| reads(&path, output));
            if let (Some((_, schema)), None) = (planned, session.table_schema(&name)) {
                session.register_empty(&name, schema)?;
            }
        }
        Ok(session)
    }

    /// The files of a step, or the columns that the step before it will write into them.
    fn inputs(
        &self,
        from: &OneOrMore,
        checked: &mut Checked,
        open: impl FnOnce(Vec<PathBuf>) -> darner_engine::Result<Box<dyn Source>>,
    ) -> Result<Inputs> {
        let patterns = self.job.patterns(from)?;
        let paths = match input_paths(&patterns) {
            Ok(paths) => paths,
            Err(failure) => {
                let mut outputs = self.outputs.iter();
                let planned = outputs.find(|(output, _)| {
                    patterns
                        .iter()
                        .any(|pattern| reads(Path::new(pattern), output))
                });
                let Some((output, schema)) = planned else {
                    return Err(failure);
                };
                checked.inputs = vec![shown(output)];
                return Ok(Inputs {
                    paths: Vec::new(),
                    source: None,
                    schema: Arc::clone(schema),
                });
            }
        };
        checked.inputs = paths.iter().map(|path| shown(path)).collect();
        let source = open(paths.clone())?;
        checked.input_bytes = source.num_bytes();
        Ok(Inputs {
            schema: Arc::clone(source.schema()),
            paths,
            source: Some(source),
        })
    }

    fn stored(&self, name: &str) -> Option<TableSnapshot> {
        self.store.as_ref()?.table(name).ok()
    }

    /// A table as the steps before leave it.
    fn table(&mut self, name: &str) -> Result<&Table> {
        if !self.tables.contains_key(name) {
            let Some(stored) = self.stored(name) else {
                let stored = self
                    .store
                    .as_ref()
                    .map_or_else(Vec::new, |store| store.table_names());
                let declared = self.job.dimension.0.iter().map(|(name, _)| name);
                if declared.clone().any(|declared| declared == name) {
                    return Err(Error::invalid(format!(
                        "cannot be checked before the dimension: dimension=`{name}`"
                    ))
                    .into());
                }
                let known = declared.chain(&stored).map(String::as_str);
                return Err(Error::not_found(format!(
                    "no such table, in the store or in the job: table=`{name}`{}",
                    hint(name, known)
                ))
                .into());
            };
            let mut table = Table::of(&stored);
            if self
                .store
                .as_ref()
                .is_some_and(|store| is_view(store, name))
            {
                // What is stored of a view are no rows.
                let schema = self.session()?.table_schema(name);
                table.schema = schema.unwrap_or(table.schema);
                table.key.clear();
                table.is_view = true;
            }
            self.tables.insert(name.to_owned(), table);
        }
        let table = self.tables.get(name);
        Ok(table.ok_or_else(|| Error::internal("a table that was just found is gone"))?)
    }
}

impl Table {
    fn of(stored: &TableSnapshot) -> Self {
        Self {
            schema: Arc::clone(stored.schema()),
            key: stored.key_names().into_iter().map(str::to_owned).collect(),
            is_view: false,
            size: Some(Size::of(stored)),
        }
    }

    /// Whether it is another than the stored one.
    fn is_new(&self, stored: Option<&TableSnapshot>) -> bool {
        stored.is_none() || self.size.is_none_or(|size| size.is_estimate)
    }
}

impl Size {
    fn of(stored: &TableSnapshot) -> Self {
        Self {
            rows: stored.num_stored_rows(),
            bytes: stored.num_bytes(),
            is_estimate: false,
        }
    }
}

/// The columns as a table has them whose key is never null.
fn with_key(schema: &Schema, key: &[String]) -> Schema {
    let fields = schema.fields().iter();
    let fields = fields.map(|field| {
        let is_nullable = !key.contains(field.name());
        field.as_ref().clone().with_nullable(is_nullable)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// What files must be like to be added to a table.
fn check_upsert(stored: &TableSnapshot, schema: &Schema, key: &[String]) -> Result<()> {
    let refuse = |what: String| Err(Error::invalid(what).into());
    if stored.key_names() != key {
        return refuse(format!(
            "the table has another key: got=`{}` expected=`{}`",
            key.join(", "),
            stored.key_names().join(", ")
        ));
    }
    for field in schema.fields() {
        let Ok(known) = stored.schema().field_with_name(field.name()) else {
            return refuse(format!(
                "a column is not in the table: column=`{}`; mode = \"replace\" loads the whole table anew",
                field.name()
            ));
        };
        if known.data_type() != field.data_type() {
            return refuse(format!(
                "a column has another type than in the table: column=`{}` got=`{}` expected=`{}`",
                field.name(),
                field.data_type(),
                known.data_type()
            ));
        }
    }
    for field in stored.schema().fields() {
        if schema.field_with_name(field.name()).is_err() {
            return refuse(format!(
                "a column of the table is missing: column=`{}`",
                field.name()
            ));
        }
    }
    Ok(())
}

/// Rows and bytes in memory of an input, from its first pieces.
fn estimate(source: &mut dyn Source) -> Result<Size> {
    let total = source.num_bytes();
    let (mut rows, mut bytes, mut stored) = (0_u64, 0_u64, 0_u64);
    let mut is_whole = true;
    while let Some(piece) = source.next_piece()? {
        stored += piece.num_bytes;
        for batch in piece.decode()? {
            rows += batch.num_rows() as u64;
            for column in batch.columns() {
                // What the rows take, not the file that they are mapped from.
                let size = column.to_data().get_slice_memory_size();
                bytes += size.unwrap_or(0) as u64;
            }
        }
        if stored >= SAMPLE_BYTES {
            is_whole = total.is_some_and(|total| stored >= total);
            break;
        }
    }
    let factor = match total {
        Some(total) if !is_whole && stored > 0 => (total, stored),
        _ => (1, 1),
    };
    let scale = |value: u64| {
        let scaled = u128::from(value) * u128::from(factor.0) / u128::from(factor.1);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    Ok(Size {
        rows: scale(rows),
        bytes: scale(bytes),
        is_estimate: true,
    })
}
