//! Power loss at every operation of some work, and at every operation of the recovery from it.

use std::{collections::HashSet, path::Path, sync::Arc};

use darner_store::{Store, testing::observe};

use super::{
    random::Random,
    sim::{Reached, Record, Recorder, Sim, Tree},
    work::{Event, Kind, Models, Work, check_found, fast_dir},
    workload::step_of,
};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PowerCase {
    pub(crate) kind: Kind,
    pub(crate) num_actions: u64,
    /// Whether processes are killed on the way: their successors build on what is not on disk yet.
    pub(crate) dies: bool,
    /// Disks that are looked at per operation.
    pub(crate) num_disks: u64,
    /// Of how many of those disks one has the power go again at every operation of its recovery. 0: of none.
    pub(crate) recovers_one_in: u64,
}

/// What was tried.
#[expect(
    clippy::struct_field_names,
    reason = "each is a count, and counts are called so"
)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PowerReport {
    pub(crate) num_ops: u64,
    pub(crate) num_disks: u64,
    pub(crate) num_recoveries: u64,
    pub(crate) num_recovery_disks: u64,
}

impl PowerReport {
    pub(crate) fn add(&mut self, other: Self) {
        self.num_ops += other.num_ops;
        self.num_disks += other.num_disks;
        self.num_recoveries += other.num_recoveries;
        self.num_recovery_disks += other.num_recovery_disks;
    }
}

/// The name of the store below the root of a disk. The root is its parent, which is to be synced too.
const STORE: &str = "store";

fn record(case: PowerCase, seed: u64) -> Vec<Record> {
    let dir = fast_dir();
    let recorder = Arc::new(Recorder::new(dir.path()));
    let observed = observe(dir.path(), Arc::clone(&recorder) as _);
    let mut work = Work::new(&dir.path().join(STORE), case.kind, seed, seed);
    let mut random = Random::new(seed ^ 0xDEAD);
    for _ in 0..case.num_actions {
        match random.below(8) {
            0 if case.dies => recorder.die_in(random.below(40)),
            1 if case.dies => recorder.die_on_brink(),
            _ => {}
        }
        let result = work.act(&mut |event| recorder.tell(event));
        if recorder.is_dead() {
            // Not even what a store does when it is dropped is done.
            work.store = None;
            recorder.revive();
        } else {
            result.unwrap();
        }
    }
    drop(observed);
    recorder.take()
}

/// What must be found: at least what was acknowledged, at most what was attempted.
#[derive(Clone, Copy, Default)]
struct Steps {
    acknowledged: u64,
    attempted: u64,
}

impl Steps {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Told(Event::Attempted(step)) => self.attempted = *step,
            Record::Told(Event::Acknowledged(step)) => {
                self.acknowledged = *step;
                self.attempted = self.attempted.max(*step);
            }
            _ => {}
        }
    }
}

fn check_tree(tree: &Tree, kind: Kind, models: &mut Models, steps: Steps) {
    let dir = fast_dir();
    tree.write(dir.path());
    let range = (steps.acknowledged, steps.attempted);
    check_found(&dir.path().join(STORE), kind, models, range);
}

/// Does work, and looks at what may be on disk after each of its operations.
pub(crate) fn run(case: PowerCase, seed: u64) -> PowerReport {
    let records = record(case, seed);
    let mut random = Random::new(seed);
    let mut models = Models::new(seed);
    let mut sim = Sim::new();
    let mut seen = HashSet::new();
    let mut steps = Steps::default();
    let mut report = PowerReport::default();
    for (at, record) in records.iter().enumerate() {
        sim.apply(record);
        steps.note(record);
        report.num_ops += 1;
        for variant in 0..case.num_disks {
            let reached = match variant {
                0 if case.num_disks > 2 => Reached::Nothing,
                1 if case.num_disks > 2 => Reached::Everything,
                _ => Reached::any(&mut random),
            };
            let tree = sim.lose_power(reached, &mut random);
            if !seen.insert((tree.digest(), steps.acknowledged, steps.attempted)) {
                continue;
            }
            let context = || format!("{case:?} operation={at} {reached:?} record={record:.200?}");
            watch(context, || check_tree(&tree, case.kind, &mut models, steps));
            report.num_disks += 1;
            if case.recovers_one_in > 0 && random.below(case.recovers_one_in) == 0 {
                watch(context, || {
                    report.num_recovery_disks +=
                        check_recovery(&tree, case, &mut models, steps, &mut random);
                });
                report.num_recoveries += 1;
            }
        }
    }
    report
}

/// Has the power go again at each operation of the next opening.
fn check_recovery(
    tree: &Tree,
    case: PowerCase,
    models: &mut Models,
    mut steps: Steps,
    random: &mut Random,
) -> u64 {
    let dir = fast_dir();
    tree.write(dir.path());
    let mut records = record_opening(dir.path(), case.kind);
    let mut sim = Sim::holding(tree);
    let mut seen = HashSet::new();
    let mut num_disks = 0;
    for (at, record) in records.drain(..).enumerate() {
        sim.apply(&record);
        steps.note(&record);
        let reached = Reached::any(random);
        let tree = sim.lose_power(reached, random);
        if seen.insert((tree.digest(), steps.acknowledged)) {
            let context = || format!("recovery: operation={at} {reached:?} record={record:.200?}");
            watch(context, || check_tree(&tree, case.kind, models, steps));
            num_disks += 1;
        }
    }
    num_disks
}

fn record_opening(root: &Path, kind: Kind) -> Vec<Record> {
    let recorder = Arc::new(Recorder::new(root));
    let observed = observe(root, Arc::clone(&recorder) as _);
    let store = Store::open(root.join(STORE), kind.options()).unwrap();
    recorder.tell(Event::Acknowledged(step_of(&store)));
    drop(store);
    drop(observed);
    recorder.take()
}

/// Says where it was when something inside panics.
pub(crate) fn watch<T>(context: impl Fn() -> String, action: impl FnOnce() -> T) -> T {
    struct Says<F: Fn() -> String>(F);
    impl<F: Fn() -> String> Drop for Says<F> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "in: {}", (self.0)());
            }
        }
    }
    let says = Says(context);
    let result = action();
    drop(says);
    result
}
