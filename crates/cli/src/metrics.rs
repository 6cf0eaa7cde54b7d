//! Counters and timings for `--metrics-file`, in the text format of Prometheus.
//!
//! A metric is an event of `tracing` with the target [`TARGET`]: its field `metric` is the name, `value` the value, and all
//! others are labels. What is told twice of the same labels counts as it was told last.
//!
//! The file is for a collector that reads text files, such as that of the node exporter: a job that runs from a timer
//! has nobody to ask it for metrics. It is written at the end, also of a run that failed.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use darner_engine::Result;
use darner_store::Clock;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, filter::Targets, layer::Context as LayerContext, registry::LookupSpan,
};

use crate::{report::Report, storage::write_file};

/// The target of events that are metrics.
pub(crate) const TARGET: &str = "darner::metrics";

/// Tells a metric: `metric!("darner_rows_read", value, step, kind = "enrich")`.
macro_rules! metric {
    ($name:literal, $value:expr $(, $($labels:tt)+)?) => {
        tracing::info!(target: $crate::metrics::TARGET, metric = $name, value = $value $(, $($labels)+)?)
    };
}
pub(crate) use metric;

/// What the names of metrics mean.
const HELP: [(&str, &str); 14] = [
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
        "darner_check_rows",
        "Rows that a check has found, and that must not be there.",
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
    fn set(&self, name: &'static str, labels: &[(&str, &str)], value: f64) {
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

    /// The part of a subscriber that takes metrics out of events.
    pub(crate) fn layer<S>(self: &Arc<Self>) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let metrics = Targets::new().with_target(TARGET, Level::INFO);
        Collector(Arc::clone(self)).with_filter(metrics)
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

/// Tells what a report says of a step.
pub(crate) fn tell_report(step: &str, report: &Report) {
    metric!("darner_rows_read", float(report.rows_read), step);
    metric!("darner_rows_written", float(report.rows_written), step);
    metric!("darner_unmatched_rows", float(report.unmatched_rows), step);
    metric!("darner_bytes_written", float(report.bytes_written), step);
    metric!(
        "darner_dimensions_bytes",
        float(report.dimensions_bytes),
        step
    );
    for join in &report.joins {
        let name = join.name.as_str();
        for (result, rows) in [
            ("matched", join.matched),
            ("missed", join.missed),
            ("null_key", join.null_keys),
        ] {
            metric!("darner_join_rows", float(rows), step, join = name, result);
        }
        let dimension = join.table.as_str();
        metric!(
            "darner_dimension_rows",
            float(join.dimension_rows as u64),
            dimension
        );
    }
}

/// Takes metrics out of events.
struct Collector(Arc<Metrics>);

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let labels = fields.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        if let Some((name, _)) = HELP.iter().find(|(name, _)| *name == fields.metric) {
            self.0.set(name, &labels, fields.value);
        }
    }
}

/// The fields of an event that is a metric.
#[derive(Default)]
struct Fields {
    metric: String,
    value: f64,
    labels: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_f64(&mut self, _: &Field, value: f64) {
        self.value = value;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "metric" => value.clone_into(&mut self.metric),
            name => self.labels.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.labels.push((field.name(), format!("{value:?}")));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric needs no more than 53 bits"
)]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}
