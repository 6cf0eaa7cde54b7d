//! Killed processes. The child is this test program again, told to run [`worker`] alone.

use std::process::Command;

use crate::support::{
    kill::{Job, run},
    power::watch,
    random::Random,
    work::{Kind, fast_dir},
};

const JOB: &str = "DARNER_KILL_JOB";

/// The child's part. Does nothing in an ordinary run.
#[test]
fn worker() {
    if let Some(job) = std::env::var(JOB).ok().as_deref().and_then(Job::decode) {
        job.work();
    }
}

fn command(job: &Job) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["kill::worker", "--exact", "--nocapture"])
        .env(JOB, job.encode());
    command
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let seed = Random::seed(6);
    for kind in [Kind::Threaded, Kind::Bulk] {
        let dir = fast_dir();
        watch(
            || format!("DARNER_SEED={seed}"),
            || run(&dir.path().join("store"), kind, seed, 6, &command),
        );
    }
}
