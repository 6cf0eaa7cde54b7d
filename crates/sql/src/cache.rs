//! Dimensions that were built from tables, kept for the queries that come next.

use std::sync::{Arc, Mutex, PoisonError};

use darner_engine::{Dimension, Result, load_dimension};
use darner_store::{TableSnapshot, Version};

/// Dimensions that are kept.
const KEPT_MAX: usize = 8;

/// Dimensions of one store, by table, version and columns.
#[derive(Debug, Default)]
pub(crate) struct DimensionCache(Mutex<Vec<(Wanted, Arc<Dimension>)>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    table: String,
    created: Version,
    version: Version,
    columns: Vec<String>,
}

impl DimensionCache {
    /// The dimension of a table with at least these columns beside its key. Builds it if nobody has.
    pub(crate) fn get(
        &self,
        snapshot: &TableSnapshot,
        columns: &[String],
    ) -> Result<Arc<Dimension>> {
        let wanted = Wanted {
            table: snapshot.name().to_owned(),
            created: snapshot.created(),
            version: snapshot.version(),
            columns: columns.to_vec(),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, dimension)) = kept.iter().find(|(what, _)| *what == wanted) {
            return Ok(Arc::clone(dimension));
        }
        let dimension = Arc::new(load_dimension(snapshot, Some(columns))?);
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push((wanted, Arc::clone(&dimension)));
        Ok(dimension)
    }
}
