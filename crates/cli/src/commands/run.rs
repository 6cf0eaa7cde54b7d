//! `darner run` and `darner check`.

use crate::{args::Run, context::Context, error::Result, job};

pub(crate) fn run(context: &Context, args: &Run) -> Result<()> {
    job::run(context, &job::Job::read(&args.job, &args.set)?, &args.only)
}

pub(crate) fn check(context: &Context, args: &Run) -> Result<()> {
    job::check(context, &job::Job::read(&args.job, &args.set)?, &args.only)
}
