//! Does a job, step by step, and leaves out what is as it was.
//!
//! What a step was made from is remembered in the store, as a watermark `run/KIND/NAME`: the step as the job file has
//! it, the fingerprints of its files and the versions of its tables. A step whose memory still holds is not done
//! again. A dimension is remembered by the commit that loads it. An output is remembered after it was written, so that
//! a killed run does that step once more, never not at all.

use std::sync::Arc;

use darner_engine::{Error, JoinSpec, LoadMode, LoadOptions, SinkOptions, load_table, open_all};
use darner_sql::{Session, SessionOptions};
use darner_store::Store;
use indicatif::HumanCount;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    file::{DimensionStep, EnrichStep, Job, SummaryStep},
    fingerprint::Fingerprint,
};
use crate::{
    args::Output,
    commands::enrich::{self, Done, Plan},
    context::{Context, close_store},
    error::{Failure, Result},
    files::{input_paths, known_types, print_rows},
    print,
    report::Report,
};

/// What a dimension was loaded from.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct DimensionMemory {
    step: serde_json::Value,
    inputs: Vec<Fingerprint>,
}

/// What an output was made from, and what was said about it.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct EnrichMemory {
    step: serde_json::Value,
    inputs: Vec<Fingerprint>,
    /// The versions of the joined tables, in order.
    versions: Vec<u64>,
    outputs: Vec<Fingerprint>,
    report: Report,
}

/// Does a job.
pub(crate) fn run(context: &Context, job: &Job) -> Result<()> {
    let context = &context.with_store(&job.path(&job.store));
    let store = Arc::new(context.open_store()?);
    for (name, step) in &job.dimension.0 {
        load(context, job, &store, name, step)
            .map_err(|failure| in_step("dimension", name, failure))?;
    }
    for (name, step) in &job.enrich.0 {
        enrich(context, job, &store, name, step)
            .map_err(|failure| in_step("enrich", name, failure))?;
    }
    if !job.summary.0.is_empty() {
        // Who wrote the job wrote the question; the answer goes to the terminal, not into files or tables.
        let mut options = SessionOptions::default();
        options.num_threads = context.num_threads;
        options.allow_files = true;
        options.write_remedy = "a summary only reads".into();
        options.cancel = Some(Arc::clone(context.cancel()));
        let session = Session::with_options(options)?;
        session.register_store(Arc::clone(&store));
        for (name, step) in &job.enrich.0 {
            // An output that SQL cannot read can be made all the same; a query that names it says so.
            if Session::can_read(&step.to) {
                session.register_file(name, &job.path(&step.to))?;
            }
        }
        for (name, step) in &job.summary.0 {
            summarise(context, &session, name, step)
                .map_err(|failure| in_step("summary", name, failure))?;
        }
    }
    // The session that shared it is gone.
    if let Some(store) = Arc::into_inner(store) {
        close_store(store);
    }
    Ok(())
}

fn in_step(kind: &str, name: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Error(error) => Failure::Error(error.context(format!("{kind} {name}"))),
        other => other,
    }
}

fn load(
    context: &Context,
    job: &Job,
    store: &Store,
    name: &str,
    step: &DimensionStep,
) -> Result<()> {
    let paths = input_paths(&job.patterns(&step.from)?)?;
    let memory_name = format!("run/dimension/{name}");
    let memory = DimensionMemory {
        step: as_json(step)?,
        inputs: Fingerprint::of_all(&paths)?,
    };
    // Remembered by the commit that loaded the table: any later change of it is noticed.
    let changed = store.table(name).ok().map(|table| table.version());
    if changed.is_some()
        && changed
            == store
                .watermark(&memory_name)
                .map(|watermark| watermark.version)
        && recall(store, &memory_name).as_ref() == Some(&memory)
    {
        let version = changed.unwrap_or_default();
        print::note(
            context,
            format_args!("{name}: unchanged since version {version}"),
        );
        return Ok(());
    }
    let mode = step.mode.into();
    let mut source_options = step.source_options()?;
    if mode == LoadMode::Upsert {
        source_options.known_types = known_types(store, name);
    }
    let mut source = open_all(paths, &source_options)?;
    let (control, bar) = context.control(name);
    let options = LoadOptions {
        key: Some(step.key.to_vec()),
        mode,
        on_duplicate: step.on_duplicate.into(),
        watermark: Some((memory_name, encode(&memory)?)),
    };
    let report = load_table(store, name, &mut *source, &options, &control)?;
    let seconds = bar.finish();
    print::note(
        context,
        format_args!(
            "{name}: {} rows loaded as version {} in {seconds:.2} s",
            HumanCount(report.num_rows),
            report.version
        ),
    );
    Ok(())
}

fn enrich(
    context: &Context,
    job: &Job,
    store: &Store,
    name: &str,
    step: &EnrichStep,
) -> Result<()> {
    let joins: Vec<JoinSpec> = step
        .join
        .to_vec()
        .iter()
        .map(|text| JoinSpec::parse(text))
        .collect::<Result<_, _>>()?;
    let versions = joins
        .iter()
        .map(|join| Ok(store.table(&join.table)?.version().number))
        .collect::<Result<Vec<u64>>>()?;
    let plan = Plan {
        name: name.to_owned(),
        inputs: input_paths(&job.patterns(&step.from)?)?,
        source_options: step.source_options()?,
        select: step.select.clone(),
        joins,
        as_of: None,
        encoding: step.encoding.into(),
        output: job.path(&step.to),
        sink_options: SinkOptions::default(),
        unmatched: step.unmatched.as_ref().map(|path| job.path(path)),
        report: None,
        max_miss_rate: step.max_miss_rate,
        is_profiled: false,
    };
    for output in std::iter::once(&plan.output).chain(&plan.unmatched) {
        make_parent(output)?;
    }
    let (step, inputs) = (as_json(step)?, Fingerprint::of_all(&plan.inputs)?);
    let memory_name = format!("run/enrich/{name}");
    let outputs = || {
        std::iter::once(&plan.output)
            .chain(&plan.unmatched)
            .map(|path| Fingerprint::of(path))
            .collect::<Result<Vec<_>, Error>>()
    };
    if let Some(memory) = recall::<EnrichMemory>(store, &memory_name)
        && memory.step == step
        && memory.inputs == inputs
        && memory.versions == versions
        && outputs().is_ok_and(|outputs| outputs == memory.outputs)
    {
        print::note(
            context,
            format_args!(
                "{name}: unchanged, {} rows in {}",
                HumanCount(memory.report.rows_written),
                plan.output.display()
            ),
        );
        for line in memory.report.lines() {
            print::note(context, line);
        }
        return Ok(());
    }
    let done: Done = enrich::execute(context, store, &plan)?;
    match enrich::say(context, &plan, &done) {
        // That nobody reads the report any more is no reason to leave the rest undone.
        Ok(()) | Err(Failure::ClosedPipe) => {}
        Err(failure) => return Err(failure),
    }
    let memory = EnrichMemory {
        step,
        inputs,
        versions,
        outputs: outputs()?,
        report: done.report,
    };
    remember(store, &memory_name, &memory)
}

fn summarise(context: &Context, session: &Session, name: &str, step: &SummaryStep) -> Result<()> {
    print::note(
        context,
        format_args!("\n{}", step.title.as_deref().unwrap_or(name)),
    );
    let rows = session.query(&step.query)?;
    let schema = Arc::clone(rows.schema());
    let rows = rows.map(|rows| rows.map_err(Failure::from));
    print_rows(context, &schema, rows, &Output::default())
}

/// Makes the directory of an output, so that a job runs on a fresh checkout.
fn make_parent(path: &std::path::Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| {
            Error::io(
                format!("cannot make directory `{}`", parent.display()),
                error,
            )
        })?;
    }
    Ok(())
}

fn as_json(step: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(step).map_err(|error| {
        Error::internal("step cannot be encoded")
            .with_source(error)
            .into()
    })
}

/// What was remembered; nothing if it was written by another version of this program.
fn recall<T: DeserializeOwned>(store: &Store, name: &str) -> Option<T> {
    serde_json::from_slice(&store.watermark(name)?.value).ok()
}

fn encode(memory: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(memory).map_err(|error| {
        Error::internal("memory cannot be encoded")
            .with_source(error)
            .into()
    })
}

fn remember(store: &Store, name: &str, memory: &impl Serialize) -> Result<()> {
    let mut transaction = store.begin()?;
    transaction.set_watermark(name, &encode(memory)?)?;
    transaction.commit()?;
    Ok(())
}
