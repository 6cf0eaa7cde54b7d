//! What an enrichment is to do.

use std::path::PathBuf;

use darner_engine::{Encoding, JoinSpec, SinkOptions, SourceOptions, Written};
use darner_store::AsOf;

use super::{Gates, Lineage};
use crate::report::Report;

/// One enrichment, from the command line or from a job.
#[derive(Clone)]
pub(crate) struct Plan {
    /// What to call it on the progress line.
    pub(crate) name: String,
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) source_options: SourceOptions,
    pub(crate) select: Option<Vec<String>>,
    pub(crate) joins: Vec<JoinSpec>,
    /// Which rows are taken: a condition in SQL. Facts that do not meet it are not joined, where it names columns of
    /// theirs alone.
    pub(crate) filter: Option<String>,
    /// The columns that come out, computed in SQL; all unless given.
    pub(crate) columns: Option<Vec<String>>,
    /// Which state of the dimension tables is joined; that of now unless given.
    pub(crate) as_of: Option<AsOf>,
    pub(crate) encoding: Encoding,
    pub(crate) output: PathBuf,
    pub(crate) sink_options: SinkOptions,
    pub(crate) unmatched: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) gates: Gates,
    pub(crate) lineage: Lineage,
    /// Whether to measure what each join takes.
    pub(crate) is_profiled: bool,
}

/// What an enrichment has done.
pub(crate) struct Done {
    pub(crate) report: Report,
    pub(crate) written: Written,
    pub(crate) num_unmatched: u64,
    pub(crate) seconds: f64,
}
