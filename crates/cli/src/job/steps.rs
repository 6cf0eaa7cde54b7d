//! Does a job, step by step, and leaves out what is as it was.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use darner_engine::{
    Error, ErrorKind, LoadMode, LoadOptions, MappedSource, Source, SourceOptions, load_table,
};
use darner_sql::{
    Expressions, OnDimensionChange, RefreshKind, RefreshOptions, Session, SessionOptions,
    relations_of,
};
use darner_store::Store;

use super::{
    directory,
    file::Job,
    memory::{DimensionMemory, Due, EnrichMemory, encode},
    order::{Step, in_order, normal, only},
    step::{
        DimensionStep, EnrichStep, FileChangeName, OneOrMore, QuestionStep, ViewChangeName,
        ViewStep,
    },
};
use crate::{
    args::Output,
    commands::{enrich, view},
    context::{Context, close_store},
    enrichment::{Done, Lineage, Plan, execute},
    error::{Failure, Result},
    files::{input_paths, known_types, print_rows},
    metrics::{float, metric, tell_report},
    print,
    storage::{can_query, client, expand, is_url, make_parent, open_all, shown},
};

/// Rows that are shown of those that a check has found.
const WRONG_ROWS_SHOWN: usize = 10;

/// Does a job, or those of its steps that are named.
pub(crate) fn run(context: &Context, job: &Job, names: &[String]) -> Result<()> {
    let steps = only(in_order(job)?, names)?;
    let context = &context.with_store(&job.path(&job.store));
    let store = Arc::new(context.open_store()?);
    let mut session = None;
    for (num_done, step) in steps.iter().enumerate() {
        let started = Instant::now();
        let done = match step {
            Step::Dimension(name, dimension) => load(context, job, &store, name, dimension),
            Step::Enrich(name, enrichment) => enrich(context, job, &store, name, enrichment),
            Step::View(name, view) => keep_view(context, job, &store, name, view),
            Step::Check(name, question) => check(context, job, &store, name, question),
            Step::Summary(name, summary) => {
                let session = match &mut session {
                    Some(session) => session,
                    none => none.insert(open_session(context, job, &store)?),
                };
                summarise(context, session, name, summary)
            }
        };
        done.map_err(|failure| in_step(context, &steps, num_done, failure))?;
        let seconds = started.elapsed().as_secs_f64();
        let (step, kind) = (step.name(), step.kind());
        metric!("darner_step_duration_seconds", seconds, step, kind);
    }
    drop(session);
    // The session that shared it is gone.
    if let Some(store) = Arc::into_inner(store) {
        close_store(store);
    }
    Ok(())
}

/// A failure with the step that it happened in, and what is done already.
fn in_step(context: &Context, steps: &[Step<'_>], num_done: usize, failure: Failure) -> Failure {
    let step = &steps[num_done];
    if num_done > 0 && !matches!(failure, Failure::ClosedPipe) {
        let done: Vec<&str> = steps[..num_done].iter().map(Step::name).collect();
        print::note(
            context,
            format_args!(
                "done before that, and not to be done again: {}",
                done.join(", ")
            ),
        );
    }
    match failure {
        Failure::Error(error) if error.kind() == ErrorKind::Cancelled => {
            Failure::Error(error.context(format!("{step} was stopped; run again to go on")))
        }
        Failure::Error(error) => Failure::Error(error.context(step)),
        Failure::Gate(message) => Failure::Gate(format!("{step}: {message}")),
        other @ Failure::ClosedPipe => other,
    }
}

/// How questions of a job are asked.
pub(super) fn session_options(context: &Context, job: &Job) -> SessionOptions {
    // Who wrote the job wrote the question; the answer goes to the terminal, not into files or tables.
    let mut options = SessionOptions::default();
    options.num_threads = context.num_threads;
    options.allow_files = true;
    options.write_remedy = "checks and summaries only read".into();
    options.cancel = Some(Arc::clone(context.cancel()));
    job.dir().clone_into(&mut options.directory);
    options.remote = Some(client());
    options
}

/// A place for the questions of a job.
fn open_session(context: &Context, job: &Job, store: &Arc<Store>) -> Result<Session> {
    let session = Session::with_options(session_options(context, job))?;
    session.register_store(Arc::clone(store));
    for (name, step) in &job.enrich.0 {
        let path = job.path(&step.to);
        // An output that SQL cannot read can be made all the same, and one that was left out may not be there; a query
        // that names it says so.
        if can_be_table(&path) {
            session.register_file(name, &path)?;
        }
    }
    Ok(session)
}

/// The rows of a dimension's files, with the columns of its table.
pub(super) fn open_dimension(
    step: &DimensionStep,
    paths: Vec<PathBuf>,
    options: &SourceOptions,
) -> darner_engine::Result<Box<dyn Source>> {
    let source = open_all(paths, options)?;
    let Some(columns) = &step.columns else {
        return Ok(source);
    };
    let columns = Expressions::new(source.schema(), None, Some(&columns.to_vec()))?;
    Ok(Box::new(MappedSource::new(source, Arc::new(columns))))
}

/// Whether SQL can read what an enrichment has written.
pub(super) fn can_be_table(path: &Path) -> bool {
    if !is_url(path) {
        return path.exists() && (path.is_dir() || Session::can_read(path));
    }
    let is_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let pattern = path.to_str().map(ToOwned::to_owned);
    let is_there = || pattern.is_some_and(|pattern| expand(&[pattern]).is_ok());
    (is_directory || Session::can_read(path)) && can_query(path) && is_there()
}

fn load(
    context: &Context,
    job: &Job,
    store: &Store,
    name: &str,
    step: &DimensionStep,
) -> Result<()> {
    let paths = input_paths(&job.patterns(&step.from)?)?;
    let memory = DimensionMemory::new(step, &paths)?;
    match memory.due(store, name) {
        Due::No(version) => {
            print::note(
                context,
                format_args!("{name}: unchanged since version {version}"),
            );
            skipped(name, true);
            return Ok(());
        }
        Due::Yes(why) => print::detail(context, format_args!("{name}: to be loaded: {why}")),
    }
    skipped(name, false);
    let mode = step.mode.into();
    let mut source_options = step.source_options()?;
    if mode == LoadMode::Upsert {
        source_options.known_types = known_types(store, name);
    }
    let mut source = open_dimension(step, paths, &source_options)?;
    let (control, bar) = context.control(name);
    let options = LoadOptions {
        key: Some(step.key.to_vec()),
        mode,
        on_duplicate: step.on_duplicate.into(),
        watermark: Some((DimensionMemory::name(name), encode(&memory)?)),
    };
    let report = load_table(store, name, &mut *source, &options, &control)?;
    let seconds = bar.finish();
    let rows = float(report.num_rows);
    metric!("darner_dimension_rows", rows, dimension = name);
    print::note(
        context,
        format_args!(
            "{name}: {} loaded as version {} in {seconds:.2} s",
            print::counted(report.num_rows, "row"),
            report.version
        ),
    );
    Ok(())
}

/// What an enrichment of a job is to do.
pub(super) fn plan(job: &Job, name: &str, step: &EnrichStep, inputs: Vec<PathBuf>) -> Result<Plan> {
    if !step.is_directory() && job.path(&step.to).is_dir() {
        return Err(Error::invalid(format!(
            "`to` is a directory; name a file in it, or end it with / to write a file for each input: to=`{}`",
            step.to.display()
        ))
        .into());
    }
    Ok(Plan {
        name: name.to_owned(),
        inputs,
        source_options: step.source_options()?,
        select: step.select.clone(),
        joins: step.joins()?,
        filter: step.filter.clone(),
        columns: step.columns.as_ref().map(OneOrMore::to_vec),
        as_of: None,
        encoding: step.encoding.into(),
        output: job.path(&step.to),
        sink_options: step.sink_options()?,
        unmatched: step.unmatched.as_ref().map(|path| job.path(path)),
        report: step.report.as_ref().map(|path| job.path(path)),
        gates: step.gates(),
        lineage: Lineage {
            job: Some((job.file.clone(), name.to_owned())),
        },
        is_profiled: false,
    })
}

fn enrich(
    context: &Context,
    job: &Job,
    store: &Arc<Store>,
    name: &str,
    step: &EnrichStep,
) -> Result<()> {
    for output in step.outputs() {
        make_parent(&job.path(output))?;
    }
    if step.is_directory() {
        return directory::run(context, job, store, name, step);
    }
    let plan = plan(job, name, step, input_paths(&job.patterns(&step.from)?)?)?;
    let memory = EnrichMemory::new(store, step, &plan.joins, &plan.inputs)?;
    let due = memory.due(store, job, name, step, &plan.joins);
    skipped(name, matches!(due, Due::No(_)));
    if let Due::Yes(why) = &due {
        print::detail(context, format_args!("{name}: to be made: {why}"));
    }
    if let Due::No(report) = due {
        tell_report(name, &report);
        print::note(
            context,
            format_args!(
                "{name}: unchanged, {} in {}",
                print::counted(report.rows_written, "row"),
                shown(&plan.output)
            ),
        );
        for line in report.lines() {
            print::note(context, line);
        }
        return Ok(());
    }
    let done: Done = execute(context, store, &plan)?;
    match enrich::say(context, &plan, &done) {
        // That nobody reads the report any more is no reason to leave the rest undone.
        Ok(()) | Err(Failure::ClosedPipe) => {}
        Err(failure) => return Err(failure),
    }
    tell_report(name, &done.report);
    Ok(memory.remember(store, job, name, step, done.report)?)
}

/// Makes a view, or refreshes it.
fn keep_view(
    context: &Context,
    job: &Job,
    store: &Arc<Store>,
    name: &str,
    step: &ViewStep,
) -> Result<()> {
    let query = job.view_query(step, |_| false)?;
    let session = context.session(store)?;
    let mut report = session.ensure_view(name, &query)?;
    if report.kind == RefreshKind::Existed {
        let mut options = RefreshOptions::default();
        options.on_dimension_change = match step.on_dimension_change {
            ViewChangeName::Keep => OnDimensionChange::Keep,
            ViewChangeName::Rebuild => OnDimensionChange::Rebuild,
        };
        report = match session.refresh_view(name, &options) {
            // A file that was counted is another now, or gone.
            Err(error)
                if error.kind() == ErrorKind::Data
                    && (step.on_file_change == FileChangeName::Rebuild
                        || reads_outputs(job, step)?) =>
            {
                options.rebuild = true;
                session.refresh_view(name, &options)?
            }
            refreshed => refreshed?,
        };
    }
    view::tell(context, &report)
}

/// Whether a view counts files that the job writes: named as they are, because a pattern may find others, too.
fn reads_outputs(job: &Job, step: &ViewStep) -> Result<bool> {
    let names = relations_of(&step.query)?;
    Ok(job.enrich.0.iter().any(|(output, enrichment)| {
        let to = normal(&job.path(&enrichment.to));
        let reads_it = |name: &String| {
            let path = normal(&job.path(Path::new(name)));
            name == output || path == to || enrichment.is_directory() && path.starts_with(&to)
        };
        names.iter().any(reads_it)
    }))
}

/// Looks for rows that must not be there, and shows the first of them.
fn check(
    context: &Context,
    job: &Job,
    store: &Arc<Store>,
    name: &str,
    step: &QuestionStep,
) -> Result<()> {
    // One of its own: steps that come later change what there is.
    let session = open_session(context, job, store)?;
    let rows = session.query(&step.query)?;
    let schema = Arc::clone(rows.schema());
    let (mut shown, mut num_shown, mut num_rows) = (Vec::new(), 0, 0);
    for batch in rows {
        let batch = batch?;
        let num_more = batch.num_rows().min(WRONG_ROWS_SHOWN - num_shown);
        if num_more > 0 {
            shown.push(batch.slice(0, num_more));
        }
        num_shown += num_more;
        num_rows += batch.num_rows() as u64;
    }
    metric!("darner_check_rows", float(num_rows), step = name);
    let title = step.title.as_deref();
    if num_rows == 0 {
        print::note(
            context,
            format_args!("{name}: {}", title.unwrap_or("checked")),
        );
        return Ok(());
    }
    let shown = shown.into_iter().map(Ok);
    match print_rows(context, &schema, shown, &Output::default()) {
        // That nobody reads them does not make it true.
        Ok(()) | Err(Failure::ClosedPipe) => {}
        Err(failure) => return Err(failure),
    }
    let title = title.map_or_else(String::new, |title| format!("not true that {title}: "));
    let rows = print::counted(num_rows, "row");
    let first = if num_rows > WRONG_ROWS_SHOWN as u64 {
        format!("the first {WRONG_ROWS_SHOWN} of {rows} are shown")
    } else {
        format!("{rows} found")
    };
    Err(Failure::Gate(format!("{title}{first}, there must be none")))
}

fn summarise(context: &Context, session: &Session, name: &str, step: &QuestionStep) -> Result<()> {
    print::note(
        context,
        format_args!("\n{}", step.title.as_deref().unwrap_or(name)),
    );
    let rows = session.query(&step.query)?;
    let schema = Arc::clone(rows.schema());
    let rows = rows.map(|rows| rows.map_err(Failure::from));
    print_rows(context, &schema, rows, &Output::default())
}

pub(super) fn skipped(step: &str, is_skipped: bool) {
    let value = f64::from(u8::from(is_skipped));
    metric!("darner_step_skipped", value, step);
}
