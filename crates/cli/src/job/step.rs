//! The steps of a job, as the job file has them.

use std::{
    fmt,
    marker::PhantomData,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use darner_engine::{
    Encoding, Error, JoinSpec, LoadMode, OnDuplicate, OnMiss, Result, SinkOptions, SourceOptions,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    args::{Compression, parse_bytes},
    enrichment::{Gates, JoinGates},
    storage::shown,
    time::{duration_text, parse_duration},
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
    /// The columns that the table has, as in SELECT; those of the files unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) columns: Option<OneOrMore>,
    pub(crate) null: Option<OneOrMore>,
    pub(crate) delimiter: Option<char>,
    pub(crate) quote: Option<char>,
    pub(crate) header: Option<bool>,
    pub(crate) input_format: Option<String>,
    #[serde(default)]
    pub(crate) types: Vec<String>,
}

/// Facts, the dimensions that they are joined with, and what comes of it: a file, or a directory of files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrichStep {
    pub(crate) from: OneOrMore,
    #[serde(default)]
    pub(crate) join: Joins,
    /// A directory if it ends with `/`, or if one of the fields for directories is there.
    pub(crate) to: PathBuf,
    pub(crate) select: Option<Vec<String>>,
    /// A condition in SQL on the rows that are taken.
    #[serde(rename = "where")]
    pub(crate) filter: Option<String>,
    /// The columns that come out, as in SELECT.
    pub(crate) columns: Option<OneOrMore>,
    #[serde(default)]
    pub(crate) encoding: EncodingName,
    pub(crate) unmatched: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,

    // Gates.
    pub(crate) max_miss_rate: Option<f64>,
    pub(crate) min_rows: Option<u64>,
    pub(crate) max_dimension_age: Option<Span>,
    #[serde(default)]
    pub(crate) empty_dimension: EmptyName,

    // How files are written.
    pub(crate) format: Option<String>,
    pub(crate) compression: Option<Compression>,
    pub(crate) row_group_rows: Option<NonZeroUsize>,

    // For directories.
    pub(crate) partition_by: Option<OneOrMore>,
    pub(crate) target_file_rows: Option<NonZeroU64>,
    pub(crate) target_file_bytes: Option<Bytes>,
    #[serde(default)]
    pub(crate) on_dimension_change: ChangeName,
    #[serde(default)]
    pub(crate) on_vanished_input: VanishedName,

    // How files are read.
    pub(crate) null: Option<OneOrMore>,
    pub(crate) delimiter: Option<char>,
    pub(crate) quote: Option<char>,
    pub(crate) header: Option<bool>,
    pub(crate) input_format: Option<String>,
    #[serde(default)]
    pub(crate) types: Vec<String>,
}

/// Joins: each the text of one, or a table with it and its match contract.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Joins(pub(crate) Vec<JoinStep>);

/// A join and its match contract.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinStep {
    pub(crate) join: String,
    pub(crate) on_miss: Option<OnMissName>,
    #[serde(default)]
    pub(crate) default: Defaults,
    pub(crate) max_miss_rate: Option<f64>,
    pub(crate) max_age: Option<Span>,
    pub(crate) empty: Option<EmptyName>,
}

/// Values for the columns of missed rows, as text.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Defaults(Vec<(String, String)>);

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnMissName {
    Null,
    Drop,
    Error,
    Default,
    Route,
}

/// What a dimension without rows means.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EmptyName {
    /// A load that went wrong.
    #[default]
    Error,
    Allow,
}

/// What becomes of finished files when a dimension has changed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeName {
    #[default]
    Redo,
    Keep,
}

/// What becomes of finished files whose inputs are not there any more.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VanishedName {
    /// Inputs are often moved away once they are done.
    #[default]
    Keep,
    Remove,
}

/// A length of time such as `7d`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

/// A number of bytes such as `128MB`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Bytes(pub(crate) u64);

/// A question about the tables and the outputs. The answer of a summary is printed; that of a check has no rows, or the
/// job stops.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuestionStep {
    pub(crate) title: Option<String>,
    pub(crate) query: String,
}

/// A view, which is kept up to date.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ViewStep {
    pub(crate) query: String,
    #[serde(default)]
    pub(crate) on_dimension_change: ViewChangeName,
    #[serde(default)]
    pub(crate) on_file_change: FileChangeName,
}

/// What a view does about rows that were joined with a dimension as it was before.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ViewChangeName {
    #[default]
    Keep,
    Rebuild,
}

/// What a view does about a file whose rows it has counted, and which is another now or gone. What the job itself writes
/// anew is always counted anew.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileChangeName {
    #[default]
    Error,
    Rebuild,
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
        InputFields {
            null: self.null.as_ref(),
            delimiter: self.delimiter,
            quote: self.quote,
            header: self.header,
            format: self.input_format.as_deref(),
            types: &self.types,
        }
        .source_options()
    }
}

impl EnrichStep {
    pub(crate) fn source_options(&self) -> Result<SourceOptions> {
        InputFields {
            null: self.null.as_ref(),
            delimiter: self.delimiter,
            quote: self.quote,
            header: self.header,
            format: self.input_format.as_deref(),
            types: &self.types,
        }
        .source_options()
    }

    pub(crate) fn sink_options(&self) -> Result<SinkOptions> {
        let mut options = SinkOptions::default();
        options.format = self.format.as_deref().map(str::parse).transpose()?;
        options.compression = self.compression.map(Into::into);
        if let Some(rows) = self.row_group_rows {
            options.row_group_rows = rows.get();
        }
        Ok(options)
    }

    /// Its joins, with what becomes of missed rows.
    pub(crate) fn joins(&self) -> Result<Vec<JoinSpec>> {
        self.join.0.iter().map(JoinStep::spec).collect()
    }

    pub(crate) fn gates(&self) -> Gates {
        let refuses = |empty: EmptyName| matches!(empty, EmptyName::Error);
        let joins = self.join.0.iter().map(|join| JoinGates {
            max_miss_rate: join.max_miss_rate,
            max_age: join.max_age.as_ref().map(|span| span.0),
            refuses_empty: join.empty.map(refuses),
        });
        Gates {
            max_miss_rate: self.max_miss_rate,
            min_rows: self.min_rows,
            max_age: self.max_dimension_age.as_ref().map(|span| span.0),
            refuses_empty: refuses(self.empty_dimension),
            joins: joins.collect(),
        }
    }

    /// All files that it writes, and directories.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.to)
            .chain(&self.unmatched)
            .chain(&self.report)
    }

    /// Whether it writes a file for each of its inputs.
    pub(crate) fn is_directory(&self) -> bool {
        ends_with_slash(&self.to)
            || self.partition_by.is_some()
            || self.target_file_rows.is_some()
            || self.target_file_bytes.is_some()
    }

    /// Refuses what contradicts itself.
    pub(crate) fn validate(&self) -> Result<()> {
        let rates = self.join.0.iter().map(|join| join.max_miss_rate);
        for rate in rates.chain([self.max_miss_rate]).flatten() {
            if !(0.0..=1.0).contains(&rate) {
                return Err(Error::invalid(format!(
                    "a rate is a number from 0 to 1: max_miss_rate=`{rate}`"
                )));
            }
        }
        if let Some(unmatched) = &self.unmatched
            && self.is_directory() != ends_with_slash(unmatched)
        {
            let what = if self.is_directory() {
                "`to` is a directory, so `unmatched` must be one too, and end with /"
            } else {
                "`unmatched` is a directory, so `to` must be one too, and end with /"
            };
            return Err(Error::invalid(format!(
                "{what}: to=`{}` unmatched=`{}`",
                shown(&self.to),
                shown(unmatched)
            )));
        }
        self.sink_options().map(drop)
    }
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

impl JoinStep {
    fn spec(&self) -> Result<JoinSpec> {
        let mut spec = JoinSpec::parse(&self.join)?;
        if let Some(on_miss) = self.on_miss {
            if spec.on_miss != OnMiss::Null {
                return Err(Error::invalid(format!(
                    "a join says twice what becomes of missed rows: join=`{}`",
                    self.join
                )));
            }
            spec.on_miss = on_miss.into();
        } else if !self.default.0.is_empty() {
            spec.on_miss = OnMiss::Default;
        }
        spec.defaults.extend(self.default.0.iter().cloned());
        Ok(spec)
    }
}

/// What a step says of the files that it reads.
struct InputFields<'s> {
    null: Option<&'s OneOrMore>,
    delimiter: Option<char>,
    quote: Option<char>,
    header: Option<bool>,
    format: Option<&'s str>,
    types: &'s [String],
}

impl InputFields<'_> {
    fn source_options(&self) -> Result<SourceOptions> {
        let mut options = SourceOptions::default();
        options.format = self.format.map(str::parse).transpose()?;
        let null = self.null.into_iter().flat_map(OneOrMore::to_vec);
        options.csv.null_text.extend(null);
        options.csv.has_header = self.header.unwrap_or(true);
        options.csv.delimiter = self.delimiter.map(|c| ascii("delimiter", c)).transpose()?;
        if let Some(quote) = self.quote {
            options.csv.quote = ascii("quote", quote)?;
        }
        for declared in self.types {
            options.declare(declared)?;
        }
        Ok(options)
    }
}

fn ascii(what: &str, c: char) -> Result<u8> {
    u8::try_from(c)
        .ok()
        .filter(u8::is_ascii)
        .ok_or_else(|| Error::invalid(format!("a {what} is one ASCII character: {what}=`{c}`")))
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        duration_text(span.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as 1000000 or \"128MB\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                u64::try_from(number).map(Bytes).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                parse_bytes(text).map(Bytes).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Joins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Many;

        impl<'de> Visitor<'de> for Many {
            type Value = Joins;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a join, or a list of joins, each a text or a table with `join`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Joins(vec![JoinStep::of(text)]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let join = JoinStep::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Joins(vec![join]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut joins = Vec::new();
                while let Some(Joins(join)) = seq.next_element()? {
                    joins.extend(join);
                }
                Ok(Joins(joins))
            }
        }

        deserializer.deserialize_any(Many)
    }
}

impl JoinStep {
    fn of(text: &str) -> Self {
        Self {
            join: text.to_owned(),
            on_miss: None,
            default: Defaults::default(),
            max_miss_rate: None,
            max_age: None,
            empty: None,
        }
    }
}

impl<'de> Deserialize<'de> for Defaults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = Steps::<toml::Value>::deserialize(deserializer)?.0;
        let values = values.into_iter().map(|(column, value)| {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Array(_) | toml::Value::Table(_) => {
                    return Err(de::Error::custom(format!(
                        "a default is one value: column `{column}`"
                    )));
                }
                value => value.to_string(),
            };
            Ok((column, text))
        });
        values.collect::<Result<_, D::Error>>().map(Self)
    }
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

impl From<OnMissName> for OnMiss {
    fn from(on_miss: OnMissName) -> Self {
        match on_miss {
            OnMissName::Null => Self::Null,
            OnMissName::Drop => Self::Drop,
            OnMissName::Error => Self::Error,
            OnMissName::Default => Self::Default,
            OnMissName::Route => Self::Route,
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
