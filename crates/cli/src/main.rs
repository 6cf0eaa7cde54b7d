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
mod metrics;
mod names;
mod print;
mod progress;
mod report;
mod signals;
mod time;

use std::process::ExitCode;

use clap::Parser;

use crate::{args::Args, context::Context};

/// Large, short-lived buffers are what this program allocates; with the system's allocator each of them is given back
/// to the system and faulted in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    print::set_format(args.log_format);
    let metrics_file = args.metrics_file.clone();
    let context = signals::install().and_then(|cancel| Context::new(&args, cancel));
    let (result, metrics) = match context {
        Ok(context) => {
            let result = commands::run(&context, args.command);
            (result, Some(context.metrics))
        }
        Err(failure) => (Err(failure), None),
    };
    let exit_code = match &result {
        Ok(()) => 0,
        Err(failure) => {
            print::failure(failure);
            failure.exit_code()
        }
    };
    if let (Some(path), Some(metrics)) = (metrics_file, metrics)
        && let Err(error) = metrics.write(&path, exit_code)
    {
        print::failure(&error.into());
        return ExitCode::from(exit_code.max(1));
    }
    ExitCode::from(exit_code)
}
