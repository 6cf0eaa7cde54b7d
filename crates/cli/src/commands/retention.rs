//! `darner retention`.

use darner_store::TableSnapshot;
use indicatif::HumanCount;

use crate::{
    args::Retention,
    context::{Context, close_store},
    error::Result,
    print,
    time::duration_text,
};

pub(crate) fn run(context: &Context, args: &Retention) -> Result<()> {
    if args.versions.is_none() && args.age.is_none() {
        return show(context, &context.read_store()?.table(&args.table)?);
    }
    let store = context.open_existing_store()?;
    let before = store.table(&args.table)?.retention();
    let mut after = before;
    if let Some(num_versions) = args.versions {
        after.num_versions = num_versions.get();
    }
    if let Some(age) = args.age {
        after.age = age;
    }
    if after != before {
        let mut transaction = store.begin()?;
        transaction.set_retention(&args.table, after)?;
        transaction.commit()?;
    }
    let table = store.table(&args.table)?;
    close_store(store);
    show(context, &table)
}

fn show(context: &Context, table: &TableSnapshot) -> Result<()> {
    let retention = table.retention();
    if context.json {
        return print::result(serde_json::json!({
            "table": table.name(),
            "versions": retention.num_versions,
            "age_ms": u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX),
            "oldest_version": table.oldest_version(),
        }));
    }
    print::result(format_args!(
        "{}: {}; the oldest that can be read is version {}",
        table.name(),
        retention_text(table),
        table.oldest_version()
    ))
}

/// How much of a table's past is kept, in words.
pub(crate) fn retention_text(table: &TableSnapshot) -> String {
    let retention = table.retention();
    let mut text = match retention.num_versions {
        0 | 1 => "keeps the newest version".to_owned(),
        n => format!("keeps the newest {} versions", HumanCount(n)),
    };
    if !retention.age.is_zero() {
        text = format!("{text}, and each for {}", duration_text(retention.age));
    }
    text
}
