//! Does an enrichment.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use darner_engine::{
    BatchMap, Dimension, EnrichReport, Enrichment, Error, ErrorKind, JoinSpec, Sink, SinkOptions,
    Sinks, Source, StarJoin, Written, is_view, load_dimension,
};
use darner_sql::Expressions;
use darner_store::{Store, TableSnapshot};

use super::{Done, Plan, lineage::DimensionVersion, views::load_view};
use crate::{
    context::{Context, find_table, refuse_past},
    error::{Failure, Result, stdout_failure},
    files::check_outputs,
    fingerprint::Fingerprint,
    memory::payload,
    print,
    report::{Report, Times},
    storage::{create, open_all, shown, write_file},
};

/// The dimensions of an enrichment, read and indexed; they serve any number of inputs.
pub(crate) struct Dimensions {
    joins: Vec<(JoinSpec, Arc<Dimension>)>,
    pub(crate) versions: Vec<DimensionVersion>,
    /// How long it took to read and index each of them.
    pub(crate) load_times: Vec<Duration>,
}

/// What a run reads and writes.
pub(crate) struct Files {
    pub(crate) inputs: Vec<PathBuf>,
    /// For messages.
    pub(crate) output: String,
    pub(crate) unmatched: Option<PathBuf>,
}

impl Dimensions {
    /// Reads the dimensions of a plan, and looks at the gates that concern them.
    pub(crate) fn load(context: &Context, store: &Arc<Store>, plan: &Plan) -> Result<Self> {
        let mut dimensions = Self {
            joins: Vec::with_capacity(plan.joins.len()),
            versions: Vec::new(),
            load_times: Vec::new(),
        };
        let mut tables = Vec::with_capacity(plan.joins.len());
        for spec in &plan.joins {
            if plan.as_of.is_some() && is_view(store, &spec.table) {
                return Err(refuse_past(&spec.table));
            }
            tables.push(find_table(store, &spec.table, plan.as_of)?);
        }
        let joins: Vec<(&JoinSpec, &TableSnapshot)> = plan.joins.iter().zip(&tables).collect();
        context.check_memory(&joins)?;
        for (place, (spec, table)) in plan.joins.iter().zip(&tables).enumerate() {
            context.check_cancel()?;
            let started = Instant::now();
            let dimension = if is_view(store, &spec.table) {
                load_view(context, store, spec)?
            } else {
                load_dimension(table, payload(spec).as_deref())?
            };
            plan.gates
                .check_table(place, spec, table, dimension.num_rows())?;
            dimensions.load_times.push(started.elapsed());
            let version = table.version();
            dimensions.versions.push(DimensionVersion {
                table: spec.table.clone(),
                version: version.number,
                committed: print::time(version.time_us),
            });
            dimensions.joins.push((spec.clone(), Arc::new(dimension)));
        }
        Ok(dimensions)
    }
}

/// Reads the dimensions, then the facts, and writes the output. Without success there is no output.
pub(crate) fn execute(context: &Context, store: &Arc<Store>, plan: &Plan) -> Result<Done> {
    let outputs = std::iter::once(&plan.output)
        .chain(&plan.unmatched)
        .chain(&plan.report);
    let outputs: Vec<&Path> = outputs.map(PathBuf::as_path).collect();
    check_outputs(&context.store_dir, &plan.inputs, &outputs)?;
    let started = Instant::now();
    // What cannot be read is told before the dimensions are.
    let source = open_all(plan.inputs.clone(), &plan.source_options)?;
    let dimensions = Dimensions::load(context, store, plan)?;
    let files = Files {
        inputs: plan.inputs.clone(),
        output: shown(&plan.output),
        unmatched: plan.unmatched.clone(),
    };
    let mut done = execute_on(
        context,
        plan,
        &dimensions,
        source,
        &files,
        |schema, metadata| {
            let mut options = plan.sink_options.clone();
            options.metadata = metadata;
            Ok(create(&plan.output, schema, &options)?)
        },
    )?;
    done.seconds = started.elapsed().as_secs_f64();
    Ok(done)
}

/// Enriches one source into the sink that `open` gives for the columns and the lineage of the output.
pub(crate) fn execute_on(
    context: &Context,
    plan: &Plan,
    dimensions: &Dimensions,
    mut source: Box<dyn Source>,
    files: &Files,
    open: impl FnOnce(&arrow_schema::SchemaRef, Vec<(String, String)>) -> Result<Box<dyn Sink>>,
) -> Result<Done> {
    let started = Instant::now();
    let enrichment = prepare(plan, dimensions, &*source)?;
    let metadata = plan.lineage.metadata(&files.inputs, &dimensions.versions);
    // Its own name says how it is written, not that of the output.
    let mut unmatched_options = SinkOptions::default();
    unmatched_options.metadata.clone_from(&metadata);
    let mut output = open(enrichment.output_schema(), metadata)?;
    let mut unmatched: Option<Box<dyn Sink>> =
        match (&files.unmatched, enrichment.unmatched_schema()) {
            (Some(path), Some(schema)) => Some(create(path, schema, &unmatched_options)?),
            _ => None,
        };
    let mut sinks = Sinks {
        output: &mut *output,
        unmatched: None,
    };
    if let Some(unmatched) = &mut unmatched {
        sinks.unmatched = Some(&mut **unmatched);
    }
    let before = Fingerprint::of_regular(&files.inputs)?;
    let (control, bar) = context.control(&plan.name);
    let is_stdout = files.output == "-";
    let failed = |error| {
        if is_stdout {
            stdout_failure(error)
        } else {
            Failure::from(error)
        }
    };
    let report: EnrichReport = enrichment
        .run(&mut *source, &mut sinks, &control)
        .map_err(failed)?;
    bar.finish();
    let changed = Fingerprint::of_regular(&files.inputs)?;
    if let Some((file, _)) = before.iter().zip(&changed).find(|(old, new)| old != new) {
        // What was read may be neither what the file was nor what it is.
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "a file was changed while it was read; run again once it is complete: file=`{}`",
                file.path().display()
            ),
        )
        .into());
    }
    let profile = Times::new(&report, &dimensions.load_times);
    let mut report = Report::from(&report);
    report.inputs = files.inputs.iter().map(|path| shown(path)).collect();
    for (join, version) in report.joins.iter_mut().zip(&dimensions.versions) {
        join.committed.clone_from(&version.committed);
    }
    report.dimensions_bytes = dimensions.memory_bytes();
    report.profile = plan.is_profiled.then_some(profile);
    let routes = enrichment.routing_join().is_some();
    let gated = plan.gates.check(&report, &files.output);
    // Routed rows are a part of the output and appear with it. Copies of unmatched rows, and the report, are what
    // somebody wants to see when a gate was not met.
    let mut num_unmatched = 0;
    let mut routed = None;
    match unmatched {
        Some(unmatched) if routes => routed = Some(unmatched.seal()?),
        Some(unmatched) => num_unmatched = unmatched.finish()?.num_rows,
        None => {}
    }
    if let Some(path) = &plan.report {
        write_file(path, format!("{}\n", report.to_json()?).as_bytes())?;
    }
    gated?;
    let finishing = Instant::now();
    let sealed = output.seal().map_err(failed)?;
    if let Some(routed) = routed {
        num_unmatched = routed.commit()?.num_rows;
    }
    let written: Written = sealed.commit().map_err(failed)?;
    if let Some(times) = &mut report.profile {
        times.finish = Some(finishing.elapsed().as_secs_f64());
    }
    report.bytes_written = written.num_bytes;
    report.unmatched_rows = num_unmatched;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(Done {
        seconds: report.seconds,
        report,
        written,
        num_unmatched,
    })
}

/// Plans the joins of a source, and what is computed before and after them.
pub(crate) fn prepare(
    plan: &Plan,
    dimensions: &Dimensions,
    source: &dyn Source,
) -> Result<Enrichment> {
    plan_joins(plan, source.schema(), dimensions.joins.clone())
}

/// The enrichment of facts with these columns.
pub(crate) fn plan_joins(
    plan: &Plan,
    facts: &arrow_schema::SchemaRef,
    joins: Vec<(JoinSpec, Arc<Dimension>)>,
) -> Result<Enrichment> {
    let mut before: Option<Arc<dyn BatchMap>> = None;
    let mut after_filter = None;
    if let Some(filter) = &plan.filter {
        match Expressions::new(facts, Some(filter), None) {
            Ok(expressions) => before = Some(Arc::new(expressions)),
            // It may be about what the joins add; if not, it is refused there.
            Err(_) => after_filter = Some(filter.as_str()),
        }
    }
    let join = StarJoin::new(facts, plan.select.as_deref(), joins, plan.encoding)?;
    let mut after: Option<Arc<dyn BatchMap>> = None;
    if after_filter.is_some() || plan.columns.is_some() {
        let expressions =
            Expressions::new(join.output_schema(), after_filter, plan.columns.as_deref());
        after = Some(Arc::new(expressions?));
    }
    let mut enrichment = Enrichment::new(join);
    if let Some(before) = before {
        enrichment = enrichment.with_before(before);
    }
    if let Some(after) = after {
        enrichment = enrichment.with_after(after);
    }
    if plan.unmatched.is_some() {
        enrichment = enrichment.with_unmatched()?;
    } else if let Some(join) = enrichment.routing_join() {
        return Err(Error::invalid(format!(
            "a join routes missed rows; name a file for them, as `unmatched` of the step or with --unmatched: join=`{join}`"
        ))
        .into());
    }
    if plan.is_profiled {
        enrichment = enrichment.with_profile();
    }
    Ok(enrichment)
}

impl Dimensions {
    fn memory_bytes(&self) -> u64 {
        let mut seen: Vec<*const Dimension> = Vec::new();
        let mut sum = 0;
        for (_, dimension) in &self.joins {
            let place = Arc::as_ptr(dimension);
            if !seen.contains(&place) {
                seen.push(place);
                sum += dimension.memory_bytes() as u64;
            }
        }
        sum
    }
}
