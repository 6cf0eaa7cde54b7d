//! Flipped bits, cut files, and readers that leave a store as it is.

use crate::support::{
    damage::{Sample, check_untouched},
    faults::walk,
    power::watch,
    random::Random,
    work::{Kind, Models, Work, fast_dir},
};

#[test]
fn damage_is_an_error_that_names_the_file_or_changes_nothing() {
    let seed = Random::seed(8);
    let report = watch(
        || format!("DARNER_SEED={seed}"),
        || Sample::new(seed).check_some(8, &mut Random::new(seed)),
    );
    assert!(report.num_errors > 100, "{report:?}");
}

#[test]
fn reading_everything_leaves_every_byte_and_time_as_it_was() {
    for kind in Kind::all() {
        let dir = fast_dir();
        let mut work = Work::new(&dir.path().join("store"), kind, 9, 9);
        for _ in 0..12 {
            work.act(&mut |_| {}).unwrap();
        }
        // Also while a writer has it open.
        check_untouched(&work.dir, &mut Models::new(9), kind);
        work.store = None;
        check_untouched(&work.dir, &mut Models::new(9), kind);
    }
}

/// Tonbo opens what it reads for appending, so that a store that could not be written could not be read either. Root may
/// write whatever the mode says, and sees this on a read-only file system alone: `attack full`.
#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = fast_dir();
    let mut work = Work::new(&dir.path().join("store"), Kind::Mixed, 10, 10);
    for _ in 0..16 {
        work.act(&mut |_| {}).unwrap();
    }
    work.store = None;
    let modes = |file, dir| {
        for (path, is_dir) in walk(&work.dir) {
            let mode = if is_dir { dir } else { file };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    modes(0o400, 0o500);
    check_untouched(&work.dir, &mut Models::new(10), Kind::Mixed);
    // So that the directory can be removed.
    modes(0o600, 0o700);
}
