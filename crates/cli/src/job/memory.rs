//! What is remembered of a step that was done, and whether it has to be done again.
//!
//! A memory is a watermark `run/KIND/NAME` of the store: the step as the job file has it, the fingerprints of its files
//! and the versions of its tables.

use std::path::{Path, PathBuf};

use darner_engine::{Error, JoinSpec, Result};
use darner_store::Store;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    file::Job,
    step::{DimensionStep, EnrichStep},
};
use crate::{
    fingerprint::Fingerprint,
    report::Report,
    storage::{is_url, shown},
};

/// What a dimension was loaded from. Remembered by the commit that loads it.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
pub(super) struct DimensionMemory {
    step: serde_json::Value,
    inputs: Vec<Fingerprint>,
}

/// What an output was made from, and what was said about it. Remembered after it was written, so that a killed run
/// does that step once more, never not at all.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
pub(super) struct EnrichMemory {
    step: serde_json::Value,
    inputs: Vec<Fingerprint>,
    /// The versions of the joined tables, in order.
    versions: Vec<u64>,
    outputs: Vec<Fingerprint>,
    pub(super) report: Report,
}

/// Whether a step has to be done.
pub(super) enum Due<T> {
    /// All is as it was.
    No(T),
    /// For this reason.
    Yes(String),
}

impl DimensionMemory {
    pub(super) fn new(step: &DimensionStep, inputs: &[PathBuf]) -> Result<Self> {
        Ok(Self {
            step: as_json(step)?,
            inputs: Fingerprint::of_all(inputs)?,
        })
    }

    pub(super) fn name(step: &str) -> String {
        format!("run/dimension/{step}")
    }

    /// Whether the table has to be loaded; the version that holds the files, if not.
    pub(super) fn due(&self, store: &Store, name: &str) -> Due<u64> {
        let Ok(table) = store.table(name) else {
            return Due::Yes("the table is not there yet".to_owned());
        };
        let memory_name = Self::name(name);
        let Some(old) = recall::<Self>(store, &memory_name) else {
            return Due::Yes("the table was not loaded by a job".to_owned());
        };
        let changed = table.version();
        // Any later change of the table is noticed.
        let loaded = store
            .watermark(&memory_name)
            .map(|watermark| watermark.version);
        if loaded != Some(changed) {
            return Due::Yes("something else has changed the table".to_owned());
        }
        match differs(&old.step, &self.step, &old.inputs, &self.inputs) {
            Some(why) => Due::Yes(why),
            None => Due::No(changed.number),
        }
    }
}

impl EnrichMemory {
    pub(super) fn name(step: &str) -> String {
        format!("run/enrich/{step}")
    }

    /// What is so now; `outputs` and `report` come later.
    pub(super) fn new(
        store: &Store,
        step: &EnrichStep,
        joins: &[JoinSpec],
        inputs: &[PathBuf],
    ) -> Result<Self> {
        let versions = joins
            .iter()
            .map(|join| Ok(store.table(&join.table)?.version().number));
        Ok(Self {
            step: as_json(step)?,
            inputs: Fingerprint::of_all(inputs)?,
            versions: versions.collect::<Result<_>>()?,
            outputs: Vec::new(),
            report: Report::default(),
        })
    }

    /// Whether the output has to be made; what was said about it, if not.
    pub(super) fn due(
        &self,
        store: &Store,
        job: &Job,
        name: &str,
        step: &EnrichStep,
        joins: &[JoinSpec],
    ) -> Due<Report> {
        let Some(old) = recall::<Self>(store, &Self::name(name)) else {
            return Due::Yes("it was not made by this job yet".to_owned());
        };
        if let Some(why) = differs(&old.step, &self.step, &old.inputs, &self.inputs) {
            return Due::Yes(why);
        }
        let mut versions = old.versions.iter().zip(&self.versions).zip(joins);
        if let Some(((old, new), join)) = versions.find(|((old, new), _)| old != new) {
            return Due::Yes(format!(
                "{} has changed (version {new}, was {old})",
                join.table
            ));
        }
        if outputs(job, step).is_ok_and(|outputs| outputs == old.outputs) {
            Due::No(old.report)
        } else {
            Due::Yes("the output is not there any more, or not as it was written".to_owned())
        }
    }

    /// Remembers that it was done.
    pub(super) fn remember(
        mut self,
        store: &Store,
        job: &Job,
        name: &str,
        step: &EnrichStep,
        report: Report,
    ) -> Result<()> {
        self.outputs = outputs(job, step)?;
        self.report = report;
        let mut transaction = store.begin()?;
        transaction.set_watermark(&Self::name(name), &encode(&self)?)?;
        transaction.commit()?;
        Ok(())
    }
}

fn outputs(job: &Job, step: &EnrichStep) -> Result<Vec<Fingerprint>> {
    step.outputs()
        .map(|path| Fingerprint::of(&job.path(path)))
        .collect()
}

/// Why a step is not what it was, if it is not.
fn differs(
    old_step: &serde_json::Value,
    step: &serde_json::Value,
    old_inputs: &[Fingerprint],
    inputs: &[Fingerprint],
) -> Option<String> {
    if old_step != step {
        return Some("the step has changed in the job file".to_owned());
    }
    if old_inputs == inputs {
        return None;
    }
    let num_new = inputs
        .iter()
        .filter(|input| !old_inputs.contains(input))
        .count();
    Some(match (num_new, inputs) {
        (0, _) => "files are gone that were read before".to_owned(),
        (1, [_]) => "the file has changed".to_owned(),
        (new, inputs) => format!("{new} of {} files are new or have changed", inputs.len()),
    })
}

pub(super) fn as_json(step: &impl Serialize) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(step)
        .map_err(|error| Error::internal("step cannot be encoded").with_source(error))?;
    without_secrets(&mut value);
    Ok(value)
}

/// Addresses without signatures: these are another each time, and not to be kept.
fn without_secrets(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if is_url(Path::new(text)) => {
            *text = shown(Path::new(text));
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(without_secrets),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(without_secrets),
        _ => {}
    }
}

/// What was remembered; nothing if it was written by another version of this program.
fn recall<T: DeserializeOwned>(store: &Store, name: &str) -> Option<T> {
    serde_json::from_slice(&store.watermark(name)?.value).ok()
}

pub(super) fn encode(memory: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(memory)
        .map_err(|error| Error::internal("memory cannot be encoded").with_source(error))
}
