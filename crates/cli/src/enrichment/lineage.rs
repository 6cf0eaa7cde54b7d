//! Where an output comes from, in its metadata.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::storage::shown;

/// What made an output, beside its inputs and dimensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage {
    /// The job file and the step, if there are any.
    pub(crate) job: Option<(PathBuf, String)>,
}

/// A dimension that was joined.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DimensionVersion {
    pub(crate) table: String,
    pub(crate) version: u64,
    /// When that version was committed, in UTC. Not in the metadata, so that an output can be made again byte by byte in
    /// another store.
    #[serde(skip)]
    pub(crate) committed: String,
}

impl Lineage {
    /// Pairs for the metadata of an Arrow IPC or Parquet file. They hold nothing of the moment, so that the same
    /// inputs give the same bytes.
    pub(crate) fn metadata(
        &self,
        inputs: &[PathBuf],
        dimensions: &[DimensionVersion],
    ) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (format!("darner.{name}"), value);
        let inputs: Vec<String> = inputs.iter().map(|path| text(path)).collect();
        let mut pairs = Vec::new();
        if let Some((job, step)) = &self.job {
            pairs.push(pair("job", text(job)));
            pairs.push(pair("step", step.clone()));
        }
        pairs.push(pair("inputs", serde_json::json!(inputs).to_string()));
        pairs.push(pair(
            "dimensions",
            serde_json::json!(dimensions).to_string(),
        ));
        pairs
    }
}

fn text(path: &Path) -> String {
    shown(path)
}
