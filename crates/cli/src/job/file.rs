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
//! from = "flights.parquet"
//! join = ["airports as origin_airport on origin = faa select name as origin_name"]
//! to = "out/flights.parquet"
//!
//! [summary.by_airport]
//! query = "SELECT origin_name, count(*) AS flights FROM flights GROUP BY origin_name"
//! ```
//!
//! Paths are relative to the job file. Dimensions, enrichments and summaries are done in the order in which they
//! stand. A field that is not known is an error with the nearest name.

use std::{
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use darner_engine::{
    Encoding, Error, LoadMode, OnDuplicate, Result, SourceOptions, parse_data_type,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};

/// A whole job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// The directory of the job file.
    #[serde(skip)]
    pub(crate) dir: PathBuf,
    pub(crate) store: PathBuf,
    #[serde(default)]
    pub(crate) dimension: Steps<DimensionStep>,
    #[serde(default)]
    pub(crate) enrich: Steps<EnrichStep>,
    #[serde(default)]
    pub(crate) summary: Steps<SummaryStep>,
}

/// Named steps of one kind, in the order of the file.
#[derive(Debug)]
pub(crate) struct Steps<T>(pub(crate) Vec<(String, T)>);

/// A dimension table and the files that it comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DimensionStep {
    pub(crate) from: OneOrMore,
    pub(crate) key: OneOrMore,
    #[serde(default)]
    pub(crate) mode: ModeName,
    #[serde(default)]
    pub(crate) on_duplicate: OnDuplicateName,
    pub(crate) null: Option<OneOrMore>,
    pub(crate) delimiter: Option<char>,
    #[serde(default)]
    pub(crate) types: Vec<String>,
}

/// Facts, the dimensions that they are joined with, and the file that comes of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrichStep {
    pub(crate) from: OneOrMore,
    pub(crate) join: OneOrMore,
    pub(crate) to: PathBuf,
    pub(crate) select: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) encoding: EncodingName,
    pub(crate) unmatched: Option<PathBuf>,
    pub(crate) max_miss_rate: Option<f64>,
    pub(crate) null: Option<OneOrMore>,
    pub(crate) delimiter: Option<char>,
    #[serde(default)]
    pub(crate) types: Vec<String>,
}

/// A question about the tables and the outputs, whose answer is printed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SummaryStep {
    pub(crate) title: Option<String>,
    pub(crate) query: String,
}

/// One or several of something.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeName {
    /// The files are all that the table holds. The default in a job: what was deleted in the file goes.
    #[default]
    Replace,
    Upsert,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnDuplicateName {
    #[default]
    Error,
    First,
    Last,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingName {
    #[default]
    Plain,
    View,
    Dictionary,
}

impl Job {
    /// Reads a job file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::io(format!("cannot read job `{}`", path.display()), error))?;
        let job: Self = toml::from_str(&text).map_err(|error| {
            let hint = nearest(error.message())
                .map_or_else(String::new, |name| format!("\ndid you mean `{name}`?"));
            let what = error.to_string();
            Error::invalid(format!("{}: {}{hint}", path.display(), what.trim_end()))
        })?;
        for (name, step) in &job.enrich.0 {
            if let Some(rate) = step.max_miss_rate
                && !(0.0..=1.0).contains(&rate)
            {
                return Err(Error::invalid(format!(
                    "{}: a rate is a number from 0 to 1: enrich=`{name}` max_miss_rate=`{rate}`",
                    path.display()
                )));
            }
        }
        if let Some((name, _)) = job
            .enrich
            .0
            .iter()
            .find(|(name, _)| job.dimension.0.iter().any(|d| d.0 == *name))
        {
            return Err(Error::invalid(format!(
                "{}: a dimension and an enrichment have one name, so that SQL could not tell them apart: name=`{name}`",
                path.display()
            )));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        Ok(Self {
            dir: dir.unwrap_or(Path::new(".")).to_owned(),
            ..job
        })
    }

    /// A path of the job file, from where the program runs.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
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

impl DimensionStep {
    pub(crate) fn source_options(&self) -> Result<SourceOptions> {
        source_options(self.null.as_ref(), self.delimiter, &self.types)
    }
}

impl EnrichStep {
    pub(crate) fn source_options(&self) -> Result<SourceOptions> {
        source_options(self.null.as_ref(), self.delimiter, &self.types)
    }
}

fn source_options(
    null: Option<&OneOrMore>,
    delimiter: Option<char>,
    types: &[String],
) -> Result<SourceOptions> {
    let mut options = SourceOptions::default();
    options
        .csv
        .null_text
        .extend(null.into_iter().flat_map(OneOrMore::to_vec));
    if let Some(delimiter) = delimiter {
        let byte = u8::try_from(delimiter)
            .ok()
            .filter(u8::is_ascii)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "a delimiter is one ASCII character: delimiter=`{delimiter}`"
                ))
            })?;
        options.csv.delimiter = Some(byte);
    }
    for declared in types {
        let (column, data_type) = declared.split_once('=').ok_or_else(|| {
            Error::invalid(format!(
                "a type is declared as COLUMN = TYPE: got=`{declared}`"
            ))
        })?;
        options
            .types
            .push((column.trim().to_owned(), parse_data_type(data_type.trim())?));
    }
    Ok(options)
}

/// The known name that is nearest to the unknown one of an error message, if one is near.
fn nearest(message: &str) -> Option<&str> {
    let mut names = message
        .strip_prefix("unknown field `")
        .or_else(|| message.strip_prefix("unknown variant `"))?
        .split('`')
        .step_by(2);
    let unknown = names.next()?;
    names
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, _)| *distance <= unknown.chars().count() / 3 + 1)
        .map(|(_, name)| name)
}

impl OneOrMore {
    pub(crate) fn to_vec(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::More(more) => more.clone(),
        }
    }
}

impl From<ModeName> for LoadMode {
    fn from(mode: ModeName) -> Self {
        match mode {
            ModeName::Replace => Self::Replace,
            ModeName::Upsert => Self::Upsert,
        }
    }
}

impl From<OnDuplicateName> for OnDuplicate {
    fn from(on_duplicate: OnDuplicateName) -> Self {
        match on_duplicate {
            OnDuplicateName::Error => Self::Error,
            OnDuplicateName::First => Self::First,
            OnDuplicateName::Last => Self::Last,
        }
    }
}

impl From<EncodingName> for Encoding {
    fn from(encoding: EncodingName) -> Self {
        match encoding {
            EncodingName::Plain => Self::Plain,
            EncodingName::View => Self::View,
            EncodingName::Dictionary => Self::Dictionary,
        }
    }
}

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Steps<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Steps<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of named steps")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut steps = Vec::new();
                while let Some(step) = map.next_entry()? {
                    steps.push(step);
                }
                Ok(Steps(steps))
            }
        }

        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Job> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.toml");
        std::fs::write(&path, text).unwrap();
        Job::read(&path)
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
    }
}
