//! The job file.
//!
//! ```toml
//! store = "out/store"
//!
//! [dimension.airports]
//! from = "airports.csv"
//! key = "faa"
//! null = "NA"
//!
//! [enrich.flights]
//! from = "${FLIGHTS:-flights.parquet}"
//! join = ["airports as origin_airport on origin = faa select name as origin_name"]
//! to = "out/flights.parquet"
//!
//! [view.delays]
//! query = "SELECT carrier, avg(dep_delay) AS delay FROM flights GROUP BY carrier"
//!
//! [check.known]
//! query = "SELECT * FROM flights WHERE origin_name IS NULL"
//!
//! [summary.by_airport]
//! query = "SELECT origin_name, count(*) AS flights FROM flights GROUP BY origin_name"
//! ```
//!
//! Paths are relative to the job file. Steps are done in the order of [`super::order`]. A field that is not known is an
//! error with the nearest name.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use darner_engine::{Error, Result};
use darner_sql::with_files;
use serde::Deserialize;

use super::{
    order::normal,
    step::{DimensionStep, EnrichStep, OneOrMore, QuestionStep, Steps, ViewStep},
    variables::{self, Setting},
};
use crate::{
    context::no_remote_store,
    storage::{is_url, shown},
};

/// A whole job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// The job file.
    #[serde(skip)]
    pub(crate) file: PathBuf,
    /// The directory of the job file.
    #[serde(skip)]
    dir: PathBuf,
    pub(crate) store: PathBuf,
    #[serde(default)]
    pub(crate) dimension: Steps<DimensionStep>,
    #[serde(default)]
    pub(crate) enrich: Steps<EnrichStep>,
    #[serde(default)]
    pub(crate) view: Steps<ViewStep>,
    #[serde(default)]
    pub(crate) check: Steps<QuestionStep>,
    #[serde(default)]
    pub(crate) summary: Steps<QuestionStep>,
}

impl Job {
    /// Reads a job file, and puts settings and variables in.
    pub(crate) fn read(path: &Path, settings: &[Setting]) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::io(format!("cannot read job `{}`", path.display()), error))?;
        let job: Self = variables::read(path, &text, settings)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let job = Self {
            file: path.to_owned(),
            dir: dir.unwrap_or(Path::new("")).to_owned(),
            ..job
        };
        job.validate()
            .map_err(|error| error.context(path.display()))?;
        Ok(job)
    }

    /// Refuses what contradicts itself.
    fn validate(&self) -> Result<()> {
        if is_url(&self.store) {
            return Err(no_remote_store(&self.store));
        }
        for (name, step) in &self.enrich.0 {
            step.validate()
                .map_err(|error| error.context(format!("enrich {name}")))?;
        }
        let dimensions = self.dimension.0.iter().map(|(name, _)| ("dimension", name));
        let enrichments = self.enrich.0.iter().map(|(name, _)| ("enrichment", name));
        let views = self.view.0.iter().map(|(name, _)| ("view", name));
        let mut kinds: HashMap<&str, &str> = HashMap::new();
        for (kind, name) in dimensions.chain(enrichments).chain(views) {
            if let Some(other) = kinds.insert(name, kind) {
                return Err(Error::invalid(format!(
                    "steps have one name, so that SQL could not tell them apart: name=`{name}` kinds=`{other}, {kind}`"
                )));
            }
        }
        let mut writers: HashMap<PathBuf, &str> = HashMap::new();
        for (name, step) in &self.enrich.0 {
            for output in step.outputs() {
                if let Some(other) = writers.insert(normal(&self.path(output)), name) {
                    return Err(Error::invalid(format!(
                        "two outputs are one file: enrich=`{other}` enrich=`{name}` file=`{}`",
                        shown(output)
                    )));
                }
            }
        }
        Ok(())
    }

    /// The directory of the job file, from where the program runs.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path of the job file, from where the program runs.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        if is_url(path) {
            return path.to_owned();
        }
        self.dir.join(path)
    }

    /// The query of a view, with the names and paths of the job file as paths from where the program runs. A name for which
    /// `is_left` stays.
    pub(crate) fn view_query(
        &self,
        step: &ViewStep,
        is_left: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let outputs = self.enrich.0.iter().filter(|(name, _)| !is_left(name));
        let files: Vec<(String, PathBuf)> = outputs
            .map(|(name, step)| (name.clone(), self.path(&step.to)))
            .collect();
        with_files(&step.query, &self.dir, &files)
    }

    /// File patterns of the job file, from where the program runs.
    pub(crate) fn patterns(&self, patterns: &OneOrMore) -> Result<Vec<String>> {
        patterns
            .to_vec()
            .iter()
            .map(|pattern| {
                self.path(Path::new(pattern))
                    .into_os_string()
                    .into_string()
                    .map_err(|path| {
                        Error::invalid(format!("path is not UTF-8: path=`{}`", path.display()))
                    })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Job> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.toml");
        std::fs::write(&path, text).unwrap();
        Job::read(&path, &[])
    }

    #[test]
    fn steps_keep_their_order() {
        let job = read(
            "store = 's'\n[dimension.z]\nfrom = 'z.csv'\nkey = 'k'\n\
             [dimension.a]\nfrom = ['a.csv']\nkey = ['k', 'l']\n",
        )
        .unwrap();
        let names: Vec<_> = job
            .dimension
            .0
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["z", "a"]);
        assert_eq!(job.dimension.0[1].1.key.to_vec(), ["k", "l"]);
    }

    #[test]
    fn an_unknown_field_is_an_error_with_the_nearest_name_and_the_line() {
        let error = read("store = 's'\n[dimension.a]\nfrom = 'a.csv'\nkye = 'k'\n").unwrap_err();
        let text = error.to_string();
        for words in [
            "job.toml",
            "line 4",
            "unknown field `kye`",
            "did you mean `key`?",
        ] {
            assert!(text.contains(words), "{text} lacks {words}");
        }
        let text = read("stoer = 's'").unwrap_err().to_string();
        assert!(text.contains("did you mean `store`?"), "{text}");
        let step = "store = 's'\n[dimension.a]\nfrom = 'a.csv'\nkey = 'k'\nmode = 'replase'\n";
        let text = read(step).unwrap_err().to_string();
        assert!(text.contains("did you mean `replace`?"), "{text}");
        let step = "store = 's'\n[dimension.a]\nfrom = 3\nkey = 'k'\n";
        let text = read(step).unwrap_err().to_string();
        assert!(text.contains("a text or a list of texts"), "{text}");
    }

    #[test]
    fn two_outputs_are_never_one_file() {
        let step = |name: &str, to: &str| {
            format!("[enrich.{name}]\nfrom = 'f.csv'\njoin = 'a on k'\nto = '{to}'\n")
        };
        let job = format!(
            "store = 's'\n{}{}",
            step("a", "x.csv"),
            step("b", "d/../x.csv")
        );
        let text = read(&job).unwrap_err().to_string();
        assert!(text.contains("two outputs are one file"), "{text}");
    }
}
