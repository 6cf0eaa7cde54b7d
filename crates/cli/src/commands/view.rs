//! `darner view`, and what other commands do with a view in the place of a table.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow_select::concat::concat_batches;
use darner_engine::Error;
use darner_sql::{
    OnDimensionChange, RefreshKind, RefreshOptions, RefreshReport, Session, ViewInfo,
};
use darner_store::Store;
use indicatif::{HumanBytes, HumanCount};

use crate::{
    args::{self, Get, Scan, View, ViewCreate, ViewName, ViewRefresh},
    context::{Context, close_shared, refuse_past},
    error::{Failure, Result},
    files::{counts, print_listing, print_rows},
    keys::parse_keys,
    print,
};

pub(crate) fn run(context: &Context, command: &View) -> Result<()> {
    match command {
        View::Create(args) => create(context, args),
        View::Refresh(args) => refresh(context, args),
        View::List => list(context),
        View::Show(args) => show(context, context.read_store()?, &args.name),
        View::Explain(args) => explain(context, args),
        View::Verify(args) => verify(context, args),
        View::Drop(args) => drop_view(context, args),
    }
}

/// Does something in a session on a store that is open for writing, and closes it.
fn with_session<T>(
    context: &Context,
    store: Store,
    work: impl FnOnce(&Session) -> darner_engine::Result<T>,
) -> Result<T> {
    let store = Arc::new(store);
    let session = context.session(&store)?;
    let done = work(&session);
    drop(session);
    close_shared(store);
    Ok(done?)
}

/// A session on a store that is only read.
fn reading(context: &Context, store: Store) -> Result<Session> {
    context.session(&Arc::new(store))
}

fn create(context: &Context, args: &ViewCreate) -> Result<()> {
    let report = with_session(context, context.open_store()?, |session| {
        if args.if_not_exists && session.view_names().contains(&args.name) {
            return Ok(None);
        }
        let report = session.create_view(&args.name, &args.query, args.replace);
        report.map(Some)
    })?;
    if let Some(report) = report {
        return tell(context, &report);
    }
    print::note(context, format_args!("{}: is there already", args.name));
    Ok(())
}

fn refresh(context: &Context, args: &ViewRefresh) -> Result<()> {
    let mut options = RefreshOptions::default();
    options.files.clone_from(&args.files);
    options.rebuild = args.rebuild;
    options.on_dimension_change = match args.on_dimension_change {
        args::OnDimensionChange::Keep => OnDimensionChange::Keep,
        args::OnDimensionChange::Rebuild => OnDimensionChange::Rebuild,
    };
    let report = with_session(context, context.open_existing_store()?, |session| {
        session.refresh_view(&args.name, &options)
    })?;
    tell(context, &report)
}

/// Says what was done.
pub(crate) fn tell(context: &Context, report: &RefreshReport) -> Result<()> {
    if context.json {
        return print::result(serde_json::json!({
            "view": report.view,
            "done": report.kind.name(),
            "reason": report.reason,
            "files": report.num_files,
            "groups": report.num_groups,
            "groups_removed": report.num_groups_removed,
            "kept_dimensions": report.kept_dimensions,
            "version": report.version.number,
        }));
    }
    let mut parts = vec![match &report.reason {
        Some(reason) => format!("{} in full, because {reason}", report.kind.name()),
        None => report.kind.name().to_owned(),
    }];
    if report.num_files > 0 {
        parts.push(print::counted(report.num_files, "file"));
    }
    if report.kind != RefreshKind::UpToDate {
        parts.push(print::counted(report.num_groups, "group"));
    }
    if report.num_groups_removed > 0 {
        parts.push(format!("{} gone", HumanCount(report.num_groups_removed)));
    }
    print::note(
        context,
        format_args!(
            "{}: {}; version {}",
            report.view,
            parts.join(", "),
            report.version
        ),
    );
    if !report.kept_dimensions.is_empty() {
        print::note(
            context,
            format_args!(
                "{}: rows counted before keep what `{}` said then; --on-dimension-change rebuild joins them anew",
                report.view,
                report.kept_dimensions.join("`, `")
            ),
        );
    }
    Ok(())
}

fn list(context: &Context) -> Result<()> {
    let session = reading(context, context.read_store()?)?;
    let names = session.view_names();
    if names.is_empty() && !context.json {
        print::note(
            context,
            format_args!("no views in {}", context.store_dir.display()),
        );
        return Ok(());
    }
    let views = names.iter().map(|name| session.view(name));
    let views: Vec<ViewInfo> = views.collect::<darner_engine::Result<_>>()?;
    let texts = |of: fn(&ViewInfo) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(views.iter().map(of)))
    };
    let times = views.iter().map(|view| view.version.time_us);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    print_listing(
        context,
        vec![
            ("view", texts(|view| view.name.clone())),
            ("refresh", texts(|view| refresh_word(view).to_owned())),
            (
                "facts",
                texts(|view| view.facts.clone().unwrap_or_default()),
            ),
            (
                "groups",
                counts(context, views.iter().map(|view| Some(view.num_groups))),
            ),
            (
                "version",
                Arc::new(UInt64Array::from_iter_values(
                    views.iter().map(|view| view.version.number),
                )),
            ),
            ("refreshed", Arc::new(times)),
        ],
    )
}

fn refresh_word(view: &ViewInfo) -> &'static str {
    if view.is_incremental {
        "incremental"
    } else {
        "in full"
    }
}

/// All that is known of a view.
pub(super) fn show(context: &Context, store: Store, name: &str) -> Result<()> {
    let session = reading(context, store)?;
    let info = session.view(name)?;
    let schema = session.table_schema(name);
    let fields = schema.iter().flat_map(|schema| schema.fields().iter());
    let groups = if info.is_incremental {
        let schema = session.view_key_schema(name)?;
        let fields = schema.fields().iter();
        fields.map(|field| field.name().clone()).collect()
    } else {
        Vec::new()
    };
    if context.json {
        let columns = fields.map(|field| {
            serde_json::json!({ "name": field.name(), "type": field.data_type().to_string() })
        });
        let dimensions = info.dimensions.iter().map(|dimension| {
            serde_json::json!({
                "table": dimension.name,
                "first_version": dimension.first_version,
                "last_version": dimension.last_version,
                "version_now": dimension.version_now,
            })
        });
        return print::result(serde_json::json!({
            "view": info.name,
            "query": info.query,
            "is_incremental": info.is_incremental,
            "reason": info.reason,
            "columns": columns.collect::<Vec<_>>(),
            "group": groups,
            "facts": info.facts,
            "is_pushed": info.is_pushed,
            "facts_version": info.facts_version,
            "dimensions": dimensions.collect::<Vec<_>>(),
            "files": info.files,
            "pushed_rows": info.num_pushed_rows,
            "groups": info.num_groups,
            "bytes": info.num_bytes,
            "version": info.version.number,
            "refreshed_us": info.version.time_us,
        }));
    }
    let mut lines: Vec<String> = info
        .lines()
        .into_iter()
        .map(|(name, text)| format!("{name:<9}  {text}"))
        .collect();
    lines.push(format!(
        "stored     {}, refreshed {}",
        HumanBytes(info.num_bytes),
        print::time(info.version.time_us)
    ));
    if !groups.is_empty() {
        lines.push(format!("key        {}", groups.join(", ")));
    }
    lines.push("columns".to_owned());
    lines.extend(fields.map(|field| format!("  {}  {}", field.name(), field.data_type())));
    print::result(lines.join("\n"))
}

fn explain(context: &Context, args: &ViewName) -> Result<()> {
    let session = reading(context, context.read_store()?)?;
    let info = session.view(&args.name)?;
    if context.json {
        return print::result(serde_json::json!({
            "view": info.name,
            "is_incremental": info.is_incremental,
            "reason": info.reason,
            "query": info.query,
            "facts": info.facts,
            "changes": info.changes,
            "states": info.aggregates,
        }));
    }
    let lines = info.lines().into_iter();
    let lines = lines.map(|(name, text)| format!("{name:<9}  {text}"));
    print::result(lines.collect::<Vec<_>>().join("\n"))
}

fn verify(context: &Context, args: &ViewName) -> Result<()> {
    let session = reading(context, context.read_store()?)?;
    let found = session.verify_view(&args.name)?;
    if context.json {
        print::result(serde_json::json!({
            "view": args.name,
            "compared": found.num_compared,
            "num_problems": found.num_problems,
            "problems": found.problems,
            "notes": found.notes,
        }))?;
    } else {
        print::results(found.problems.iter().map(|problem| Ok(problem.clone())))?;
        for note in &found.notes {
            print::note(context, format_args!("{}: {note}", args.name));
        }
    }
    if found.num_problems > 0 {
        return Err(Error::data(format!(
            "view differs from its sources: view=`{}` problems=`{}` compared=`{}`; rebuild it with darner view refresh \
             --rebuild",
            args.name, found.num_problems, found.num_compared
        ))
        .into());
    }
    print::note(
        context,
        format_args!(
            "{}: {} groups are as their sources say",
            args.name,
            HumanCount(found.num_compared)
        ),
    );
    Ok(())
}

fn drop_view(context: &Context, args: &ViewName) -> Result<()> {
    with_session(context, context.open_existing_store()?, |session| {
        session.drop_view(&args.name)
    })?;
    print::note(context, format_args!("{}: dropped", args.name));
    Ok(())
}

/// `darner get` of a view: rows by their groups.
pub(super) fn get(context: &Context, store: Store, args: &Get) -> Result<()> {
    if args.as_of.is_some() {
        return Err(refuse_past(&args.table));
    }
    let session = reading(context, store)?;
    let keys = parse_keys(&*session.view_key_schema(&args.table)?, &args.keys)?;
    let found = session.view_get(&args.table, &keys)?;
    let rows: Vec<RecordBatch> = found.iter().flatten().cloned().collect();
    if let Some(first) = rows.first() {
        let schema = first.schema();
        let rows = concat_batches(&schema, &rows)
            .map_err(|error| Error::internal("rows cannot be joined").with_source(error))?;
        print_rows(context, &schema, std::iter::once(Ok(rows)), &args.output)?;
    }
    let missing = found.iter().zip(&args.keys);
    let missing = missing.filter(|(row, _)| row.is_none());
    let missing: Vec<&str> = missing.map(|(_, key)| key.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "no such group in view=`{}`: {}",
        args.table,
        missing.join(" ")
    ))
    .into())
}

/// `darner scan` of a view.
pub(super) fn scan(context: &Context, store: Store, args: &Scan) -> Result<()> {
    if args.as_of.is_some() {
        return Err(refuse_past(&args.table));
    }
    let session = reading(context, store)?;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns = args.select.as_ref().map_or_else(
        || "*".to_owned(),
        |names| {
            let names = names.iter().map(|name| quoted(name));
            names.collect::<Vec<_>>().join(", ")
        },
    );
    let limit = args
        .limit
        .map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
    let sql = format!("SELECT {columns} FROM {}{limit}", quoted(&args.table));
    let rows = session.query(&sql)?;
    let schema = Arc::clone(rows.schema());
    print_rows(
        context,
        &schema,
        rows.map(|rows| rows.map_err(Failure::from)),
        &args.output,
    )
}
