//! What an enrichment is going to do, for people and for programs.

use std::path::Path;

use darner_engine::{Enrichment, Error, PIECES_PER_WORKER, Source};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::{
    context::Context,
    enrichment::Plan,
    error::Result,
    print,
    report::{kind, on},
    storage::shown,
};

#[derive(Serialize)]
pub(crate) struct Explained {
    facts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts_bytes: Option<u64>,
    fact_columns: usize,
    joins: Vec<ExplainedJoin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    output_columns: usize,
    threads: usize,
    memory_bytes: usize,
}

#[derive(Serialize)]
struct ExplainedJoin {
    name: String,
    table: String,
    version: u64,
    kind: &'static str,
    on: String,
    dimension_rows: usize,
    index: String,
    index_bytes: usize,
    memory_bytes: usize,
    /// Bytes of a row, at most, where columns are packed into rows when as many rows were taken as the dimension has.
    /// A column alone that is packed because it has few values is left out, here and in the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    packed_row_bytes: Option<usize>,
    columns: Vec<ExplainedColumn>,
}

#[derive(Serialize)]
struct ExplainedColumn {
    name: String,
    column: String,
    #[serde(rename = "type")]
    data_type: String,
    encoding: String,
    packed: bool,
}

impl Explained {
    pub(crate) fn new(
        context: &Context,
        plan: &Plan,
        output: Option<&Path>,
        source: &dyn Source,
        enrichment: &Enrichment,
    ) -> Self {
        let joins: Vec<ExplainedJoin> = enrichment
            .join()
            .plan()
            .into_iter()
            .map(|join| {
                let columns = join.columns.iter().map(|column| ExplainedColumn {
                    name: column.field.name().clone(),
                    column: column.column.to_owned(),
                    data_type: column.field.data_type().to_string(),
                    encoding: column.encoding.to_string(),
                    packed: column.is_packed,
                });
                let rows = join.dimension.num_rows();
                let packed = join
                    .packed_row_bytes
                    .map_or(0, |row_bytes| rows * row_bytes);
                ExplainedJoin {
                    name: join.spec.alias().to_owned(),
                    table: join.spec.table.clone(),
                    version: join.dimension.version(),
                    kind: kind(join.spec),
                    on: on(join.spec),
                    dimension_rows: rows,
                    index: join.dimension.layout().to_string(),
                    index_bytes: join.dimension.index_bytes(),
                    memory_bytes: join.dimension.memory_bytes() + packed,
                    packed_row_bytes: join.packed_row_bytes,
                    columns: columns.collect(),
                }
            })
            .collect();
        let inputs = plan.inputs.iter().map(|path| shown(path));
        Self {
            facts: inputs.collect(),
            facts_bytes: source.num_bytes(),
            fact_columns: source.schema().fields().len(),
            memory_bytes: joins.iter().map(|join| join.memory_bytes).sum(),
            joins,
            output: output.map(shown),
            output_columns: enrichment.output_schema().fields().len(),
            threads: context.num_threads,
        }
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| {
            Error::internal("plan cannot be encoded")
                .with_source(error)
                .into()
        })
    }

    /// The plan, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let first = self.facts.first().map_or("", String::as_str);
        let more = match self.facts.len() {
            0 | 1 => String::new(),
            len => format!(" and {} more", len - 1),
        };
        let size = self
            .facts_bytes
            .map_or_else(String::new, |bytes| format!(", {}", HumanBytes(bytes)));
        let mut lines = vec![format!(
            "facts    {first}{more}{size}, {}",
            print::counted(self.fact_columns as u64, "column")
        )];
        for join in &self.joins {
            lines.extend(join.lines());
        }
        let output = match self.output.as_deref() {
            None => String::new(),
            Some("-") => "standard output, ".to_owned(),
            Some(path) => format!("{path}, "),
        };
        let columns = print::counted(self.output_columns as u64, "column");
        lines.push(format!("output   {output}{columns}"));
        lines.push(format!(
            "memory   {} for dimensions, and {} pieces of the facts at a time ({})",
            HumanBytes(self.memory_bytes as u64),
            PIECES_PER_WORKER * self.threads,
            print::counted(self.threads as u64, "thread")
        ));
        lines
    }
}

impl ExplainedJoin {
    fn lines(&self) -> Vec<String> {
        let table = if self.name == self.table {
            self.table.clone()
        } else {
            format!("{} as {}", self.table, self.name)
        };
        let mut lines = vec![
            format!("join     {} {table} on {}", self.kind, self.on),
            format!(
                "         {} rows of version {}, {} with all that is kept beside them",
                HumanCount(self.dimension_rows as u64),
                self.version,
                HumanBytes(self.memory_bytes as u64)
            ),
            format!(
                "         index {}, {}",
                self.index,
                HumanBytes(self.index_bytes as u64)
            ),
        ];
        for column in &self.columns {
            let from = if column.column == column.name {
                String::new()
            } else {
                format!(" = {}", column.column)
            };
            let packed = if column.packed { ", packed" } else { "" };
            lines.push(format!(
                "         + {}{from}: {}, {}{packed}",
                column.name, column.data_type, column.encoding
            ));
        }
        if let Some(row_bytes) = self.packed_row_bytes {
            lines.push(format!(
                "         packed into rows of up to {row_bytes} bytes once {} rows were taken",
                HumanCount(self.dimension_rows as u64)
            ));
        }
        lines
    }
}
