//! `darner run`.

use crate::{args::Run, context::Context, error::Result, job};

pub(crate) fn run(context: &Context, args: &Run) -> Result<()> {
    job::run(context, &job::Job::read(&args.job)?)
}
