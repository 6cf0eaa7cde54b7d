//! A real file system that is cut off as by a loss of power, and mounted again.

use std::{fs::File, path::Path, time::Duration};

use rustix::ioctl::{Setter, ioctl, opcode};

use crate::{
    check_after, is_root,
    mount::{Mount, system},
    support::{
        kill::{Job, Worker, last_before, now_ns},
        random::Random,
        work::{Kind, Models, fast_dir},
    },
    worker,
};

const CYCLES_PER_SEED: u64 = 20;

/// How a file system ends: with its journal written out first, or without.
const LOG_FLUSH: u32 = 1;
const NO_LOG_FLUSH: u32 = 2;

/// Cuts off the file system that a directory is in.
#[expect(unsafe_code, reason = "rustix has no safe call for this ioctl")]
fn shut_down(dir: &Path, how: u32) {
    const FS_IOC_SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
    let file = File::open(dir).unwrap();
    // SAFETY: Linux defines this operation as one that reads a `u32` through its pointer and writes nothing.
    let request = unsafe { Setter::<FS_IOC_SHUTDOWN, u32>::new(how) };
    // SAFETY: as above; `file` is open, and the request lives for as long as the call.
    unsafe { ioctl(&file, request) }.unwrap();
}

/// Works, cuts, mounts and looks, again and again, on one store.
pub(crate) fn run(seed: u64, kind: Kind) -> String {
    assert!(
        is_root(),
        "this attack mounts a file system: run it as root"
    );
    let dir = fast_dir();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(192 << 20).unwrap();
    let image = image.to_str().unwrap();
    system("mkfs.ext4", &["-q", "-F", image]);
    let options = if seed.is_multiple_of(2) {
        "loop,noauto_da_alloc,data=writeback"
    } else {
        "loop"
    };
    let mounted = || Mount::new(&["-o", options, image], &dir.path().join("mounted"));
    let mut models = Models::new(seed);
    let mut random = Random::new(seed);
    let mut step = 0;
    // An fsync that ext4 is in the middle of when it is shut down may succeed although its work is not done: where the
    // power goes, nobody is left to hear of that. So what is acknowledged once the cut has begun may be missing.
    let mut num_late = 0;
    for number in 0..CYCLES_PER_SEED {
        let mount = mounted();
        let store = mount.path().join("store");
        let job = Job {
            dir: store.clone(),
            kind,
            seed,
            actions_seed: seed.wrapping_mul(1000) + number,
        };
        let mut child = Worker::start(worker(&job));
        let num_steps = random.below(10);
        child.wait(num_steps, Duration::from_micros(random.below(50_000)));
        let cut_ns = now_ns();
        shut_down(
            mount.path(),
            [LOG_FLUSH, NO_LOG_FLUSH][random.below(2) as usize],
        );
        let acknowledged = child.kill();
        drop(mount);
        let mount = mounted();
        let before = last_before(&acknowledged, cut_ns).max(step);
        let later = last_before(&acknowledged, u128::MAX).max(step);
        step = check_after(&store, kind, &mut models, before, later);
        num_late += u64::from(step <= later);
        drop(mount);
    }
    format!(
        "{CYCLES_PER_SEED} shutdowns ({options}), {step} steps, {num_late} acknowledged too late"
    )
}
