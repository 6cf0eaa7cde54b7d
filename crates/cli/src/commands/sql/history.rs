//! Where the prompt keeps what was typed.

use std::{
    ffi::OsString,
    fs::{DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use darner_engine::{Error, Result};

/// Only the owner may look: statements hold data.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The file for the history, made if it is not there. `None` if there is no home to keep it in.
///
/// # Errors
/// Those of making it.
pub(super) fn file() -> Result<Option<PathBuf>> {
    let Some(dir) = dir(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME")) else {
        return Ok(None);
    };
    let file = dir.join("sql_history");
    make(&file).map_err(|error| Error::io(format!("cannot make `{}`", file.display()), error))?;
    Ok(Some(file))
}

fn make(file: &Path) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(dir)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(file)?;
    Ok(())
}

/// The directory, by the XDG rules: a relative path counts as none.
fn dir(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let base = match state_home.and_then(absolute) {
        Some(base) => base,
        None => home.and_then(absolute)?.join(".local/state"),
    };
    Some(base.join("darner"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_history_has_its_place() {
        let check = |state: Option<&str>, home: Option<&str>, expected: Option<&str>| {
            let found = dir(state.map(Into::into), home.map(Into::into));
            assert_eq!(found, expected.map(PathBuf::from));
        };
        check(Some("/s"), Some("/h"), Some("/s/darner"));
        check(None, Some("/h"), Some("/h/.local/state/darner"));
        check(Some("s"), Some("/h"), Some("/h/.local/state/darner"));
        check(Some(""), None, None);
    }

    #[test]
    fn only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/history");
        make(&file).unwrap();
        make(&file).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), FILE_MODE);
        assert_eq!(mode(file.parent().unwrap()), DIR_MODE);
    }
}
