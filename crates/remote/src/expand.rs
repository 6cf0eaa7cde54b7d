//! URLs and patterns -> the files they stand for, as [`darner_engine::expand`] does for local ones.

use std::path::{Path, PathBuf};

use darner_engine::{Error, Result, format_of};
use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::{ObjectMeta, path::Path as Key};

use crate::{
    client::Client,
    error::failed,
    url::{GLOB, Kind, Location, shown},
};

/// As a shell does: `*` stays within a directory and leaves hidden files out.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

impl Client {
    /// The files that a URL stands for, by name: a file, all files of a known format directly in a directory
    /// (`s3://bucket/in/`), or a pattern (`*`, `?`, `[...]`, `**`) of an object store. An address of a web server, which
    /// has no listing, is taken as it is; its file is asked for when it is read.
    ///
    /// # Errors
    /// `NotFound`, naming the URL, when it stands for nothing; `Invalid` for a malformed one, or a pattern of a web
    /// server; `Unavailable` when the server cannot be asked.
    pub fn expand(&self, url: &str) -> Result<Vec<PathBuf>> {
        let path = Path::new(url);
        let location = Location::parse(path)?;
        if location.kind == Kind::Http {
            // `?` begins the query of an address.
            if location.name.contains(['*', '[']) {
                return Err(Error::invalid(format!(
                    "a web server does not list its files, name them: url=`{}`",
                    shown(path)
                )));
            }
            return Ok(vec![path.to_path_buf()]);
        }
        if location.key.contains(GLOB) {
            return self.matches(&location);
        }
        let is_directory = location.key.is_empty() || location.key.ends_with('/');
        if !is_directory && let Some(meta) = self.head(&location)? {
            self.remember(url.to_owned(), &meta);
            return Ok(vec![path.to_path_buf()]);
        }
        let found = self.list(&location, location.key.trim_end_matches('/'), true)?;
        if found.is_empty() {
            return Err(Error::not_found(format!(
                "no such file or directory: url=`{}`",
                shown(path)
            )));
        }
        let is_known = |(key, _): &(String, ObjectMeta)| {
            !is_left_out(key) && format_of(Path::new(key)).is_some()
        };
        self.name(
            &location,
            found.into_iter().filter(is_known),
            "the directory holds no file of a known format",
        )
    }

    /// Learns what is in a directory and those inside it, for the next [`stat`](Self::stat) of each file.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be asked. Web servers are not asked.
    pub fn survey(&self, directory: &Path) -> Result<()> {
        let location = Location::parse(directory)?;
        // A whole bucket is no directory that was made for this.
        if location.kind == Kind::Http || location.key.is_empty() {
            return Ok(());
        }
        let found = self.list(&location, location.key.trim_end_matches('/'), false)?;
        for (key, meta) in found {
            self.remember(location.with_key(&key), &meta);
        }
        Ok(())
    }

    fn matches(&self, location: &Location) -> Result<Vec<PathBuf>> {
        let pattern = Pattern::new(&location.key).map_err(|error| {
            let url = location.with_key(&location.key);
            Error::invalid(format!("malformed pattern: pattern=`{url}`")).with_source(error)
        })?;
        // All that can match begins with what stands before the first directory with a sign of a pattern.
        let fixed = location.key.find(GLOB).unwrap_or(location.key.len());
        let directory = location.key[..fixed].rfind('/').unwrap_or(0);
        let in_one = !location.key[directory..]
            .trim_start_matches('/')
            .contains('/');
        let found = self.list(location, &location.key[..directory], in_one)?;
        // What some tools put in the place of a directory is no file.
        let is_marker =
            |key: &str, meta: &ObjectMeta| meta.size == 0 && Path::new(key).extension().is_none();
        let is_match = |(key, meta): &(String, ObjectMeta)| {
            pattern.matches_with(key, MATCH) && !is_left_out(key) && !is_marker(key, meta)
        };
        self.name(
            location,
            found.into_iter().filter(is_match),
            "no file matches the pattern",
        )
    }

    /// All that is in a directory, or also in those inside it.
    fn list(
        &self,
        location: &Location,
        directory: &str,
        in_one: bool,
    ) -> Result<Vec<(String, ObjectMeta)>> {
        let store = self.store(location)?;
        let prefix = (!directory.is_empty())
            .then(|| {
                let directory = Location {
                    key: directory.to_owned(),
                    ..location.clone()
                };
                directory.key()
            })
            .transpose()?;
        let list = async move {
            let prefix = prefix.as_ref();
            if in_one {
                let found = store.list_with_delimiter(prefix).await?;
                return Ok(found.objects);
            }
            store.list(prefix).try_collect::<Vec<ObjectMeta>>().await
        };
        let found = self.wait(list)?.map_err(|error| {
            // A place that has nothing of this name lists nothing; what is missing is the place.
            if error.to_string().contains("404 Not Found") {
                let place = &location.place;
                return Error::not_found(format!("there is no such bucket: url=`{place}`"));
            }
            failed("cannot list", &location.shown(), location.kind, &error)
        })?;
        let key = |meta: &ObjectMeta| Key::as_ref(&meta.location).to_owned();
        Ok(found.into_iter().map(|meta| (key(&meta), meta)).collect())
    }

    /// The URLs of files, by name.
    fn name(
        &self,
        location: &Location,
        found: impl Iterator<Item = (String, ObjectMeta)>,
        nothing: &str,
    ) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (key, meta) in found {
            let url = location.with_key(&key);
            self.remember(url.clone(), &meta);
            paths.push(PathBuf::from(url));
        }
        if paths.is_empty() {
            let url = location.with_key(&location.key);
            return Err(Error::not_found(format!("{nothing}: url=`{url}`")));
        }
        paths.sort();
        Ok(paths)
    }
}

/// Hidden files, editors' copies and unfinished output are nobody's input.
fn is_left_out(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.is_empty()
        || name.starts_with('.')
        || name.ends_with('~')
        || Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "tmp")
}
