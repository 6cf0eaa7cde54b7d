//! Views of tables follow rows that were added, changed and deleted.

use std::sync::Arc;

use arrow_array::RecordBatch;
use darner_engine::{Error, ErrorKind};
use darner_store::TableSnapshot;
use datafusion::{datasource::MemTable, error::Result};

use super::{
    changes::{TableNews, news_of},
    define::{Relation, Seen, StoredView, TableVersion},
    prepared::Prepared,
    refresh::{RefreshKind, RefreshReport, Views, fail},
    stored::{distinct_keys, missing, retain, states_at},
};
use crate::{blocking::blocking, string_views::seen_schema, table::StoreTable};

impl Views {
    /// Counts what has changed in a table.
    pub(super) async fn refresh_by_table(
        &self,
        view: &StoredView,
        relation: &Relation,
        mut seen: Seen,
        mut report: RefreshReport,
    ) -> Result<RefreshReport> {
        let facts = &relation.name;
        match news_of(&self.handle, facts, seen.facts, self.num_threads).await? {
            TableNews::None => {
                report.kind = RefreshKind::UpToDate;
                Ok(report)
            }
            TableNews::All(reason) => self.rebuild(view, &seen, reason).await,
            TableNews::Rows(now, rows) => {
                seen.facts = Some(TableVersion::of(&now));
                let rows = MemTable::try_new(seen_schema(now.schema()), vec![rows])?;
                let rows = Arc::new(rows);
                let states = self.new_states(view, rows, &mut seen).await?;
                self.merge(view, &seen, states, report).await
            }
            TableNews::Changes { now, new, old } if report.kept_dimensions.is_empty() => {
                seen.facts = Some(TableVersion::of(&now));
                let taken_back = self
                    .take_back(view, &seen, &now, &new, &old, &report)
                    .await?;
                if let Some(report) = taken_back {
                    return Ok(report);
                }
                let rows = new.into_iter().chain(old).collect();
                self.recompute_groups(view, seen, &now, rows, report).await
            }
            TableNews::Changes { .. } => {
                // The old forms of rows were joined with older dimensions: their groups are not known.
                let reason = format!(
                    "rows of `{facts}` were changed or deleted, and so was `{}`",
                    report.kept_dimensions.join("`, `")
                );
                self.rebuild(view, &seen, reason).await
            }
        }
    }

    /// Takes rows that are not there any more back from the states of their groups, and merges those that are new. `None`
    /// if that is not possible.
    async fn take_back(
        &self,
        view: &StoredView,
        seen: &Seen,
        now: &TableSnapshot,
        new: &[RecordBatch],
        old: &[RecordBatch],
        report: &RefreshReport,
    ) -> Result<Option<RefreshReport>> {
        let prepared = Prepared::of(&self.handle, view).await?;
        let Ok(retraction) = &prepared.aggregation.retraction else {
            return Ok(None);
        };
        let mut seen = seen.clone();
        let rows = |rows: &[RecordBatch]| {
            MemTable::try_new(seen_schema(now.schema()), vec![rows.to_vec()]).map(Arc::new)
        };
        let (aggregation, planned, new) = self.new_states(view, rows(new)?, &mut seen).await?;
        let (_, _, old) = self.new_states(view, rows(old)?, &mut seen).await?;
        self.check_dimensions(view, &seen)?;
        let (new, old) = (new.rows, old.rows);
        let touched = new.iter().chain(&old).map(|rows| rows.column(0));
        let mut states = blocking(|| states_at(&view.table, touched))?;
        states.extend(new);
        let all = aggregation.merge(&states, &planned.state).await?;
        let old = aggregation.merge(&old, &planned.state).await?;
        let Some((left, gone)) = retraction.take_back(&aggregation, &all, &old)? else {
            return Ok(None);
        };
        let mut report = report.clone();
        report.num_groups = left.num_rows() as u64;
        report.num_groups_removed = gone.len() as u64;
        report.version = self.commit_groups(view, &seen, &left, Some(gone))?;
        Ok(Some(report))
    }

    /// Fails if a dimension has changed since a refresh began to join rows with it: the old forms of rows were perhaps
    /// joined with what they were not counted with.
    fn check_dimensions(&self, view: &StoredView, seen: &Seen) -> Result<()> {
        if self.changed_dimensions(seen).is_empty() {
            return Ok(());
        }
        fail(Error::new(
            ErrorKind::Conflict,
            format!(
                "a dimension of the view has changed meanwhile: view=`{}`; try again",
                view.name
            ),
        ))
    }

    /// Computes the groups of some rows of the facts anew, from all of them. `rows` are the old and the new forms of those
    /// that have changed.
    async fn recompute_groups(
        &self,
        view: &StoredView,
        mut seen: Seen,
        now: &TableSnapshot,
        rows: Vec<RecordBatch>,
        mut report: RefreshReport,
    ) -> Result<RefreshReport> {
        let changed = MemTable::try_new(seen_schema(now.schema()), vec![rows])?;
        let changed = Arc::new(changed);
        let (aggregation, _, touched) = self.new_states(view, changed, &mut seen).await?;
        let keys = distinct_keys(&touched.rows);
        let all = Arc::new(StoreTable::past(&self.handle, now.clone()));
        let (_, planned, states) = self.new_states(view, all, &mut seen).await?;
        self.check_dimensions(view, &seen)?;
        let merged = aggregation
            .merge(&retain(&states.rows, &keys)?, &planned.state)
            .await?;
        let gone = missing(&keys, &merged);
        report.kind = RefreshKind::GroupsRecomputed;
        report.num_groups = merged.num_rows() as u64;
        report.num_groups_removed = gone.len() as u64;
        report.version = self.commit_groups(view, &seen, &merged, Some(gone))?;
        Ok(report)
    }
}
