//! What `darner check` knows of a step, and how it is told.

use arrow_schema::Schema;
use indicatif::HumanBytes;
use serde::Serialize;

use crate::{memory::table_bytes, print};

/// Columns that are listed of a step.
const COLUMNS_SHOWN: usize = 12;

/// What is known of one step.
#[derive(Default, Serialize)]
pub(super) struct Checked {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// `load`, `enrich`, `make`, `refresh`, `check`, `ask` or `skip`.
    pub(super) action: &'static str,
    pub(super) why: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) columns: Vec<Column>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) joins: Vec<Join>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<u64>,
    /// Whether `rows` and `memory_bytes` come from a sample.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_estimate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Column {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) data_type: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) key: bool,
}

#[derive(Serialize)]
pub(super) struct Join {
    pub(super) name: String,
    pub(super) table: String,
    pub(super) kind: &'static str,
    pub(super) on: String,
    pub(super) columns: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_bytes: Option<u64>,
}

/// Of a table or its files.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) is_estimate: bool,
}

impl Checked {
    pub(super) fn set_size(&mut self, size: Option<Size>) {
        self.rows = size.map(|size| size.rows);
        self.memory_bytes = size.map(|size| table_bytes((size.rows, size.bytes)));
        self.is_estimate = size.is_some_and(|size| size.is_estimate);
    }

    pub(super) fn lines(&self, width: usize) -> Vec<String> {
        let (action, name) = (self.action, &self.name);
        if matches!(self.action, "ask" | "check") {
            return vec![format!("{action:6}  {name}")];
        }
        let mut lines = vec![format!("{action:6}  {name:width$}  {}", self.why)];
        let mut line = |text: String| lines.push(format!("        {text}"));
        let files = match self.inputs.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        };
        let size = self
            .input_bytes
            .map_or_else(String::new, |bytes| format!(", {}", HumanBytes(bytes)));
        if !files.is_empty() {
            line(format!("from {files}{size}"));
        }
        for join in &self.joins {
            let name = if join.name == join.table {
                join.table.clone()
            } else {
                format!("{} as {}", join.table, join.name)
            };
            let columns = match join.columns.as_slice() {
                [] => String::new(),
                columns => format!(": + {}", columns.join(", ")),
            };
            line(format!("{} join {name} on {}{columns}", join.kind, join.on));
        }
        if let Some(output) = &self.output {
            line(format!("to {output}"));
        }
        if !self.columns.is_empty() {
            let shown = self.columns.iter().take(COLUMNS_SHOWN);
            let names: Vec<String> = shown.map(Column::text).collect();
            let more = match self.columns.len().saturating_sub(COLUMNS_SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            line(format!(
                "{}: {}{more}",
                print::counted(self.columns.len() as u64, "column"),
                names.join(", ")
            ));
        }
        let about = if self.is_estimate { "about " } else { "" };
        match (self.rows, self.memory_bytes) {
            (Some(rows), Some(bytes)) => line(format!(
                "{about}{}, about {} in memory",
                print::counted(rows, "row"),
                HumanBytes(bytes)
            )),
            (None, Some(bytes)) if !self.joins.is_empty() => {
                line(format!(
                    "about {} of memory for dimensions",
                    HumanBytes(bytes)
                ));
            }
            _ => {}
        }
        lines
    }
}

impl Column {
    fn text(&self) -> String {
        let key = if self.key { " key" } else { "" };
        format!("{} {}{key}", self.name, self.data_type)
    }
}

pub(super) fn columns(schema: &Schema, key: &[String]) -> Vec<Column> {
    let fields = schema.fields().iter();
    fields
        .map(|field| Column {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
            key: key.contains(field.name()),
        })
        .collect()
}
