//! What must hold of an enrichment, or else its output is not to be seen.

use std::time::Duration;

use darner_engine::{JoinKind, JoinSpec};
use darner_store::{Clock, TableSnapshot};
use indicatif::HumanCount;

use crate::{
    error::{Failure, Result},
    print,
    report::Report,
    time::duration_text,
};

/// The gates of an enrichment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates {
    /// The largest share of keys that a join may miss.
    pub(crate) max_miss_rate: Option<f64>,
    /// The least rows that the output has.
    pub(crate) min_rows: Option<u64>,
    /// The longest time since a joined table was changed.
    pub(crate) max_age: Option<Duration>,
    /// Whether a joined table without rows is a mistake. For an anti join it never is.
    pub(crate) refuses_empty: bool,
    /// Those of single joins, by their places; they go before the others.
    pub(crate) joins: Vec<JoinGates>,
}

/// The gates of one join.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinGates {
    pub(crate) max_miss_rate: Option<f64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) refuses_empty: Option<bool>,
}

impl Gates {
    fn of_join(&self, place: usize) -> JoinGates {
        let own = self.joins.get(place).cloned().unwrap_or_default();
        JoinGates {
            max_miss_rate: own.max_miss_rate.or(self.max_miss_rate),
            max_age: own.max_age.or(self.max_age),
            refuses_empty: own.refuses_empty.or(Some(self.refuses_empty)),
        }
    }

    /// What is wrong with a table that is to be joined, before any work is done.
    pub(crate) fn check_table(
        &self,
        place: usize,
        spec: &JoinSpec,
        table: &TableSnapshot,
        num_rows: usize,
    ) -> Result<()> {
        let gates = self.of_join(place);
        let name = spec.alias();
        if gates.refuses_empty == Some(true) && num_rows == 0 && spec.kind != JoinKind::Anti {
            return Err(Failure::Gate(format!(
                "{name}: the dimension has no rows: table=`{}` version=`{}`",
                spec.table,
                table.version()
            )));
        }
        if let Some(max_age) = gates.max_age {
            let age_us = Clock::default().now_us() - table.version().time_us;
            let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
            if age > max_age {
                let age = Duration::from_secs(age.as_secs().max(1));
                return Err(Failure::Gate(format!(
                    "{name}: the dimension was changed {} ago, more than the {} allowed: table=`{}` version=`{}`",
                    duration_text(age),
                    duration_text(max_age),
                    spec.table,
                    table.version()
                )));
            }
        }
        Ok(())
    }

    /// Fails if what was done must not be seen. All reasons are told.
    pub(crate) fn check(&self, report: &Report, output: &str) -> Result<()> {
        let mut reasons = Vec::new();
        for (place, join) in report.joins.iter().enumerate() {
            let Some(max) = self.of_join(place).max_miss_rate else {
                continue;
            };
            // Of an anti join the misses are what was asked for.
            if join.kind != "anti" && join.miss_rate > max {
                reasons.push(format!(
                    "{}: {:.4} of the keys are missing, more than the {max} allowed ({} of {} rows; {})",
                    join.name,
                    join.miss_rate,
                    HumanCount(join.missed),
                    HumanCount(join.matched + join.missed),
                    join.top_text(),
                ));
            }
        }
        if let Some(min) = self.min_rows
            && report.rows_written < min
        {
            reasons.push(format!(
                "{}, less than the {} asked for",
                print::counted(report.rows_written, "row"),
                HumanCount(min)
            ));
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Failure::Gate(format!(
            "{}; {output} was not written",
            reasons.join("; ")
        )))
    }
}
