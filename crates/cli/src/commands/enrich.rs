//! `darner enrich`.

use std::{path::Path, sync::Arc};

use darner_engine::{JoinSpec, SinkOptions};
use darner_store::Store;
use indicatif::{HumanBytes, HumanCount};

use crate::{
    args::Enrich,
    context::Context,
    enrichment::{Dimensions, Done, Gates, Lineage, Plan, execute, prepare},
    error::Result,
    explain::Explained,
    files::{check_outputs, input_paths, source_options},
    metrics::tell_report,
    print,
    report::Times,
    storage::{check_output, open_all, shown},
};

pub(crate) fn run(context: &Context, args: &Enrich) -> Result<()> {
    let mut sink_options = SinkOptions::default();
    sink_options.format = args.format;
    sink_options.compression = args.compression.map(Into::into);
    if let Some(rows) = args.row_group_rows {
        sink_options.row_group_rows = rows.get();
    }
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
        filter: args.filter.clone(),
        columns: (!args.columns.is_empty()).then(|| args.columns.clone()),
        as_of: args.as_of,
        encoding: args.encoding.into(),
        output,
        sink_options,
        unmatched: args.unmatched.clone(),
        report: args.report.clone(),
        gates: Gates {
            max_miss_rate: args.max_miss_rate,
            min_rows: args.min_rows,
            max_age: args.max_dimension_age,
            refuses_empty: args.refuse_empty,
            joins: Vec::new(),
        },
        lineage: Lineage::default(),
        is_profiled: args.profile,
    };
    let store = Arc::new(context.read_store()?);
    if args.explain {
        return explain(context, &store, &plan, args.output.as_deref());
    }
    let done = execute(context, &store, &plan)?;
    tell_report("enrich", &done.report);
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
        shown(&plan.output)
    };
    print::note(
        context,
        format_args!(
            "{}: {} read, {} written to {target} ({}) in {:.2} s",
            plan.name,
            print::counted(done.report.rows_read, "row"),
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
                "  {} written to {}",
                print::counted(done.num_unmatched, "unmatched row"),
                shown(path)
            ),
        );
    }
    Ok(())
}

/// Prints what would be done.
fn explain(
    context: &Context,
    store: &Arc<Store>,
    plan: &Plan,
    output: Option<&Path>,
) -> Result<()> {
    check_outputs(&context.store_dir, &plan.inputs, output.as_slice())?;
    let source = open_all(plan.inputs.clone(), &plan.source_options)?;
    let dimensions = Dimensions::load(context, store, plan)?;
    let enrichment = prepare(plan, &dimensions, &*source)?;
    if let Some(output) = output {
        let schema = enrichment.output_schema();
        check_output(output, schema, &plan.sink_options)?;
    }
    let explained = Explained::new(context, plan, output, &*source, &enrichment);
    if context.json {
        return print::result(explained.to_json()?);
    }
    print::results(explained.lines().into_iter().map(Ok))
}
