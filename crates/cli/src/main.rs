//! `darner`: enriches batches of facts from durable dimension tables.

mod args;
mod bytes;
mod commands;
mod context;
mod enrichment;
mod error;
mod explain;
mod files;
mod fingerprint;
mod job;
mod keys;
mod logging;
mod memory;
mod metrics;
mod names;
mod print;
mod progress;
mod report;
mod signals;
mod storage;
mod time;

use std::{process::ExitCode, sync::Arc};

use clap::Parser;

use crate::{args::Args, context::Context, metrics::Metrics};

/// Large, short-lived buffers are what this program allocates; with the system's allocator each of them is given back
/// to the system and faulted in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    print::set_format(args.log_format);
    let metrics_file = args.metrics_file.clone();
    let metrics = Arc::new(Metrics::default());
    let result = logging::install(args.log.as_ref(), args.log_format, &metrics)
        .map_err(Into::into)
        .and_then(|()| signals::install())
        .and_then(|cancel| Context::new(&args, cancel))
        .and_then(|context| commands::run(&context, args.command));
    let exit_code = match &result {
        Ok(()) => 0,
        Err(failure) => {
            print::failure(failure);
            failure.exit_code()
        }
    };
    if let Some(path) = metrics_file
        && let Err(error) = metrics.write(&path, exit_code)
    {
        print::failure(&error.into());
        return ExitCode::from(exit_code.max(1));
    }
    ExitCode::from(exit_code)
}
