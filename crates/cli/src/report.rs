//! What an enrichment has done, for people and for programs.

use std::{path::Path, time::Duration};

use darner_engine::{EnrichReport, Error, JoinKind, JoinReport, JoinSpec};
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result};

/// Missing keys that a report shows, and that it keeps.
const KEYS_SHOWN: usize = 4;
const KEYS_KEPT: usize = 20;

/// A report as it is stored and written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub(crate) struct Report {
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    pub(crate) joins: Vec<JoinLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<Times>,
}

/// How long an enrichment took, in seconds. What workers do side by side is added up.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(crate) struct Times {
    pub(crate) load_dimensions: f64,
    pub(crate) run: f64,
    pub(crate) decode: f64,
    pub(crate) join: f64,
    pub(crate) write: f64,
    /// To end the output and bring it to disk. A report that is written before does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finish: Option<f64>,
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    pub(crate) pieces: u64,
    pub(crate) joins: Vec<JoinTime>,
}

/// What one join took.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(crate) struct JoinTime {
    pub(crate) name: String,
    pub(crate) load: f64,
    pub(crate) dimension_rows: usize,
    pub(crate) probe: f64,
    pub(crate) rows: u64,
    pub(crate) gather: f64,
}

impl Times {
    /// `load_times` are those of the dimensions.
    pub(crate) fn new(report: &EnrichReport, load_times: &[Duration]) -> Self {
        let profile = &report.profile;
        let joins = report.joins.iter().zip(load_times).enumerate();
        let joins = joins.map(|(idx, (join, load))| {
            let times = profile.joins.get(idx).copied().unwrap_or_default();
            JoinTime {
                name: join.spec.alias().to_owned(),
                load: load.as_secs_f64(),
                dimension_rows: join.num_dimension_rows,
                probe: times.probe.as_secs_f64(),
                rows: join.counters.num_rows,
                gather: times.gather.as_secs_f64(),
            }
        });
        Self {
            load_dimensions: load_times.iter().sum::<Duration>().as_secs_f64(),
            run: profile.elapsed.as_secs_f64(),
            decode: profile.decode.as_secs_f64(),
            join: profile.join.as_secs_f64(),
            write: profile.write.as_secs_f64(),
            finish: None,
            rows_read: report.num_rows_in,
            rows_written: report.num_rows_out,
            pieces: profile.num_pieces,
            joins: joins.collect(),
        }
    }

    /// The stages, one line each, under a line of headings.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut rows: Vec<(String, f64, u64)> = Vec::new();
        for join in &self.joins {
            rows.push((
                format!("read {}", join.name),
                join.load,
                join.dimension_rows as u64,
            ));
        }
        rows.push(("decode facts".to_owned(), self.decode, self.rows_read));
        rows.push(("join".to_owned(), self.join, self.rows_read));
        for join in &self.joins {
            rows.push((format!("  probe {}", join.name), join.probe, join.rows));
            rows.push((
                format!("  gather {}", join.name),
                join.gather,
                self.rows_written,
            ));
        }
        rows.push(("write".to_owned(), self.write, self.rows_written));
        let finish = self.finish.unwrap_or(0.0);
        rows.push(("finish".to_owned(), finish, self.rows_written));
        rows.push((
            "in all".to_owned(),
            self.load_dimensions + self.run + finish,
            self.rows_read,
        ));
        let width = rows.iter().map(|row| row.0.chars().count()).max();
        let width = width.unwrap_or(0);
        let heading = format!(
            "  {:width$}  {:>9}  {:>14}  {:>9}",
            "stage", "time", "rows", "rows/s"
        );
        let lines = rows.into_iter().map(|(name, seconds, rows)| {
            format!(
                "  {name:width$}  {:>9}  {:>14}  {:>9}",
                duration(seconds),
                HumanCount(rows).to_string(),
                rate(rows, seconds)
            )
        });
        std::iter::once(heading).chain(lines).collect()
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than three digits"
)]
fn rate(rows: u64, seconds: f64) -> String {
    let rate = rows as f64 / seconds;
    // What took less than is shown has no rate worth showing.
    if seconds < 1e-4 || rows == 0 {
        String::new()
    } else if rate >= 1e6 {
        format!("{:.1} M", rate / 1e6)
    } else {
        format!("{:.1} K", rate / 1e3)
    }
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
            profile: None,
        }
    }
}

/// The kind of a join, as it is written.
pub(crate) fn kind(spec: &JoinSpec) -> &'static str {
    match spec.kind {
        JoinKind::Left => "left",
        JoinKind::Inner => "inner",
        JoinKind::Semi => "semi",
        JoinKind::Anti => "anti",
    }
}

/// The columns that a join compares, as they are written.
pub(crate) fn on(spec: &JoinSpec) -> String {
    let on = spec.on.iter().map(|on| match &on.key {
        Some(key) if *key != on.fact => format!("{} = {key}", on.fact),
        _ => on.fact.clone(),
    });
    on.collect::<Vec<_>>().join(", ")
}

impl From<&JoinReport> for JoinLine {
    fn from(join: &JoinReport) -> Self {
        let top = join.missing_keys.top(KEYS_KEPT);
        Self {
            name: join.spec.alias().to_owned(),
            table: join.spec.table.clone(),
            version: join.version,
            kind: kind(&join.spec).to_owned(),
            on: on(&join.spec),
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
