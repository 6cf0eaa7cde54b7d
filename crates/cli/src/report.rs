//! What an enrichment has done, for people and for programs.

use std::time::Duration;

use darner_engine::{EnrichReport, Error, JoinKind, JoinReport, JoinSpec, Normalize};
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Missing keys that a report shows, and that it keeps.
const KEYS_SHOWN: usize = 4;
const KEYS_KEPT: usize = 20;

/// A report as it is stored and written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub(crate) struct Report {
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    /// Files read, and the bytes of their rows as stored.
    pub(crate) inputs: Vec<String>,
    pub(crate) bytes_read: u64,
    /// 0 in a report that is written before the output is.
    pub(crate) bytes_written: u64,
    pub(crate) unmatched_rows: u64,
    /// What the dimensions took in memory.
    pub(crate) dimensions_bytes: u64,
    pub(crate) seconds: f64,
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
    /// When that version was committed, in UTC.
    #[serde(default)]
    pub(crate) committed: String,
    pub(crate) kind: String,
    pub(crate) on: String,
    /// What becomes of missed rows.
    #[serde(default)]
    pub(crate) on_miss: String,
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
            bytes_read: report.num_bytes_in,
            joins: report.joins.iter().map(JoinLine::from).collect(),
            ..Self::default()
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
    let on = spec.on.iter().enumerate().map(|(place, on)| {
        let steps = spec.normalize.get(place).into_iter().flatten();
        let fact = steps.fold(on.fact.clone(), |fact, step| match step {
            Normalize::Cast(data_type) => format!("cast({fact} as {data_type})"),
            step => format!("{step}({fact})"),
        });
        match &on.key {
            Some(key) if *key != fact => format!("{fact} = {key}"),
            _ => fact,
        }
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
            committed: String::new(),
            kind: kind(&join.spec).to_owned(),
            on: on(&join.spec),
            on_miss: join.spec.on_miss.to_string(),
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
        const HEADINGS: [&str; 7] = [
            "join",
            "on",
            "matched",
            "missed",
            "null keys",
            "rate",
            "top missing keys",
        ];
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.joins.iter().map(|join| {
            let name = match join.kind.as_str() {
                "left" if ["", "null"].contains(&join.on_miss.as_str()) => join.name.clone(),
                "left" => format!("{} ({})", join.name, join.on_miss),
                kind => format!("{kind} {}", join.name),
            };
            [
                name,
                join.on.clone(),
                HumanCount(join.matched).to_string(),
                HumanCount(join.missed).to_string(),
                HumanCount(join.null_keys).to_string(),
                join.rate_text(),
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
                let [name, on, matched, missed, null_keys, rate, top] = row;
                let line = format!(
                    "  {name:w0$}  {on:w1$}  {matched:>w2$}  {missed:>w3$}  {null_keys:>w4$}  {rate:>w5$}  {top}",
                    w0 = widths[0],
                    w1 = widths[1],
                    w2 = widths[2],
                    w3 = widths[3],
                    w4 = widths[4],
                    w5 = widths[5],
                );
                line.trim_end().to_owned()
            })
            .collect()
    }

    /// Adds what was done with another input by the same joins.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows_read += other.rows_read;
        self.rows_written += other.rows_written;
        self.inputs.extend(other.inputs.iter().cloned());
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.unmatched_rows += other.unmatched_rows;
        self.dimensions_bytes = self.dimensions_bytes.max(other.dimensions_bytes);
        self.seconds += other.seconds;
        if self.joins.is_empty() {
            self.joins.clone_from(&other.joins);
            return;
        }
        for (join, other) in self.joins.iter_mut().zip(&other.joins) {
            join.add(other);
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
    fn add(&mut self, other: &Self) {
        self.version = self.version.max(other.version);
        self.dimension_rows = self.dimension_rows.max(other.dimension_rows);
        self.rows += other.rows;
        self.matched += other.matched;
        self.missed += other.missed;
        self.null_keys += other.null_keys;
        self.miss_rate = share(self.missed, self.matched + self.missed);
        // Keys that a report did not keep may be the same as those of another.
        let is_whole = |join: &Self| join.missing_keys == join.top_missing_keys.len();
        self.missing_keys_are_more |= other.missing_keys_are_more;
        let were_whole = is_whole(self) && is_whole(other);
        for (key, rows) in &other.top_missing_keys {
            match self
                .top_missing_keys
                .iter_mut()
                .find(|known| known.0 == *key)
            {
                Some(known) => known.1 += rows,
                None => self.top_missing_keys.push((key.clone(), *rows)),
            }
        }
        self.top_missing_keys
            .sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        self.missing_keys = if were_whole {
            self.top_missing_keys.len()
        } else {
            self.missing_keys_are_more = true;
            let known = self.missing_keys.max(other.missing_keys);
            known.max(self.top_missing_keys.len())
        };
        self.top_missing_keys.truncate(KEYS_KEPT);
    }

    /// The share of the keys that were found; `-` if there were none.
    fn rate_text(&self) -> String {
        if self.matched + self.missed == 0 {
            return "-".to_owned();
        }
        let percent = (1.0 - self.miss_rate) * 100.0;
        // Not 100 % while something is missing.
        let shown = if self.missed > 0 {
            percent.min(99.99)
        } else {
            percent
        };
        format!("{shown:.2} %")
    }

    pub(crate) fn top_text(&self) -> String {
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

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than 52 bits"
)]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
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
