//! File systems of our own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a program of the system, which must succeed.
pub(crate) fn system(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

/// A mounted file system, unmounted when this is dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts with the arguments that go before the directory.
    pub(crate) fn new(args: &[&str], dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let args = [args, &[dir.to_str().unwrap()]].concat();
        system("mount", &args);
        Self(dir.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let output = Command::new("umount").arg(&self.0).output();
        // In a panic the first one is what counts.
        if !std::thread::panicking() {
            assert!(
                output.is_ok_and(|output| output.status.success()),
                "cannot unmount"
            );
        }
    }
}
