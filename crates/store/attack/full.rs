//! A file system that is full, and one that cannot be written.

use std::{io::Write, path::Path};

use darner_store::{ErrorKind, Store};

use crate::{
    is_root,
    mount::Mount,
    support::{
        damage::check_untouched,
        work::{Event, Kind, Work, check_store},
    },
};

const BALLAST_BYTES: usize = 2 << 20;

/// Works until the disk is full, reads, makes room, and goes on.
pub(crate) fn run(seed: u64, kind: Kind) -> String {
    assert!(
        is_root(),
        "this attack mounts a file system: run it as root"
    );
    let dir = tempfile::tempdir().unwrap();
    // Of several sizes, so that another write is the one that fails.
    let size = format!("size={}k", 6000 + 4 * (seed * 37 % 250));
    let mount = Mount::new(
        &["-t", "tmpfs", "-o", &size, "tmpfs"],
        &dir.path().join("small"),
    );
    let ballast = mount.path().join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let store_dir = mount.path().join("store");
    let mut work = Work::new(&store_dir, kind, seed, seed);
    let (mut acknowledged, mut attempted) = (0, 0);
    let mut tell = |event| match event {
        Event::Attempted(step) => attempted = step,
        Event::Acknowledged(step) => acknowledged = step,
    };
    let mut errors = Vec::new();
    for _ in 0..60 {
        if let Err(error) = work.act(&mut tell) {
            errors.push(error);
        }
    }
    // Whatever room is left goes too, bit by bit.
    fill(&mount.path().join("more"));
    for _ in 0..200 {
        if let Err(error) = work.act(&mut tell) {
            errors.push(error);
            break;
        }
    }
    work.store = None;
    fill(&mount.path().join("yet more"));
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let text = format!("{error:?}");
        assert!(text.contains(mount.path().to_str().unwrap()), "{text}");
    }
    assert!(!errors.is_empty(), "the disk was never full");
    let bound = dir.path().join("read-only");
    let read_only = Mount::new(
        &["--bind", "-o", "ro", mount.path().to_str().unwrap()],
        &bound,
    );
    check_untouched(&store_dir, &mut work.models, kind);
    check_untouched(&bound.join("store"), &mut work.models, kind);
    let refused = Store::open(bound.join("store"), kind.options());
    assert_eq!(
        refused.map(|_| ()).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    drop(read_only);
    for file in ["ballast", "more", "yet more"] {
        std::fs::remove_file(mount.path().join(file)).unwrap();
    }
    let range = (acknowledged, attempted.max(acknowledged));
    check_store(&store_dir, kind, &mut work.models, range);
    let num_errors = errors.len();
    format!("{num_errors} clear errors, {acknowledged} steps kept ({size})")
}

/// Writes a file until nothing more fits.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}
