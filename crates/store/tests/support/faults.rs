//! Disks that fail: each operation in turn, once or for good.

use std::{
    io::Error as IoError,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use darner_store::{
    Error, ErrorKind, Store,
    testing::{Observer, Op, observe},
};

use super::{
    power::watch,
    work::{Event, Kind, Models, NOW_US, Work, check_found, contents, fast_dir},
    workload::{check, step_of},
};

/// What the system says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errno {
    NoSpace,
    Io,
    Access,
}

impl Errno {
    pub(crate) const ALL: [Self; 3] = [Self::NoSpace, Self::Io, Self::Access];

    fn error(self) -> IoError {
        // The numbers that Linux has for them.
        IoError::from_raw_os_error(match self {
            Self::NoSpace => 28,
            Self::Io => 5,
            Self::Access => 13,
        })
    }
}

/// Which operations fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The first that fails, counted from 0.
    pub(crate) at: u64,
    /// Whether all that follow fail too.
    pub(crate) for_good: bool,
    pub(crate) errno: Errno,
}

/// Lets operations fail. A write that fails has written half of its bytes.
struct Faults {
    fault: Fault,
    num_ops: AtomicU64,
}

impl Faults {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            num_ops: AtomicU64::new(0),
        })
    }

    /// Whether an operation has failed.
    fn has_struck(&self) -> bool {
        self.num_ops.load(Ordering::Relaxed) > self.fault.at
    }
}

impl Observer for Faults {
    fn before(&self, op: &Op<'_>) -> std::io::Result<()> {
        let number = self.num_ops.fetch_add(1, Ordering::Relaxed);
        let fails = if self.fault.for_good {
            number >= self.fault.at
        } else {
            number == self.fault.at
        };
        if !fails {
            return Ok(());
        }
        if let Op::Write(path, at, bytes) = *op {
            let file = std::fs::OpenOptions::new().write(true).open(path)?;
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
        }
        Err(self.fault.errno.error())
    }

    fn after(&self, _op: &Op<'_>) {}
}

/// An error must say that the system refused, and where.
fn check_error(error: &Error, root: &Path) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let text = format!("{error:?}");
    assert!(text.contains(root.to_str().unwrap()), "no path: {text}");
}

/// Does work on a disk that fails; whatever happens, nothing is lost. Returns whether the fault was met.
pub(crate) fn run(kind: Kind, seed: u64, num_actions: u64, fault: Fault) -> bool {
    watch(
        || format!("{kind:?} seed={seed} {fault:?}"),
        || run_watched(kind, seed, num_actions, fault),
    )
}

fn run_watched(kind: Kind, seed: u64, num_actions: u64, fault: Fault) -> bool {
    /// Actions that are tried after the first error.
    const NUM_MORE: u64 = 3;
    let dir = fast_dir();
    let faults = Faults::new(fault);
    let observed = observe(dir.path(), Arc::clone(&faults) as _);
    let store_dir = dir.path().join("store");
    let mut work = Work::new(&store_dir, kind, seed, seed);
    let (mut acknowledged, mut attempted) = (0, 0);
    let mut num_left = num_actions;
    let mut has_failed = false;
    while num_left > 0 {
        num_left -= 1;
        let result = work.act(&mut |event| match event {
            Event::Attempted(step) => attempted = step,
            Event::Acknowledged(step) => acknowledged = step,
        });
        if let Err(error) = result {
            check_error(&error, dir.path());
            if !has_failed {
                has_failed = true;
                num_left = NUM_MORE;
            }
            if let Some(store) = work.store.as_ref().filter(|_| !fault.for_good) {
                // The store is still there to be read, and shows nothing of what failed.
                let step = step_of(store);
                assert_eq!(step, acknowledged, "a commit that failed is seen");
                check(store, work.models.at(step), NOW_US);
            }
        }
    }
    if seed.is_multiple_of(2) {
        work.store = None;
        drop(observed);
    } else {
        drop(observed);
        work.store = None;
    }
    let range = (acknowledged, attempted.max(acknowledged));
    check_found(&store_dir, kind, &mut work.models, range);
    faults.has_struck()
}

/// A store to open again and again.
pub(crate) struct Prepared {
    dir: tempfile::TempDir,
    kind: Kind,
    seed: u64,
    step: u64,
}

impl Prepared {
    pub(crate) fn new(kind: Kind, seed: u64, num_actions: u64) -> Self {
        let dir = fast_dir();
        let mut work = Work::new(&dir.path().join("store"), kind, seed, seed);
        let mut step = 0;
        for _ in 0..num_actions {
            let mut tell = |event| {
                if let Event::Acknowledged(acknowledged) = event {
                    step = acknowledged;
                }
            };
            work.act(&mut tell).unwrap();
        }
        drop(work);
        Self {
            dir,
            kind,
            seed,
            step,
        }
    }

    /// Opens a copy and reads everything while an operation fails. Returns whether the fault was met.
    pub(crate) fn open_with(&self, fault: Fault, read_only: bool) -> bool {
        watch(
            || format!("opening {:?} {read_only} {fault:?}", self.kind),
            || self.open_watched(fault, read_only),
        )
    }

    fn open_watched(&self, fault: Fault, read_only: bool) -> bool {
        let mut models = Models::new(self.seed);
        let dir = fast_dir();
        copy_dir(self.dir.path(), dir.path());
        let store_dir = dir.path().join("store");
        let faults = Faults::new(fault);
        let observed = observe(dir.path(), Arc::clone(&faults) as _);
        let options = self.kind.options();
        let opened = if read_only {
            Store::open_read_only_with(&store_dir, options)
        } else {
            Store::open(&store_dir, options)
        };
        match opened.and_then(|store| contents(&store).map(|found| (found, store))) {
            Err(error) => check_error(&error, dir.path()),
            Ok((found, store)) => {
                assert_eq!(found.step, self.step);
                check(&store, models.at(self.step), NOW_US);
            }
        }
        drop(observed);
        check_found(&store_dir, self.kind, &mut models, (self.step, self.step));
        faults.has_struck()
    }
}

/// Copies all files and directories below one directory to another.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    for (path, is_dir) in walk(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        if is_dir {
            std::fs::create_dir(target).unwrap();
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}

/// All below a directory, in order, and whether it is a directory.
pub(crate) fn walk(dir: &Path) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let is_dir = path.is_dir();
        found.push((path.clone(), is_dir));
        if is_dir {
            found.extend(walk(&path));
        }
    }
    found
}
