//! Disks that fail.

use crate::support::{
    faults::{Errno, Fault, Prepared, run},
    power::watch,
    random::Random,
    work::Kind,
};

/// Lets every `step`-th operation fail, until the work ends before the fault comes.
fn sweep(step: u64, fails: impl Fn(Fault) -> bool) -> u64 {
    let mut at = 0;
    loop {
        let fault = Fault {
            at,
            for_good: at % 2 == 1,
            errno: Errno::ALL[at as usize % 3],
        };
        if !fails(fault) {
            return at;
        }
        at += step;
    }
}

#[test]
fn whatever_operation_fails_nothing_is_lost() {
    let seed = Random::seed(3);
    let num_ops = watch(
        || format!("DARNER_SEED={seed}"),
        || sweep(5, |fault| run(Kind::Mixed, seed, 12, fault)),
    );
    assert!(num_ops > 100, "only {num_ops} operations");
}

#[test]
fn every_failing_operation_of_the_first_commits_loses_nothing() {
    let seed = Random::seed(4);
    let num_ops = watch(
        || format!("DARNER_SEED={seed}"),
        || sweep(1, |fault| run(Kind::Small, seed, 3, fault)),
    );
    assert!(num_ops > 20, "only {num_ops} operations");
}

#[test]
fn whatever_fails_while_a_store_is_opened_and_read_harms_nothing() {
    let seed = Random::seed(5);
    watch(
        || format!("DARNER_SEED={seed}"),
        || {
            let prepared = Prepared::new(Kind::Mixed, seed, 16);
            for read_only in [false, true] {
                let num_ops = sweep(3, |fault| prepared.open_with(fault, read_only));
                assert!(num_ops > 10, "only {num_ops} operations");
            }
        },
    );
}
