//! One file per command.

mod backup;
mod changes;
mod compact;
mod delete;
mod drop;
pub(crate) mod enrich;
mod get;
mod history;
mod info;
mod init;
mod load;
mod manual;
mod retention;
mod run;
mod scan;
mod sql;
mod state;
mod tables;
mod verify;
pub(crate) mod view;

use crate::{args::Command, context::Context, error::Result};

/// Does what was typed.
pub(crate) fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(context, &args),
        Command::Init(args) => init::run(context, &args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Check(args) => run::check(context, &args),
        Command::Load(args) => load::run(context, &args),
        Command::Enrich(args) => enrich::run(context, &args),
        Command::Get(args) => get::run(context, &args),
        Command::Scan(args) => scan::run(context, &args),
        Command::Delete(args) => delete::run(context, &args),
        Command::Drop(args) => drop::run(context, &args),
        Command::Tables => tables::run(context),
        Command::Info(args) => info::run(context, &args),
        Command::History(args) => history::run(context, &args),
        Command::Changes(args) => changes::run(context, &args),
        Command::Retention(args) => retention::run(context, &args),
        Command::Compact(args) => compact::run(context, &args),
        Command::Verify => verify::run(context),
        Command::Backup(args) => backup::backup(context, &args),
        Command::Restore(args) => backup::restore(context, &args),
        Command::State(args) => state::run(context, &args),
        Command::View(command) => view::run(context, &command),
        Command::Sql(args) => sql::run(context, &args),
    }
}
