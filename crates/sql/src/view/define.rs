//! What is stored of a view beside its groups: what it is, and what it has seen.
//!
//! Both are watermarks of the store, so that they change in the commit that changes the groups. They are two, because
//! what a view is stays as it is, and every query reads it; what it has seen grows with its files.
//!
//! ```text
//! darner.view/NAME          Definition as JSON
//! darner.view.seen/NAME     Seen as JSON
//! NAME                      a table: the states of the groups, or the rows of a view that is computed anew each time
//! ```

use std::{fmt::Write as _, sync::Arc};

use arrow_schema::{Schema, SchemaRef};
use darner_engine::{Error, ErrorKind, Result, VIEW_PREFIX};
use darner_store::{Store, TableSnapshot, Transaction, Version};
use datafusion::{
    arrow::ipc::{
        convert::try_schema_from_flatbuffer_bytes,
        writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions},
    },
    common::Constraints,
    logical_expr::TableSource,
};
use serde::{Deserialize, Serialize};

use super::sources::SeenFile;

/// The version of what is written here.
const FORMAT: u32 = 1;

/// Before the name of a view: the name of the watermark that says what it has seen.
const SEEN_PREFIX: &str = "darner.view.seen/";

/// How often a view that changes meanwhile is looked at again.
const LOOKS_MAX: usize = 100;

/// What a view is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Definition {
    format: u32,
    /// The version of DataFusion whose states are stored.
    pub(crate) datafusion: String,
    /// The query, with whole paths.
    pub(crate) query: String,
    /// The columns' names, if others than the query's were given.
    pub(crate) columns: Vec<String>,
    /// Why the view is computed anew each time, if it is.
    pub(crate) reason: Option<String>,
    /// The relation whose new rows refresh the view.
    pub(crate) facts: Option<Facts>,
    /// The relations that new rows are joined with.
    pub(crate) dimensions: Vec<Relation>,
}

/// The relation of a query whose new rows are looked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) kind: FactsKind,
    pub(crate) relation: Relation,
}

/// Where new rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FactsKind {
    /// The relation's name is a path, a directory or a pattern.
    Files,
    /// A program gives them.
    Pushed,
    /// It is a table of the store.
    Table,
}

/// A relation of a query, with the columns that it had when the view was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Relation {
    pub(crate) name: String,
    /// As an Arrow IPC message, in hexadecimal digits.
    schema: String,
    /// The columns of the primary key.
    key: Vec<usize>,
}

impl Relation {
    pub(crate) fn of(name: &str, source: &dyn TableSource) -> Self {
        let key = source.constraints().and_then(primary_key);
        Self::new(name, &source.schema(), key.unwrap_or_default())
    }

    pub(crate) fn new(name: &str, schema: &Schema, key: Vec<usize>) -> Self {
        let mut tracker = DictionaryTracker::new(false);
        let message = IpcDataGenerator::default()
            .schema_to_bytes_with_dictionary_tracker(
                schema,
                &mut tracker,
                &IpcWriteOptions::default(),
            )
            .ipc_message;
        Self {
            name: name.to_owned(),
            schema: to_hex(&message),
            key,
        }
    }

    pub(crate) fn schema(&self) -> Result<SchemaRef> {
        let damaged = || Error::data(format!("columns of `{}` are not readable", self.name));
        let bytes = from_hex(&self.schema).ok_or_else(damaged)?;
        let schema = try_schema_from_flatbuffer_bytes(&bytes);
        schema
            .map(Arc::new)
            .map_err(|error| damaged().with_source(error))
    }

    pub(crate) fn key(&self) -> &[usize] {
        &self.key
    }
}

fn primary_key(constraints: &Constraints) -> Option<Vec<usize>> {
    constraints.iter().find_map(|constraint| match constraint {
        datafusion::common::Constraint::PrimaryKey(columns) => Some(columns.clone()),
        datafusion::common::Constraint::Unique(_) => None,
    })
}

impl Definition {
    pub(crate) fn new(query: String, columns: Vec<String>) -> Self {
        Self {
            format: FORMAT,
            datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            query,
            columns,
            reason: None,
            facts: None,
            dimensions: Vec::new(),
        }
    }

    /// Whether new rows alone refresh the view.
    pub(crate) fn is_incremental(&self) -> bool {
        self.reason.is_none()
    }

    pub(crate) fn facts_kind(&self) -> Option<FactsKind> {
        self.facts.as_ref().map(|facts| facts.kind)
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        let definition: Self = parse(name, bytes)?;
        if definition.format != FORMAT {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "view was written by another version of Darner: view=`{name}` format=`{}` expected=`{FORMAT}`; \
                     create it anew",
                    definition.format
                ),
            ));
        }
        Ok(definition)
    }
}

/// What a view has seen of its sources.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Files whose rows are in the groups.
    pub(crate) files: Vec<SeenFile>,
    /// The table of facts: its commit whose rows are in the groups.
    pub(crate) facts: Option<TableVersion>,
    /// The dimensions that rows were joined with.
    pub(crate) dimensions: Vec<SeenDimension>,
    /// Rows that programs have pushed.
    pub(crate) num_pushed_rows: u64,
    /// What the last of them said how far it has come, in hexadecimal digits.
    watermark: Option<String>,
}

/// A commit of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableVersion {
    /// The commit that made the table.
    pub(crate) created: u64,
    /// The commit that changed it last.
    pub(crate) version: u64,
}

impl TableVersion {
    pub(crate) fn of(table: &TableSnapshot) -> Self {
        Self {
            created: table.created().number,
            version: table.version().number,
        }
    }
}

/// A dimension that rows were joined with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenDimension {
    pub(crate) name: String,
    /// As rows were joined with it first since the view was built.
    pub(crate) first: TableVersion,
    /// As the newest rows were joined with it.
    pub(crate) last: TableVersion,
}

impl Seen {
    fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        parse(name, bytes)
    }

    /// What programs have said how far they have come.
    pub(crate) fn watermark(&self) -> Option<Vec<u8>> {
        self.watermark.as_deref().and_then(from_hex)
    }

    pub(crate) fn set_watermark(&mut self, watermark: &[u8]) {
        self.watermark = Some(to_hex(watermark));
    }

    /// Adds what rows were joined with now.
    pub(crate) fn add_dimensions(&mut self, dimensions: &[(String, TableVersion)]) {
        for (name, version) in dimensions {
            match self.dimensions.iter_mut().find(|seen| seen.name == *name) {
                Some(seen) => seen.last = *version,
                None => self.dimensions.push(SeenDimension {
                    name: name.clone(),
                    first: *version,
                    last: *version,
                }),
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::data(format!(
            "what is stored of a view is not readable: view=`{name}`; drop it and create it anew"
        ))
        .with_source(error)
    })
}

/// A view as of one commit.
#[derive(Clone)]
pub(crate) struct StoredView {
    pub(crate) name: String,
    pub(crate) definition: Definition,
    /// The commit that defined it.
    pub(crate) defined: u64,
    /// Its groups, or its rows.
    pub(crate) table: TableSnapshot,
}

impl StoredView {
    /// Finds a view. `None` if the name is of no view.
    pub(crate) fn find(store: &Store, name: &str) -> Result<Option<Self>> {
        let watermark_name = format!("{VIEW_PREFIX}{name}");
        for _ in 0..LOOKS_MAX {
            let Some(watermark) = store.watermark(&watermark_name) else {
                return Ok(None);
            };
            let table = store.table(name);
            // One commit sets both, and another may come between two looks.
            if store.watermark(&watermark_name).map(|found| found.version)
                == Some(watermark.version)
            {
                return Ok(Some(Self {
                    name: name.to_owned(),
                    definition: Definition::read(name, &watermark.value)?,
                    defined: watermark.version.number,
                    table: table?,
                }));
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("view is defined again and again: view=`{name}`; try again"),
        ))
    }

    /// A view that must be there.
    pub(crate) fn get(store: &Store, name: &str) -> Result<Self> {
        if let Some(view) = Self::find(store, name)? {
            return Ok(view);
        }
        if store.table(name).is_ok() {
            return Err(Error::invalid(format!(
                "a table is no view: table=`{name}`; what it holds is changed by statements and loads"
            )));
        }
        let names = view_names(store);
        let hint = if names.is_empty() {
            "; there are no views".to_owned()
        } else {
            format!("; views are `{}`", names.join("`, `"))
        };
        Err(Error::not_found(format!(
            "no such view: view=`{name}`{hint}"
        )))
    }

    /// What it has seen, and the commit that says so: this one or a later one.
    pub(crate) fn seen(&self, store: &Store) -> Result<(Seen, Version)> {
        match store.watermark(&format!("{SEEN_PREFIX}{}", self.name)) {
            Some(watermark) => Ok((Seen::read(&self.name, &watermark.value)?, watermark.version)),
            None => Err(Error::data(format!(
                "what a view has seen is not stored: view=`{}`; drop it and create it anew",
                self.name
            ))),
        }
    }
}

/// The names of all views, sorted.
pub(crate) fn view_names(store: &Store) -> Vec<String> {
    let names = store.watermark_names().into_iter();
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_prefix(VIEW_PREFIX).map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Puts what a view is into a transaction.
pub(crate) fn define(
    transaction: &mut Transaction<'_>,
    name: &str,
    definition: &Definition,
) -> Result<()> {
    transaction.set_watermark(&format!("{VIEW_PREFIX}{name}"), &to_json(definition)?)
}

/// Puts what a view has seen into a transaction.
pub(crate) fn remember(transaction: &mut Transaction<'_>, name: &str, seen: &Seen) -> Result<()> {
    transaction.set_watermark(&format!("{SEEN_PREFIX}{name}"), &to_json(seen)?)
}

/// Drops a view.
pub(crate) fn forget(transaction: &mut Transaction<'_>, name: &str) -> Result<()> {
    transaction.drop_table(name)?;
    transaction.remove_watermark(&format!("{VIEW_PREFIX}{name}"))?;
    transaction.remove_watermark(&format!("{SEEN_PREFIX}{name}"))
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::internal("a view cannot be written").with_source(error))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow_schema::{DataType, Field};

    use super::*;

    #[test]
    fn a_relation_gives_back_its_columns() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, false),
            Field::new("b", DataType::Utf8View, true),
        ]);
        let relation = Relation::new("r", &schema, vec![0]);
        assert_eq!(*relation.schema().unwrap(), schema);
        let text = serde_json::to_string(&relation).unwrap();
        let read: Relation = serde_json::from_str(&text).unwrap();
        assert_eq!(*read.schema().unwrap(), schema);
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("00ff"), Some(vec![0, 255]));
    }
}
