//! What is finished in an output directory: `.darner-manifest`.
//!
//! One JSON object a line: the first names the format, each other one an input whose files are all there, or one whose
//! files were removed. A line is appended, and brought to disk, after the files that it tells of; so a run that was
//! killed leaves at most files that no line tells of, which the next run makes again. The last line may be cut off.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use darner_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::{
    fingerprint::Fingerprint,
    report::Report,
    storage::{is_url, read_file, write_file},
};

/// Hidden, so that nobody who reads the directory takes it for data.
const FILE_NAME: &str = ".darner-manifest";

/// An object store has no appending: the whole manifest is written each time, so not more often than this. What is not
/// in it yet when a run is killed is made again.
const REMOTE_PAUSE: Duration = Duration::from_secs(2);

/// The version of the format.
const FORMAT: u32 = 1;

/// What was made of one input.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Entry {
    /// The name of the input in the directory, without its extension.
    pub(super) name: String,
    pub(super) input: Fingerprint,
    /// What of the step decides about the content of files.
    pub(super) step: String,
    /// The versions of the joined tables, in order.
    pub(super) versions: Vec<u64>,
    /// The files, relative to the directory, and what they were.
    pub(super) files: Vec<(PathBuf, Fingerprint)>,
    /// Where the routed and unmatched rows are, if they are kept.
    pub(super) unmatched: Option<Fingerprint>,
    /// Files of the input as it was before, that are not among these: about to be removed.
    pub(super) stale: Vec<PathBuf>,
    pub(super) report: Report,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    DarnerManifest(u32),
    Done(Box<Entry>),
    Removed(String),
}

/// The manifest of a directory.
pub(super) struct Manifest {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// Open for appending once something was added.
    file: Option<File>,
    /// Whether the file is to be written anew before something is added: it is missing, cut off, or has old lines.
    is_clean: bool,
    /// Whether a remote manifest lacks what was added, and when it was written.
    is_behind: bool,
    written: Option<Instant>,
}

impl Manifest {
    /// Reads the manifest of a directory, which may have none.
    ///
    /// # Errors
    /// `Data` for one that is damaged, with the line and what to do.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let mut manifest = Self {
            path,
            entries: BTreeMap::new(),
            file: None,
            is_clean: false,
            is_behind: false,
            written: None,
        };
        let Some(text) = read_file(&manifest.path)? else {
            return Ok(manifest);
        };
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        manifest.is_clean = whole == text.len() && whole > 0;
        for (idx, line) in text[..whole].split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let damaged = |what: &str| {
                Error::data(format!(
                    "{}: line {}: {what}; remove the file to make all outputs of the directory again",
                    manifest.path.display(),
                    idx + 1
                ))
            };
            let line: Line = serde_json::from_slice(line)
                .map_err(|error| damaged("damaged, or of a newer version").with_source(error))?;
            match line {
                Line::DarnerManifest(FORMAT) if idx == 0 => {}
                Line::DarnerManifest(_) => return Err(damaged("of a format that is not known")),
                Line::Done(entry) => {
                    let all = entry.files.iter().map(|(path, _)| path).chain(&entry.stale);
                    for path in all {
                        if !is_inside(path) {
                            return Err(damaged("names a file outside of the directory"));
                        }
                    }
                    manifest.is_clean &= !manifest.entries.contains_key(&entry.name);
                    manifest.entries.insert(entry.name.clone(), *entry);
                }
                Line::Removed(name) => {
                    manifest.is_clean = false;
                    manifest.entries.remove(&name);
                }
            }
        }
        Ok(manifest)
    }

    pub(super) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Remembers that an input is done, durably.
    pub(super) fn add(&mut self, entry: Entry) -> Result<()> {
        if is_url(&self.path) {
            self.entries.insert(entry.name.clone(), entry);
            return self.write_later();
        }
        let name = entry.name.clone();
        self.append(&Line::Done(Box::new(entry.clone())))?;
        self.entries.insert(name, entry);
        Ok(())
    }

    /// Forgets an input, durably.
    pub(super) fn remove(&mut self, name: &str) -> Result<()> {
        if is_url(&self.path) {
            self.entries.remove(name);
            return self.write_later();
        }
        self.append(&Line::Removed(name.to_owned()))?;
        self.entries.remove(name);
        Ok(())
    }

    /// Forgets files that were to be removed, which they are now.
    pub(super) fn forget_stale(&mut self) -> Result<()> {
        if self.entries.values().all(|entry| entry.stale.is_empty()) {
            return Ok(());
        }
        for entry in self.entries.values_mut() {
            entry.stale.clear();
        }
        self.file = None;
        self.rewrite()
    }

    /// Brings to the place of the manifest what it does not have yet. Nothing waits where files can be appended to.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.is_behind {
            self.rewrite()?;
            self.is_behind = false;
            self.written = Some(Instant::now());
        }
        Ok(())
    }

    fn write_later(&mut self) -> Result<()> {
        self.is_behind = true;
        let is_early = self
            .written
            .is_some_and(|written| written.elapsed() < REMOTE_PAUSE);
        if is_early { Ok(()) } else { self.flush() }
    }

    fn append(&mut self, line: &Line) -> Result<()> {
        let cannot =
            |path: &Path, error| Error::io(format!("cannot write `{}`", path.display()), error);
        if self.file.is_none() {
            if !self.is_clean {
                self.rewrite()?;
            }
            let file = OpenOptions::new().append(true).open(&self.path);
            self.file = Some(file.map_err(|error| cannot(&self.path, error))?);
        }
        let bytes = encode(line)?;
        if let Some(file) = &mut self.file {
            file.write_all(&bytes)
                .and_then(|()| file.sync_data())
                .map_err(|error| cannot(&self.path, error))?;
        }
        Ok(())
    }

    /// Writes what counts, in one step.
    fn rewrite(&mut self) -> Result<()> {
        let mut bytes = encode(&Line::DarnerManifest(FORMAT))?;
        for entry in self.entries.values() {
            bytes.extend(encode(&Line::Done(Box::new(entry.clone())))?);
        }
        write_file(&self.path, &bytes)?;
        self.is_clean = true;
        Ok(())
    }
}

fn encode(line: &Line) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)
        .map_err(|error| Error::internal("a manifest cannot be encoded").with_source(error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Whether a relative path stays where it is joined to.
fn is_inside(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_)))
        && path.components().next().is_some()
}
