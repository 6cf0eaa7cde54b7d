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
    let result = signals::install()
        .and_then(|cancel| Context::new(&args, cancel))
        .and_then(|context| commands::run(&context, args.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print::failure(&failure);
            failure.exit_code()
        }
    }
}
