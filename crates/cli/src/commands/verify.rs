//! `darner verify`.

use darner_engine::{Error, ErrorKind};
use darner_store::Store;
use indicatif::{HumanBytes, HumanCount};

use crate::{context::Context, error::Result, print};

pub(crate) fn run(context: &Context) -> Result<()> {
    let report = Store::verify(&context.store_dir).map_err(|error| context.explain(error))?;
    let problems: Vec<String> = report.problems.iter().map(print::with_causes).collect();
    if context.json {
        print::result(serde_json::json!({
            "files": report.num_files,
            "bytes": report.num_bytes,
            "tables": report.num_tables,
            "pages": report.num_pages,
            "rows": report.num_rows,
            "log_commits": report.num_commits,
            "problems": problems,
        }))?;
    } else {
        print::results(problems.iter().map(|problem| Ok(problem.clone())))?;
        print::note(
            context,
            format_args!(
                "{}: {} files and {} checked: {} tables and namespaces, {} pages, {} rows, {} commits in the log",
                context.store_dir.display(),
                HumanCount(report.num_files),
                HumanBytes(report.num_bytes),
                HumanCount(report.num_tables),
                HumanCount(report.num_pages),
                HumanCount(report.num_rows),
                HumanCount(report.num_commits)
            ),
        );
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(damaged("1 problem")),
        num => Err(damaged(&format!("{num} problems"))),
    }
}

fn damaged(problems: &str) -> crate::error::Failure {
    Error::new(
        ErrorKind::Data,
        format!("store is damaged: {problems}; bring back a backup with darner restore"),
    )
    .into()
}
