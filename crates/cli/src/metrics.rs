//! Counters and timings for `--metrics-file`, in the text format of Prometheus.
//!
//! The file is for a collector that reads text files, such as that of the node exporter: a job that runs from a timer
//! has nobody to ask it for metrics. It is written at the end, also of a run that failed.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use darner_engine::{Result, write_file};
use darner_store::Clock;

use crate::report::Report;

/// What the names of metrics mean.
const HELP: [(&str, &str); 13] = [
    (
        "darner_run_success",
        "1 if the last run did all that it was to do, else 0.",
    ),
    ("darner_run_exit_code", "The exit code of the last run."),
    ("darner_run_duration_seconds", "How long the last run took."),
    (
        "darner_run_end_timestamp_seconds",
        "When the last run ended.",
    ),
    (
        "darner_step_skipped",
        "1 if nothing of the step had changed, so that it was not done.",
    ),
    ("darner_step_duration_seconds", "How long the step took."),
    (
        "darner_dimension_rows",
        "Rows loaded into the dimension, or joined.",
    ),
    (
        "darner_rows_read",
        "Fact rows read, those of files that were done before included.",
    ),
    ("darner_rows_written", "Rows of the output."),
    ("darner_unmatched_rows", "Rows among the unmatched ones."),
    ("darner_bytes_written", "Bytes of the output."),
    (
        "darner_dimensions_bytes",
        "Memory that the dimensions took.",
    ),
    (
        "darner_join_rows",
        "Rows that reached the join, by what became of them.",
    ),
];

/// Metrics of a run.
pub(crate) struct Metrics {
    started: Instant,
    /// By name, then by labels.
    values: Mutex<BTreeMap<&'static str, BTreeMap<String, f64>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            values: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Sets a metric.
    pub(crate) fn set(&self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(label, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{label}=\"{value}\"")
        });
        let labels = labels.collect::<Vec<_>>().join(",");
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.entry(name).or_default().insert(labels, value);
    }

    /// Sets what a report tells of a step.
    pub(crate) fn report(&self, step: &str, report: &Report) {
        let labels = [("step", step)];
        self.set("darner_rows_read", &labels, float(report.rows_read));
        self.set("darner_rows_written", &labels, float(report.rows_written));
        self.set(
            "darner_unmatched_rows",
            &labels,
            float(report.unmatched_rows),
        );
        self.set("darner_bytes_written", &labels, float(report.bytes_written));
        self.set(
            "darner_dimensions_bytes",
            &labels,
            float(report.dimensions_bytes),
        );
        for join in &report.joins {
            let results = [
                ("matched", join.matched),
                ("missed", join.missed),
                ("null_key", join.null_keys),
            ];
            for (result, rows) in results {
                let labels = [
                    ("step", step),
                    ("join", join.name.as_str()),
                    ("result", result),
                ];
                self.set("darner_join_rows", &labels, float(rows));
            }
            let labels = [("dimension", join.table.as_str())];
            self.set(
                "darner_dimension_rows",
                &labels,
                float(join.dimension_rows as u64),
            );
        }
    }

    /// Writes all of it, in one step.
    pub(crate) fn write(&self, path: &Path, exit_code: u8) -> Result<()> {
        self.set(
            "darner_run_success",
            &[],
            f64::from(u8::from(exit_code == 0)),
        );
        self.set("darner_run_exit_code", &[], f64::from(exit_code));
        let seconds = self.started.elapsed().as_secs_f64();
        self.set("darner_run_duration_seconds", &[], seconds);
        let now_us = u64::try_from(Clock::default().now_us()).unwrap_or(0);
        self.set("darner_run_end_timestamp_seconds", &[], float(now_us) / 1e6);
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, help) in HELP {
            let Some(series) = values.get(name) else {
                continue;
            };
            // Writing to a text never fails.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (labels, value) in series {
                let _ = match labels.as_str() {
                    "" => writeln!(text, "{name} {value}"),
                    labels => writeln!(text, "{name}{{{labels}}} {value}"),
                };
            }
        }
        write_file(path, text.as_bytes())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric needs no more than 53 bits"
)]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}
