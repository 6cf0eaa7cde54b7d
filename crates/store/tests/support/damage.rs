//! Flipped bits and cut files: the right answer or an error that names the file, and nothing else.

use std::path::{Path, PathBuf};

use darner_store::{Error, ErrorKind, Result, Store};

use super::{
    faults::{copy_dir, walk},
    power::watch,
    random::Random,
    work::{Contents, Kind, Models, NOW_US, Work, contents, fast_dir},
    workload::{check, commit, step_of},
};

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    FlipBit(usize),
    CutAt(usize),
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DamageReport {
    pub(crate) num_errors: u64,
    pub(crate) num_right: u64,
}

/// A store with something in every kind of file: compacted, checkpointed, and in the log.
pub(crate) struct Sample {
    dir: tempfile::TempDir,
    whole: Contents,
}

impl Sample {
    pub(crate) fn new(seed: u64) -> Self {
        let dir = fast_dir();
        let mut work = Work::new(&dir.path().join("store"), Kind::Small, seed, seed);
        let act = |work: &mut Work, num: u64| {
            for _ in 0..num {
                work.act(&mut |_| {}).unwrap();
            }
        };
        act(&mut work, 13);
        let store = work.store.as_ref().unwrap();
        store.compact().unwrap();
        act(&mut work, 5);
        work.store.as_ref().unwrap().checkpoint().unwrap();
        act(&mut work, 4);
        let store = work.store.take().unwrap();
        check(&store, work.models.at(step_of(&store)), NOW_US);
        let whole = contents(&store).unwrap();
        drop(store);
        Self { dir, whole }
    }

    /// All files, with their lengths up to the zeros at the end.
    pub(crate) fn files(&self) -> Vec<(PathBuf, usize)> {
        let files = walk(self.dir.path()).into_iter();
        files
            .filter(|(path, is_dir)| !is_dir && !path.ends_with("LOCK"))
            .map(|(path, _)| {
                let bytes = std::fs::read(&path).unwrap();
                let used = bytes.iter().rposition(|byte| *byte != 0);
                (path, used.map_or(0, |last| last + 1))
            })
            .collect()
    }

    /// Damages a file of a copy and reads everything, without and with the right to write.
    pub(crate) fn check(&self, file: &Path, damage: Damage, report: &mut DamageReport) {
        watch(
            || format!("{damage:?} in {}", file.display()),
            || {
                let dir = fast_dir();
                copy_dir(self.dir.path(), dir.path());
                let file = dir.path().join(file.strip_prefix(self.dir.path()).unwrap());
                let mut bytes = std::fs::read(&file).unwrap();
                match damage {
                    Damage::FlipBit(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
                    Damage::CutAt(len) => bytes.truncate(len),
                }
                std::fs::write(&file, bytes).unwrap();
                let store_dir = dir.path().join("store");
                let options = Kind::Small.options();
                let reader = Store::open_read_only_with(&store_dir, options.clone());
                self.check_read(reader, &file, report);
                self.check_read(Store::open(&store_dir, options), &file, report);
            },
        );
    }

    fn check_read(&self, opened: Result<Store>, file: &Path, report: &mut DamageReport) {
        match opened.and_then(|store| contents(&store)) {
            Ok(found) => {
                assert!(found == self.whole, "a wrong answer: {found:?}");
                report.num_right += 1;
            }
            Err(error) => {
                check_error(&error, file);
                report.num_errors += 1;
            }
        }
    }

    /// Tries random places of all files alike.
    pub(crate) fn check_some(&self, num_per_file: u64, random: &mut Random) -> DamageReport {
        let mut report = DamageReport::default();
        for (file, used) in self.files() {
            let len = std::fs::metadata(&file).unwrap().len();
            for _ in 0..num_per_file {
                let bit = random.below(used as u64 * 8) as usize;
                self.check(&file, Damage::FlipBit(bit), &mut report);
            }
            for number in 0..num_per_file.div_ceil(4) {
                // Its end and its beginning are where a cut is easily missed.
                let at = match number {
                    0 => len - 1,
                    1 => 0,
                    _ => random.below(len),
                };
                self.check(&file, Damage::CutAt(at as usize), &mut report);
            }
        }
        report
    }
}

fn check_error(error: &Error, file: &Path) {
    assert_eq!(error.kind(), ErrorKind::Data, "{error:?}");
    let text = format!("{error:?}");
    // A wrong number in CURRENT shows as a manifest that is missing or does not fit.
    let is_named = text.contains(file.to_str().unwrap())
        || (file.ends_with("CURRENT") && text.contains("MANIFEST"));
    assert!(is_named, "the file is not named: {text}");
}

/// Reads a store and checks that each file, and each directory, is as it was, to the byte and the time.
pub(crate) fn check_untouched(dir: &Path, models: &mut Models, kind: Kind) {
    let listing = || -> Vec<_> {
        let mut paths = walk(dir);
        paths.push((dir.to_owned(), true));
        paths
            .into_iter()
            .map(|(path, is_dir)| {
                let modified = path.metadata().unwrap().modified().unwrap();
                let bytes = (!is_dir).then(|| std::fs::read(&path).unwrap());
                (path, modified, bytes)
            })
            .collect()
    };
    let before = listing();
    let store = Store::open_read_only_with(dir, kind.options()).unwrap();
    let found = contents(&store).unwrap();
    check(&store, models.at(found.step), NOW_US);
    assert!(commit_fails(&store));
    drop(store);
    assert!(listing() == before, "reading has changed the store");
}

fn commit_fails(store: &Store) -> bool {
    commit(store, 1, &[]).is_err()
}
