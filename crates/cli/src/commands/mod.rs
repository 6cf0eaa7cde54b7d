//! One file per command.

mod delete;
mod drop;
pub(crate) mod enrich;
mod get;
mod info;
mod load;
mod run;
mod scan;
mod sql;
mod tables;

use crate::{args::Command, context::Context, error::Result};

/// Does what was typed.
pub(crate) fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(context, &args),
        Command::Load(args) => load::run(context, &args),
        Command::Enrich(args) => enrich::run(context, &args),
        Command::Get(args) => get::run(context, &args),
        Command::Scan(args) => scan::run(context, &args),
        Command::Delete(args) => delete::run(context, &args),
        Command::Drop(args) => drop::run(context, &args),
        Command::Tables => tables::run(context),
        Command::Info(args) => info::run(context, &args),
        Command::Sql(args) => sql::run(context, &args),
    }
}
