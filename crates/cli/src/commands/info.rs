//! `darner info`.

use darner_engine::{is_view, load_dimension};
use darner_store::{PageKind, Store};
use indicatif::{HumanBytes, HumanCount};

use super::{retention::retention_text, view};
use crate::{args::Info, context::Context, error::Result, print};

pub(crate) fn run(context: &Context, args: &Info) -> Result<()> {
    let store = context.read_store()?;
    match &args.table {
        None => store_info(context, &store),
        Some(name) if is_view(&store, name) => view::show(context, store, name),
        Some(table) => table_info(context, &store, table),
    }
}

/// The store as a whole.
fn store_info(context: &Context, store: &Store) -> Result<()> {
    let version = store.version();
    let num_bytes = store.disk_bytes()?;
    let (tables, namespaces) = (store.table_names(), store.namespaces());
    if context.json {
        return print::result(serde_json::json!({
            "store": store.dir(),
            "version": version.number,
            "changed_us": version.time_us,
            "checkpoint_version": store.last_checkpoint().number,
            "store_bytes": num_bytes,
            "tables": tables,
            "namespaces": namespaces,
            "watermarks": store.watermark_names(),
        }));
    }
    let list = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => format!("{}: {}", HumanCount(names.len() as u64), names.join(", ")),
    };
    let num_commits = version
        .number
        .saturating_sub(store.last_checkpoint().number);
    let version = match version.number {
        0 => "0, nothing was committed yet".to_owned(),
        number => format!("{number}, of {}", print::time(version.time_us)),
    };
    print::result(
        [
            format!("store    {}", store.dir().display()),
            format!("version  {version}"),
            format!(
                "disk     {}, {} commits in the log since the last checkpoint",
                HumanBytes(num_bytes),
                HumanCount(num_commits)
            ),
            format!("tables   {}", list(&tables)),
            format!("state    {}", list(&namespaces)),
        ]
        .join("\n"),
    )
}

fn table_info(context: &Context, store: &Store, name: &str) -> Result<()> {
    let table = store.table(name)?;
    let history = table.history()?;
    let num_readable = history.iter().filter(|commit| commit.is_readable).count();
    let num_rows = table.num_rows()?;
    let num_stored = table.num_stored_rows();
    let num_delete_pages = table
        .pages()
        .filter(|page| page.kind == PageKind::Delete)
        .count();
    let keys = table.key_names();
    let dimension = load_dimension(&table, Some(&[]))?;
    if context.json {
        let columns: Vec<serde_json::Value> = table
            .schema()
            .fields()
            .iter()
            .map(|field| {
                serde_json::json!({
                    "name": field.name(),
                    "type": field.data_type().to_string(),
                    "is_key": keys.contains(&field.name().as_str()),
                })
            })
            .collect();
        return print::result(serde_json::json!({
            "table": table.name(),
            "columns": columns,
            "key": keys,
            "rows": num_rows,
            "stored_rows": num_stored,
            "dead_rows": num_stored.saturating_sub(num_rows),
            "pages": table.pages().len(),
            "sorted_pages": table.num_sorted_pages(),
            "delete_pages": num_delete_pages,
            "bytes": table.num_bytes(),
            "store_bytes": store.disk_bytes()?,
            "created_version": table.created().number,
            "version": table.version().number,
            "changed_us": table.version().time_us,
            "checkpoint_version": store.last_checkpoint().number,
            "oldest_version": table.oldest_version(),
            "readable_versions": num_readable,
            "keep_versions": table.retention().num_versions,
            "keep_age_ms": u64::try_from(table.retention().age.as_millis()).unwrap_or(u64::MAX),
            "index": dimension.layout().to_string(),
            "index_bytes": dimension.index_bytes(),
        }));
    }
    let mut lines = vec![
        format!("table    {}", table.name()),
        format!("key      {}", keys.join(", ")),
        "columns".to_owned(),
    ];
    let fields = table.schema().fields();
    let width = fields
        .iter()
        .map(|field| field.name().chars().count())
        .max()
        .unwrap_or(0);
    lines.extend(fields.iter().map(|field| {
        let mark = if keys.contains(&field.name().as_str()) {
            "  key"
        } else {
            ""
        };
        format!("  {:width$}  {}{mark}", field.name(), field.data_type())
    }));
    lines.push(format!(
        "rows     {} ({} stored, {} replaced or deleted since)",
        HumanCount(num_rows),
        HumanCount(num_stored),
        HumanCount(num_stored.saturating_sub(num_rows)),
    ));
    lines.push(format!(
        "pages    {} ({} sorted, {num_delete_pages} deletes), {}",
        HumanCount(table.pages().len() as u64),
        table.num_sorted_pages(),
        HumanBytes(table.num_bytes())
    ));
    lines.push(format!(
        "version  {} (made as {}), of {}",
        table.version(),
        table.created(),
        print::time(table.version().time_us)
    ));
    lines.push(format!(
        "past     {num_readable} of {} versions can be read, from {} on; {}",
        history.len(),
        table.oldest_version(),
        retention_text(&table)
    ));
    lines.push(format!(
        "index    {}, {}",
        dimension.layout(),
        HumanBytes(dimension.index_bytes() as u64)
    ));
    print::result(lines.join("\n"))
}
