//! `darner backup` and `darner restore`.

use std::path::Path;

use darner_engine::{Error, ErrorKind};
use darner_store::{BackupReport, Store};
use indicatif::{HumanBytes, HumanCount};

use crate::{
    args::{Backup, Restore},
    context::Context,
    error::Result,
    files::check_outputs,
    print,
    storage::{is_url, shown},
};

pub(crate) fn backup(context: &Context, args: &Backup) -> Result<()> {
    check_local(&args.dir)?;
    check_outputs(&context.store_dir, &[], &[&args.dir])?;
    check_empty(&args.dir, "name another directory for the backup")?;
    let report = context.read_store()?.backup(&args.dir)?;
    say(context, &context.store_dir, &args.dir, &report)
}

pub(crate) fn restore(context: &Context, args: &Restore) -> Result<()> {
    check_local(&args.dir)?;
    check_empty(
        &context.store_dir,
        "move it away, or name another directory with --store",
    )?;
    let report = Store::restore(&args.dir, &context.store_dir).map_err(|error| {
        if error.kind() == ErrorKind::NotFound && !args.dir.join("CURRENT").exists() {
            return Error::not_found(format!("no backup in `{}`", args.dir.display()));
        }
        error
    })?;
    say(context, &args.dir, &context.store_dir, &report)
}

fn check_local(dir: &Path) -> Result<()> {
    if is_url(dir) {
        return Err(Error::invalid(format!(
            "a backup is a directory of this machine: dir=`{}`; copy its files from there",
            shown(dir)
        ))
        .into());
    }
    Ok(())
}

/// Refuses a directory in which something is: the store does too, but cannot know what the user can do about it.
fn check_empty(dir: &Path, advice: &str) -> Result<()> {
    let is_empty = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_empty {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("`{}` is not an empty directory; {advice}", dir.display()),
    )
    .into())
}

fn say(context: &Context, from: &Path, to: &Path, report: &BackupReport) -> Result<()> {
    if context.json {
        return print::result(serde_json::json!({
            "from": from,
            "to": to,
            "version": report.version.number,
            "files": report.num_files,
            "bytes": report.num_bytes,
        }));
    }
    print::note(
        context,
        format_args!(
            "{} copied to {} as of version {}: {} files, {}",
            from.display(),
            to.display(),
            report.version,
            HumanCount(report.num_files),
            HumanBytes(report.num_bytes)
        ),
    );
    Ok(())
}
