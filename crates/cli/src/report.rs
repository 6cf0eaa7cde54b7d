//! What an enrichment has done, for people and for programs.

use std::path::Path;

use darner_engine::{EnrichReport, Error, JoinKind, JoinReport};
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result};

/// Missing keys that a report shows, and that it keeps.
const KEYS_SHOWN: usize = 4;
const KEYS_KEPT: usize = 20;

/// A report as it is stored and written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(crate) struct Report {
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    pub(crate) joins: Vec<JoinLine>,
}

/// One join of a report.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(crate) struct JoinLine {
    pub(crate) name: String,
    pub(crate) table: String,
    pub(crate) version: u64,
    pub(crate) kind: String,
    pub(crate) on: String,
    pub(crate) dimension_rows: usize,
    pub(crate) index: String,
    pub(crate) rows: u64,
    pub(crate) matched: u64,
    pub(crate) missed: u64,
    pub(crate) null_keys: u64,
    pub(crate) miss_rate: f64,
    pub(crate) missing_keys: usize,
    /// Whether more keys were missing than can be counted one by one.
    pub(crate) missing_keys_are_more: bool,
    pub(crate) top_missing_keys: Vec<(String, u64)>,
}

impl From<&EnrichReport> for Report {
    fn from(report: &EnrichReport) -> Self {
        Self {
            rows_read: report.num_rows_in,
            rows_written: report.num_rows_out,
            joins: report.joins.iter().map(JoinLine::from).collect(),
        }
    }
}

impl From<&JoinReport> for JoinLine {
    fn from(join: &JoinReport) -> Self {
        let on: Vec<String> = join
            .spec
            .on
            .iter()
            .map(|on| match &on.key {
                Some(key) if *key != on.fact => format!("{} = {key}", on.fact),
                _ => on.fact.clone(),
            })
            .collect();
        let kind = match join.spec.kind {
            JoinKind::Left => "left",
            JoinKind::Inner => "inner",
            JoinKind::Semi => "semi",
            JoinKind::Anti => "anti",
        };
        let top = join.missing_keys.top(KEYS_KEPT);
        Self {
            name: join.spec.alias().to_owned(),
            table: join.spec.table.clone(),
            version: join.version,
            kind: kind.to_owned(),
            on: on.join(", "),
            dimension_rows: join.num_dimension_rows,
            index: join.layout.clone(),
            rows: join.counters.num_rows,
            matched: join.counters.num_matched,
            missed: join.counters.num_missed,
            null_keys: join.counters.num_null_keys,
            miss_rate: join.miss_rate(),
            missing_keys: join.missing_keys.num_distinct(),
            missing_keys_are_more: !join.missing_keys.is_complete(),
            top_missing_keys: top.into_iter().map(|key| (key.key, key.num_rows)).collect(),
        }
    }
}

impl Report {
    /// The joins, one line each, under a line of headings.
    pub(crate) fn lines(&self) -> Vec<String> {
        const HEADINGS: [&str; 6] = [
            "join",
            "on",
            "matched",
            "missed",
            "null keys",
            "top missing keys",
        ];
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.joins.iter().map(|join| {
            let name = match join.kind.as_str() {
                "left" => join.name.clone(),
                kind => format!("{kind} {}", join.name),
            };
            [
                name,
                join.on.clone(),
                HumanCount(join.matched).to_string(),
                HumanCount(join.missed).to_string(),
                HumanCount(join.null_keys).to_string(),
                join.top_text(),
            ]
        }));
        let widths: Vec<usize> = (0..HEADINGS.len())
            .map(|column| {
                rows.iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        rows.iter()
            .map(|row| {
                let [name, on, matched, missed, null_keys, top] = row;
                let line = format!(
                    "  {name:w0$}  {on:w1$}  {matched:>w2$}  {missed:>w3$}  {null_keys:>w4$}  {top}",
                    w0 = widths[0],
                    w1 = widths[1],
                    w2 = widths[2],
                    w3 = widths[3],
                    w4 = widths[4],
                );
                line.trim_end().to_owned()
            })
            .collect()
    }

    /// Fails if a join has missed a larger share of its keys than allowed.
    pub(crate) fn check_miss_rate(&self, max_miss_rate: Option<f64>, output: &Path) -> Result<()> {
        let Some(max) = max_miss_rate else {
            return Ok(());
        };
        // Of an anti join the misses are what was asked for.
        let mut gated = self.joins.iter().filter(|join| join.kind != "anti");
        match gated.find(|join| join.miss_rate > max) {
            None => Ok(()),
            Some(join) => Err(Failure::Gate(format!(
                "{}: {:.4} of the keys are missing, more than the {max} allowed ({} of {} rows; {}); {} was not \
                 written",
                join.name,
                join.miss_rate,
                HumanCount(join.missed),
                HumanCount(join.matched + join.missed),
                join.top_text(),
                output.display()
            ))),
        }
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| {
            Error::internal("report cannot be encoded")
                .with_source(error)
                .into()
        })
    }
}

impl JoinLine {
    fn top_text(&self) -> String {
        let shown = self.top_missing_keys.iter().take(KEYS_SHOWN);
        let text = shown
            .map(|(key, rows)| format!("{} {}", quote(key), HumanCount(*rows)))
            .collect::<Vec<_>>()
            .join(", ");
        if self.missing_keys > KEYS_SHOWN {
            let more = if self.missing_keys_are_more {
                "more than "
            } else {
                ""
            };
            let count = HumanCount(self.missing_keys as u64);
            return format!("{text} ({more}{count} keys)");
        }
        text
    }
}

/// Shows a key that is empty or holds odd characters as what it is, and one of several parts as one.
fn quote(key: &str) -> String {
    if key.contains(", ") {
        format!("({})", key.escape_debug())
    } else if key.is_empty() || key.chars().any(char::is_control) || key.trim() != key {
        format!("{key:?}")
    } else {
        key.to_owned()
    }
}
