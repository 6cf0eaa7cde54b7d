//! The steps of a job, as the job file has them.

use std::{fmt, marker::PhantomData, path::PathBuf};

use darner_engine::{
    Encoding, Error, LoadMode, OnDuplicate, Result, SourceOptions, parse_data_type,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};

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
#[derive(Clone, Debug)]
pub(crate) struct OneOrMore(Vec<String>);

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

impl DimensionStep {
    pub(crate) fn source_options(&self) -> Result<SourceOptions> {
        source_options(self.null.as_ref(), self.delimiter, &self.types)
    }
}

impl EnrichStep {
    pub(crate) fn source_options(&self) -> Result<SourceOptions> {
        source_options(self.null.as_ref(), self.delimiter, &self.types)
    }

    /// All files that it writes.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.to).chain(&self.unmatched)
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

impl OneOrMore {
    pub(crate) fn to_vec(&self) -> Vec<String> {
        self.0.clone()
    }
}

impl Serialize for OneOrMore {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// An untagged enum would say of a wrong value only that no variant fits.
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMore(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMore(texts))
            }
        }

        deserializer.deserialize_any(Texts)
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
