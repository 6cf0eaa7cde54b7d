//! `darner enrich`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use darner_engine::{
    Encoding, EnrichReport, Enrichment, JoinSpec, Sink, SinkOptions, Sinks, Source, SourceOptions,
    StarJoin, Written, check_output, create, load_dimension, open_all, write_file,
};
use darner_store::{AsOf, Store};
use indicatif::{HumanBytes, HumanCount};

use crate::{
    args::Enrich,
    context::{Context, find_table},
    error::{Failure, Result, stdout_failure},
    explain::Explained,
    files::{check_outputs, input_paths, source_options},
    print,
    report::{Report, Times},
};

/// One enrichment, from the command line or from a job.
pub(crate) struct Plan {
    /// What to call it on the progress line.
    pub(crate) name: String,
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) source_options: SourceOptions,
    pub(crate) select: Option<Vec<String>>,
    pub(crate) joins: Vec<JoinSpec>,
    /// Which state of the dimension tables is joined; that of now unless given.
    pub(crate) as_of: Option<AsOf>,
    pub(crate) encoding: Encoding,
    pub(crate) output: PathBuf,
    pub(crate) sink_options: SinkOptions,
    pub(crate) unmatched: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) max_miss_rate: Option<f64>,
    /// Whether to measure what each join takes.
    pub(crate) is_profiled: bool,
}

/// What an enrichment has done.
pub(crate) struct Done {
    pub(crate) report: Report,
    pub(crate) written: Written,
    pub(crate) num_unmatched: u64,
    pub(crate) seconds: f64,
}

pub(crate) fn run(context: &Context, args: &Enrich) -> Result<()> {
    let mut sink_options = SinkOptions::default();
    sink_options.format = args.format;
    let joins = args
        .joins
        .iter()
        .map(|text| JoinSpec::parse(text))
        .collect::<Result<_, _>>()?;
    let output = args.output.clone().unwrap_or_else(|| "-".into());
    let plan = Plan {
        name: "enrich".to_owned(),
        inputs: input_paths(&args.files)?,
        source_options: source_options(&args.input)?,
        select: args.select.clone(),
        joins,
        as_of: args.as_of,
        encoding: args.encoding.into(),
        output,
        sink_options,
        unmatched: args.unmatched.clone(),
        report: args.report.clone(),
        max_miss_rate: args.max_miss_rate,
        is_profiled: args.profile,
    };
    let store = context.read_store()?;
    if args.explain {
        return explain(context, &store, &plan, args.output.as_deref());
    }
    let done = execute(context, &store, &plan)?;
    say(context, &plan, &done)
}

/// Says what was done, the joins line by line.
pub(crate) fn say(context: &Context, plan: &Plan, done: &Done) -> Result<()> {
    let is_stdout = plan.output.as_os_str() == "-";
    if context.json && !is_stdout {
        return print::result(done.report.to_json()?);
    }
    let target = if is_stdout {
        "standard output".into()
    } else {
        plan.output.display().to_string()
    };
    print::note(
        context,
        format_args!(
            "{}: {} rows read, {} written to {target} ({}) in {:.2} s",
            plan.name,
            HumanCount(done.report.rows_read),
            HumanCount(done.report.rows_written),
            HumanBytes(done.written.num_bytes),
            done.seconds
        ),
    );
    let profile = done.report.profile.iter().flat_map(Times::lines);
    for line in done.report.lines().into_iter().chain(profile) {
        print::note(context, line);
    }
    if let Some(path) = &plan.unmatched {
        print::note(
            context,
            format_args!(
                "  {} unmatched rows written to {}",
                HumanCount(done.num_unmatched),
                path.display()
            ),
        );
    }
    Ok(())
}

/// Reads the dimensions, then the facts, and writes the output. Without success there is no output.
pub(crate) fn execute(context: &Context, store: &Store, plan: &Plan) -> Result<Done> {
    let outputs = std::iter::once(&plan.output)
        .chain(&plan.unmatched)
        .chain(&plan.report);
    let outputs: Vec<&Path> = outputs.map(PathBuf::as_path).collect();
    check_outputs(&context.store_dir, &plan.inputs, &outputs)?;
    let started = Instant::now();
    let Prepared {
        mut source,
        enrichment,
        load_times,
    } = prepare(store, plan)?;
    let mut output = create(
        &plan.output,
        enrichment.join().output_schema(),
        &plan.sink_options,
    )?;
    let mut unmatched: Option<Box<dyn Sink>> =
        match (&plan.unmatched, enrichment.unmatched_schema()) {
            (Some(path), Some(schema)) => Some(create(path, schema, &SinkOptions::default())?),
            _ => None,
        };
    let mut sinks = Sinks {
        output: &mut *output,
        unmatched: None,
    };
    if let Some(unmatched) = &mut unmatched {
        sinks.unmatched = Some(&mut **unmatched);
    }
    let (control, bar) = context.control(&plan.name);
    let is_stdout = plan.output.as_os_str() == "-";
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
    let profile = Times::new(&report, &load_times);
    let mut report = Report::from(&report);
    report.profile = plan.is_profiled.then_some(profile);
    // The unmatched rows and the report are what somebody wants to see when the gate was not met.
    let num_unmatched = match unmatched {
        Some(unmatched) => unmatched.finish()?.num_rows,
        None => 0,
    };
    if let Some(path) = &plan.report {
        write_file(path, format!("{}\n", report.to_json()?).as_bytes())?;
    }
    report.check_miss_rate(plan.max_miss_rate, &plan.output)?;
    let finishing = Instant::now();
    let written = output.finish().map_err(failed)?;
    if let Some(times) = &mut report.profile {
        times.finish = Some(finishing.elapsed().as_secs_f64());
    }
    Ok(Done {
        report,
        written,
        num_unmatched,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// What an enrichment needs before it begins.
struct Prepared {
    source: Box<dyn Source>,
    enrichment: Enrichment,
    /// How long it took to read and index each dimension.
    load_times: Vec<Duration>,
}

/// Opens the inputs and reads the dimensions.
fn prepare(store: &Store, plan: &Plan) -> Result<Prepared> {
    let source = open_all(plan.inputs.clone(), &plan.source_options)?;
    let mut joins = Vec::with_capacity(plan.joins.len());
    let mut load_times = Vec::with_capacity(plan.joins.len());
    for spec in &plan.joins {
        let started = Instant::now();
        let columns = payload(spec);
        let dimension = load_dimension(
            &find_table(store, &spec.table, plan.as_of)?,
            columns.as_deref(),
        )?;
        joins.push((spec.clone(), Arc::new(dimension)));
        load_times.push(started.elapsed());
    }
    let join = StarJoin::new(
        source.schema(),
        plan.select.as_deref(),
        joins,
        plan.encoding,
    )?;
    let mut enrichment = Enrichment::new(join);
    if plan.unmatched.is_some() {
        enrichment = enrichment.with_unmatched()?;
    }
    if plan.is_profiled {
        enrichment = enrichment.with_profile();
    }
    Ok(Prepared {
        source,
        enrichment,
        load_times,
    })
}

/// Prints what would be done.
fn explain(context: &Context, store: &Store, plan: &Plan, output: Option<&Path>) -> Result<()> {
    check_outputs(&context.store_dir, &plan.inputs, output.as_slice())?;
    let Prepared {
        source, enrichment, ..
    } = prepare(store, plan)?;
    if let Some(output) = output {
        let schema = enrichment.join().output_schema();
        check_output(output, schema, &plan.sink_options)?;
    }
    let explained = Explained::new(context, plan, output, &*source, enrichment.join());
    if context.json {
        return print::result(explained.to_json()?);
    }
    print::results(explained.lines().into_iter().map(Ok))
}

/// The payload columns that a join needs: all, unless it selects some.
fn payload(spec: &JoinSpec) -> Option<Vec<String>> {
    use darner_engine::JoinKind::{Anti, Semi};
    if matches!(spec.kind, Semi | Anti) {
        return Some(Vec::new());
    }
    spec.select
        .as_ref()
        .map(|columns| columns.iter().map(|c| c.column.clone()).collect())
}
