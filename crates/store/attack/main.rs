//! Attacks the store for as long as asked: what `tests/it` does in a minute, with new seeds until the time is over.
//!
//! ```text
//! cargo run --release -p darner-store --example attack -- power --for 10m --seed 1
//! ```
//!
//! | what | attack |
//! |---|---|
//! | `model` | random work, compared with a `BTreeMap`, opened again and again |
//! | `kill` | a child that works is killed with signal 9 |
//! | `power` | power loss at every operation, on a simulated disk |
//! | `recovery` | power loss at every operation of an opening after a power loss |
//! | `damage` | flipped bits and cut files |
//! | `errors` | each operation fails, once or for good |
//! | `shutdown` | a file system that is cut off (`FS_IOC_SHUTDOWN`) and mounted again; wants root |
//! | `space` | 1,000 updates of the same 100,000 rows, and what is on disk then |
//! | `full` | a file system that is full, and one that is read-only; wants root |
//!
//! It stops at the first thing that is wrong, with the seed that repeats it.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "a test by nature, and a program that reports to whoever runs it"
)]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use darner_store::StoreOptions;
use support::{
    damage::{DamageReport, Sample},
    faults::{Errno, Fault, Prepared},
    kill::Job,
    power::{PowerCase, PowerReport, watch},
    random::Random,
    space::update_again_and_again,
    work::{Event, Kind, Models, NOW_US, Work, check_copies, fast_dir},
    workload::{check, check_history, check_state, step_of},
};

mod full;
mod mount;
mod shutdown;

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/support/mod.rs"]
mod support;

/// How often a child is killed before the next seed begins.
const KILLS_PER_SEED: u64 = 25;

/// What was asked for.
struct Asked {
    attack: String,
    lasts: Duration,
    seed: u64,
    /// All that the attack is made for, if none.
    kind: Option<Kind>,
}

const USAGE: &str = "usage: attack model|kill|power|recovery|damage|errors|shutdown|space|full [--for 10m] [--seed 1] \
                     [--kind small|bulk|checkpoint|compaction|open|backup|mixed|threaded]";

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()? * seconds))
}

fn asked(mut args: impl Iterator<Item = String>) -> Option<Asked> {
    let mut asked = Asked {
        attack: args.next()?,
        lasts: Duration::from_mins(1),
        seed: 1,
        kind: None,
    };
    while let Some(option) = args.next() {
        let value = args.next()?;
        match option.as_str() {
            "--for" => asked.lasts = duration(&value)?,
            "--seed" => asked.seed = value.parse().ok()?,
            "--kind" => asked.kind = Some(Kind::parse(&value)?),
            _ => return None,
        }
    }
    Some(asked)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [worker, job] = &args[..]
        && worker == "worker"
    {
        return Job::decode(job).unwrap().work();
    }
    let Some(asked) = asked(args.into_iter()) else {
        println!("{USAGE}");
        std::process::exit(2);
    };
    let attack: fn(u64, Kind) -> String = match asked.attack.as_str() {
        "model" => model,
        "kill" => kill,
        "power" => power,
        "recovery" => recovery,
        "damage" => damage,
        "errors" => errors,
        "shutdown" => shutdown::run,
        "space" => space,
        "full" => full::run,
        _ => {
            println!("{USAGE}");
            std::process::exit(2);
        }
    };
    // The others do the same work again and again.
    let takes_all = matches!(asked.attack.as_str(), "model" | "kill" | "shutdown");
    let kinds: Vec<Kind> = match asked.kind {
        Some(kind) => vec![kind],
        None if takes_all => Kind::all().collect(),
        None => Kind::REPEATABLE.to_vec(),
    };
    let begun = Instant::now();
    let mut num_rounds = 0;
    for seed in asked.seed.. {
        for kind in &kinds {
            let attack_name = &asked.attack;
            let context = || format!("attack {attack_name} --seed {seed} --kind {}", kind.name());
            let found = watch(context, || attack(seed, *kind));
            num_rounds += 1;
            let seconds = begun.elapsed().as_secs();
            println!("{seconds:>6} s  seed {seed} {}: {found}", kind.name());
            if begun.elapsed() >= asked.lasts {
                println!("nothing wrong in {num_rounds} rounds");
                return;
            }
        }
    }
}

fn space(_seed: u64, _kind: Kind) -> String {
    let (num_bytes, live_bytes) = update_again_and_again(&StoreOptions::default(), 100_000, 1000);
    format!("{num_bytes} bytes on disk for {live_bytes} bytes of rows")
}

/// A child that does a job.
fn worker(job: &Job) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["worker", &job.encode()]);
    command
}

fn model(seed: u64, kind: Kind) -> String {
    const NUM_ACTIONS: u64 = 1500;
    let dir = fast_dir();
    let mut work = Work::new(&dir.path().join("store"), kind, seed, seed);
    let mut random = Random::new(seed);
    let mut num_operations = 0;
    for action in 1..=NUM_ACTIONS {
        let mut attempted = None;
        work.act(&mut |event| {
            if let Event::Attempted(step) = event {
                attempted = Some(step);
            }
        })
        .unwrap();
        num_operations += 1;
        if let Some(step) = attempted {
            num_operations += work.models.edits_after(step - 1).len();
        }
        if let Some(store) = &work.store {
            let step = step_of(store);
            // Looking at everything costs more than most actions.
            if random.below(12) == 0 || action == NUM_ACTIONS {
                check_copies(&work.dir, kind, &mut work.models, step);
                let model = work.models.at(step);
                check(store, model, NOW_US);
                check_state(store, model, &mut random, NOW_US);
                check_history(store, model);
                work.models.forget_before(step);
            }
        }
    }
    format!("{num_operations} operations")
}

fn kill(seed: u64, kind: Kind) -> String {
    let dir = fast_dir();
    let store = dir.path().join("store");
    let step = support::kill::run(&store, kind, seed, KILLS_PER_SEED, &worker);
    format!("{KILLS_PER_SEED} kills, {step} steps")
}

fn power_case(seed: u64, kind: Kind, recovers_one_in: u64) -> PowerReport {
    let mut report = PowerReport::default();
    for dies in [false, true] {
        let case = PowerCase {
            kind,
            num_actions: if kind == Kind::Small { 30 } else { 15 },
            dies,
            num_disks: 3,
            recovers_one_in,
        };
        report.add(support::power::run(case, seed));
    }
    report
}

fn power(seed: u64, kind: Kind) -> String {
    let report = power_case(seed, kind, 0);
    format!(
        "{} disks at {} operations",
        report.num_disks, report.num_ops
    )
}

fn recovery(seed: u64, kind: Kind) -> String {
    let report = power_case(seed, kind, 6);
    format!(
        "{} recoveries, {} disks in the midst of them",
        report.num_recoveries, report.num_recovery_disks
    )
}

fn damage(seed: u64, _kind: Kind) -> String {
    let sample = Sample::new(seed);
    let DamageReport {
        num_errors,
        num_right,
    } = sample.check_some(40, &mut Random::new(seed));
    format!("{num_errors} errors, {num_right} right answers")
}

fn errors(seed: u64, kind: Kind) -> String {
    const NUM_ACTIONS: u64 = 15;
    let prepared = Prepared::new(kind, seed, NUM_ACTIONS);
    let mut counts = [0_u64; 3];
    for errno in Errno::ALL {
        for for_good in [false, true] {
            let fault = |at| Fault {
                at,
                for_good,
                errno,
            };
            let sweeps: [&dyn Fn(u64) -> bool; 3] = [
                &|at| support::faults::run(kind, seed, NUM_ACTIONS, fault(at)),
                &|at| prepared.open_with(fault(at), false),
                &|at| prepared.open_with(fault(at), true),
            ];
            for (count, sweep) in counts.iter_mut().zip(sweeps) {
                let mut at = 0;
                while sweep(at) {
                    at += 1;
                }
                *count += at;
            }
        }
    }
    let [work, opening, reading] = counts;
    format!("failed operations: {work} in work, {opening} in opening, {reading} in reading")
}

/// Whether this process may mount file systems.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks a store that was worked on with a seed: it has a certain step, and at most the one after the last that was
/// acknowledged. It takes one commit more.
fn check_after(dir: &Path, kind: Kind, models: &mut Models, certain: u64, last: u64) -> u64 {
    let range = (certain, last + 1);
    let step = support::work::check_store(dir, kind, models, range) + 1;
    models.forget_before(step);
    step
}
