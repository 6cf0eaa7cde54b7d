//! Power loss at every operation, on a simulated disk.

use crate::support::{
    power::{PowerCase, PowerReport, run, watch},
    random::Random,
    work::Kind,
};

fn check(kind: Kind, num_actions: u64, dies: bool, recovers_one_in: u64) -> PowerReport {
    // Deaths at the worst moment are rare: more seeds for them, from one on that is known to have them.
    let (first, num_seeds) = if dies { (20, 4) } else { (7, 2) };
    let first = Random::seed(first);
    let mut report = PowerReport::default();
    let case = PowerCase {
        kind,
        num_actions,
        dies,
        num_disks: 1,
        recovers_one_in,
    };
    for seed in first..first + num_seeds {
        watch(
            || format!("DARNER_SEED={seed}"),
            || report.add(run(case, seed)),
        );
    }
    report
}

#[test]
fn small_commits_survive_power_loss_at_every_operation() {
    let report = check(Kind::Small, 10, false, 0);
    assert!(report.num_disks > 50, "{report:?}");
}

#[test]
fn bulk_loads_survive_power_loss_at_every_operation() {
    let report = check(Kind::Bulk, 4, false, 0);
    assert!(report.num_disks > 50, "{report:?}");
}

#[test]
fn checkpoints_survive_power_loss_at_every_operation() {
    let report = check(Kind::Checkpoint, 8, false, 0);
    assert!(report.num_disks > 50, "{report:?}");
}

#[test]
fn compactions_survive_power_loss_at_every_operation() {
    let report = check(Kind::Compaction, 8, false, 0);
    assert!(report.num_disks > 50, "{report:?}");
}

#[test]
fn backups_survive_power_loss_at_every_operation() {
    let report = check(Kind::Backup, 8, false, 0);
    assert!(report.num_disks > 50, "{report:?}");
}

#[test]
fn killed_processes_and_then_power_loss_lose_nothing() {
    let report = check(Kind::Mixed, 16, true, 0);
    assert!(report.num_disks > 50, "{report:?}");
}

#[test]
fn power_loss_in_the_midst_of_recovery_loses_nothing() {
    let report = check(Kind::Open, 12, false, 4);
    assert!(report.num_recovery_disks > 20, "{report:?}");
}
