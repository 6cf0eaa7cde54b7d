//! `darner info`.

use darner_engine::load_dimension;
use darner_store::PageKind;
use indicatif::{HumanBytes, HumanCount};

use crate::{args::Info, context::Context, error::Result, print};

pub(crate) fn run(context: &Context, args: &Info) -> Result<()> {
    let store = context.read_store()?;
    let table = store.table(&args.table)?;
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
            "pages": table.pages().len(),
            "delete_pages": num_delete_pages,
            "bytes": table.num_bytes(),
            "store_bytes": store.disk_bytes()?,
            "created_version": table.created().number,
            "version": table.version().number,
            "changed_us": table.version().time_us,
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
        "pages    {} ({num_delete_pages} of them deletes), {}",
        HumanCount(table.pages().len() as u64),
        HumanBytes(table.num_bytes())
    ));
    lines.push(format!(
        "version  {} (made as {}), of {}",
        table.version(),
        table.created(),
        print::time(table.version().time_us)
    ));
    lines.push(format!(
        "index    {}, {}",
        dimension.layout(),
        HumanBytes(dimension.index_bytes() as u64)
    ));
    print::result(lines.join("\n"))
}
