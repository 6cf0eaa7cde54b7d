//! Files whose rows a view has counted, and those that it has not yet.

use std::{
    collections::HashSet,
    fs::{File, Metadata},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use darner_engine::{Error, ErrorKind, Result, expand};
use serde::{Deserialize, Serialize};

/// So much of a file's end tells it from others of its length: the footer of a Parquet or Arrow file, which has the place
/// of every page, or the last lines of a text.
const TAIL_BYTES: u64 = 64 << 10;

/// A file whose rows are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenFile {
    pub(crate) path: String,
    pub(crate) num_bytes: u64,
    modified_ns: u64,
    tail_crc: u32,
    /// It was named at a refresh, and need not be one that the query names.
    pub(crate) is_added: bool,
}

impl SeenFile {
    /// A file as it is, by its own path: another way to it, by a link or by `..`, is no other file.
    fn look(path: &Path, is_added: bool) -> Result<Self> {
        let path = &path
            .canonicalize()
            .map_err(|error| Error::io(format!("cannot look at `{}`", path.display()), error))?;
        let text = path.to_str().ok_or_else(|| {
            Error::invalid(format!("path is not UTF-8: path=`{}`", path.display()))
        })?;
        let metadata = metadata(path)?;
        Ok(Self {
            path: text.to_owned(),
            num_bytes: metadata.len(),
            modified_ns: modified_ns(&metadata),
            tail_crc: tail_crc(path, metadata.len())?,
            is_added,
        })
    }

    /// Fails unless the file is as it was. Its time may be another, if its length and its end are not.
    fn check(&mut self, view: &str) -> Result<()> {
        let path = Path::new(&self.path);
        let remedy = "rebuild the view (`darner view refresh --rebuild`, REFRESH MATERIALIZED VIEW ... REBUILD)";
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(
                    ErrorKind::Data,
                    format!(
                        "{view}: a file whose rows are counted is gone: file=`{}`; bring it back, or {remedy}",
                        self.path
                    ),
                ));
            }
            Err(error) => {
                return Err(Error::io(format!("cannot look at `{}`", self.path), error));
            }
        };
        let modified_ns = modified_ns(&metadata);
        if (metadata.len(), modified_ns) == (self.num_bytes, self.modified_ns) {
            return Ok(());
        }
        if metadata.len() == self.num_bytes && tail_crc(path, metadata.len())? == self.tail_crc {
            self.modified_ns = modified_ns;
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Data,
            format!(
                "{view}: a file whose rows are counted has changed: file=`{}` bytes=`{}` bytes_now=`{}`; bring the old \
                 one back, or {remedy}",
                self.path,
                self.num_bytes,
                metadata.len()
            ),
        ))
    }

    /// Fails if the file has changed while it was read.
    pub(crate) fn check_still(&self) -> Result<()> {
        let metadata = metadata(Path::new(&self.path))?;
        if (metadata.len(), modified_ns(&metadata)) == (self.num_bytes, self.modified_ns) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "file has changed while it was read: file=`{}`; refresh again once it is whole, and give files their \
                 names when they are",
                self.path
            ),
        ))
    }
}

/// What files a refresh looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'p> {
    /// Those that the query names.
    Query(&'p str),
    /// Those that were named at the refresh.
    Named(&'p [String]),
}

/// Finds the files that are not counted yet, and checks that those that are have not changed.
pub(crate) fn new_files(
    view: &str,
    look: Look<'_>,
    seen: &mut [SeenFile],
) -> Result<Vec<SeenFile>> {
    check_all(view, seen)?;
    let known: HashSet<&str> = seen.iter().map(|file| file.path.as_str()).collect();
    let (paths, is_added) = match look {
        Look::Query(pattern) => (files_of(pattern, !known.is_empty())?, false),
        Look::Named(patterns) => (expand(patterns)?, true),
    };
    let mut files: Vec<SeenFile> = Vec::new();
    for path in paths {
        let file = SeenFile::look(&path, is_added)?;
        if !known.contains(&*file.path) && files.iter().all(|other| other.path != file.path) {
            files.push(file);
        }
    }
    Ok(files)
}

/// Fails, naming the file, if one whose rows are counted is not as it was.
pub(crate) fn check_all(view: &str, seen: &mut [SeenFile]) -> Result<()> {
    seen.iter_mut().try_for_each(|file| file.check(view))
}

/// All files of a view, as they are now: those of the query, and those that were added and are still there.
pub(crate) fn all_files(view: &str, pattern: &str, seen: &[SeenFile]) -> Result<Vec<SeenFile>> {
    let mut files: Vec<SeenFile> = Vec::new();
    let added = seen.iter().filter(|file| file.is_added);
    let added: Vec<&SeenFile> = added.collect();
    for path in files_of(pattern, !added.is_empty())? {
        files.push(SeenFile::look(&path, false)?);
    }
    for file in added {
        if files.iter().any(|known| known.path == file.path) {
            continue;
        }
        let again = SeenFile::look(Path::new(&file.path), true);
        files.push(again.map_err(|error| {
            error.context(format!(
                "{view}: a file that was added at a refresh cannot be read again; bring it back, or drop the view"
            ))
        })?);
    }
    Ok(files)
}

/// The files of a pattern. There may be none if some were there before, or others are.
fn files_of(pattern: &str, may_be_none: bool) -> Result<Vec<PathBuf>> {
    match expand(&[pattern.to_owned()]) {
        Err(error) if error.kind() == ErrorKind::NotFound && may_be_none => Ok(Vec::new()),
        files => files,
    }
}

fn metadata(path: &Path) -> Result<Metadata> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| Error::io(format!("cannot look at `{}`", path.display()), error))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!(
            "a view counts files, which can be looked at again: path=`{}`",
            path.display()
        )));
    }
    Ok(metadata)
}

fn modified_ns(metadata: &Metadata) -> u64 {
    let modified = metadata.modified().ok();
    let age = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
}

fn tail_crc(path: &Path, num_bytes: u64) -> Result<u32> {
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(num_bytes.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(crc32c::crc32c(&tail))
    };
    read().map_err(|error| Error::io(format!("cannot read `{}`", path.display()), error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_new_once_and_must_stay() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let pattern = place("*.csv").to_str().unwrap().to_owned();
        let error = new_files("v", Look::Query(&pattern), &mut []).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        fs::write(place("a.csv"), "a\n1\n").unwrap();
        let mut seen = new_files("v", Look::Query(&pattern), &mut []).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(
            new_files("v", Look::Query(&pattern), &mut seen).unwrap(),
            []
        );
        fs::write(place("b.csv"), "a\n2\n").unwrap();
        let new = new_files("v", Look::Query(&pattern), &mut seen).unwrap();
        assert!(new.len() == 1 && new[0].path.ends_with("b.csv"));
        // Written again, as it was.
        let file = File::options().append(true).open(place("a.csv")).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(7);
        file.set_modified(later).unwrap();
        assert_eq!(
            new_files("v", Look::Query(&pattern), &mut seen)
                .unwrap()
                .len(),
            1
        );
        // Another of the same length.
        fs::write(place("a.csv"), "a\n3\n").unwrap();
        let error = new_files("v", Look::Query(&pattern), &mut seen).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("a.csv"), "{error}");
        fs::remove_file(place("a.csv")).unwrap();
        let error = new_files("v", Look::Query(&pattern), &mut seen).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        // Started over, there is only what is there.
        assert_eq!(all_files("v", &pattern, &seen).unwrap().len(), 1);
    }
}
