//! Patterns, directories and paths that a user typed -> the files they stand for.

use super::Format;
use crate::{Error, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files that `patterns` stand for, in order.
///
/// A pattern is, in this order of preference: `-` (standard input), a file that exists, a directory
/// (all files in it that have an extension of a known format, by name; subdirectories, hidden names
/// and names that end in `~` or `.tmp` are left out), or a glob (`*`, `?`, `[...]`, `**`; its
/// matches by name).
/// A file that two patterns name is given twice.
///
/// # Errors
/// `NotFound`, naming the pattern, when one stands for nothing; `Invalid` for a malformed glob;
/// `Unavailable` for a directory that cannot be read.
pub fn expand(patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for pattern in patterns {
        expand_one(pattern, &mut paths)?;
    }
    Ok(paths)
}

fn expand_one(pattern: &str, paths: &mut Vec<PathBuf>) -> Result<()> {
    let path = Path::new(pattern);
    if pattern == "-" {
        paths.push(path.to_path_buf());
        return Ok(());
    }
    if let Ok(metadata) = fs::metadata(path) {
        if metadata.is_dir() {
            return expand_directory(path, paths);
        }
        paths.push(path.to_path_buf());
        return Ok(());
    }
    if !pattern.contains(['*', '?', '[']) {
        return Err(Error::not_found(format!(
            "no such file or directory: path=`{pattern}`"
        )));
    }
    let matches = glob::glob_with(
        pattern,
        // As a shell does: `*` stays within a directory and leaves hidden files out.
        glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        },
    )
    .map_err(|error| {
        Error::invalid(format!("malformed pattern: pattern=`{pattern}`")).with_source(error)
    })?;
    let mut found = Vec::new();
    for entry in matches {
        let path = entry.map_err(|error| {
            let action = format!("cannot read `{}`", error.path().display());
            Error::io(action, error.into())
        })?;
        if !path.is_dir() && !is_left_out(&path) {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::not_found(format!(
            "no file matches the pattern: pattern=`{pattern}`"
        )));
    }
    found.sort();
    paths.append(&mut found);
    Ok(())
}

fn expand_directory(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = |error| Error::io(format!("cannot read `{}`", directory.display()), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if !is_left_out(&path) && known_format(&path) && !path.is_dir() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::not_found(format!(
            "the directory holds no file of a known format: path=`{}`, extensions=`{}`",
            directory.display(),
            super::KNOWN_EXTENSIONS
        )));
    }
    found.sort();
    paths.append(&mut found);
    Ok(())
}

/// Hidden files, editors' copies and unfinished output are nobody's input.
fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.as_ref();
    name.starts_with('.')
        || name.ends_with('~')
        || path.extension().is_some_and(|extension| extension == "tmp")
}

fn known_format(path: &Path) -> bool {
    format_of(path).is_some()
}

/// The format that a path's extension stands for, looking through `.gz` and `.zst`.
pub fn format_of(path: &Path) -> Option<Format> {
    let extension = path.extension()?.to_str()?;
    if matches!(extension.to_ascii_lowercase().as_str(), "gz" | "zst") {
        let inner = Path::new(path.file_stem()?).extension()?.to_str()?;
        return Format::from_extension(inner).filter(|format| format.is_text());
    }
    Format::from_extension(extension)
}
