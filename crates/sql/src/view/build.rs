//! Views are computed from all that their sources have.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use darner_engine::Error;
use darner_store::{TableSpec, Version};
use datafusion::{
    catalog::TableProvider, datasource::MemTable, error::Result, physical_plan::collect,
};

use super::{
    define::{self, Definition, FactsKind, Seen, StoredView, TableVersion},
    prepared::{Planned, ROW},
    refresh::{RefreshKind, RefreshReport, Views, fail, in_files},
    shape,
    sources::{SeenFile, all_files},
};
use crate::{blocking::blocking, error::to_datafusion, table::StoreTable};

impl Views {
    /// Reads all sources, and replaces what is stored.
    pub(super) async fn rebuild(
        &self,
        view: &StoredView,
        seen: &Seen,
        reason: String,
    ) -> Result<RefreshReport> {
        let name = &view.name;
        if seen.num_pushed_rows > 0 || view.definition.facts_kind() == Some(FactsKind::Pushed) {
            return fail(Error::invalid(format!(
                "a view of rows that were pushed cannot be rebuilt, because they cannot be read again: view=`{name}` \
                 pushed_rows=`{}`; {reason}; to start over, drop it and create it anew",
                seen.num_pushed_rows
            )));
        }
        let mut definition = view.definition.clone();
        datafusion::DATAFUSION_VERSION.clone_into(&mut definition.datafusion);
        let built = self.build(name, &definition, seen).await?;
        let version = self.commit_all(name, Some(&definition), Some(view), &built)?;
        let report = RefreshReport::new(name, RefreshKind::Rebuilt);
        Ok(built.told_in(report, Some(reason), version))
    }

    /// Computes a view from all that its sources have.
    pub(super) async fn build(
        &self,
        name: &str,
        definition: &Definition,
        before: &Seen,
    ) -> Result<Built> {
        let mut seen = Seen::default();
        let Some(facts) = &definition.facts else {
            return self.build_rows(definition, seen).await;
        };
        let relation = &facts.relation;
        let rows: Arc<dyn TableProvider> = match facts.kind {
            FactsKind::Pushed => Arc::new(MemTable::try_new(
                relation.schema().map_err(to_datafusion)?,
                vec![Vec::new()],
            )?),
            FactsKind::Files => {
                let files = blocking(|| all_files(name, &relation.name, &before.files));
                seen.files = files.map_err(to_datafusion)?;
                self.table_of(&seen.files, relation).await?
            }
            FactsKind::Table => {
                let table = self.handle.store().table(&relation.name);
                let table = table.map_err(to_datafusion)?;
                seen.facts = Some(TableVersion::of(&table));
                Arc::new(StoreTable::past(&self.handle, table))
            }
        };
        let planned = Planned::on_facts(&self.handle, definition, rows, self.num_threads).await?;
        let aggregation = planned.aggregation().await?;
        let shape = shape::shape_of(&planned.plan)?;
        let shape = shape.map_err(|reason| to_datafusion(Error::internal(reason)))?;
        let states = aggregation
            .states_of(&shape.aggregate.input, &planned.state)
            .await
            .map_err(|error| in_files(error, &seen.files))?;
        let merged = aggregation.merge(&states.rows, &planned.state).await?;
        seen.files
            .iter()
            .try_for_each(SeenFile::check_still)
            .map_err(to_datafusion)?;
        seen.add_dimensions(&planned.dimensions(definition));
        Ok(Built {
            seen,
            spec: TableSpec::clone(&aggregation.spec),
            batches: vec![merged],
        })
    }

    /// The rows of a view that keeps no states.
    async fn build_rows(&self, definition: &Definition, mut seen: Seen) -> Result<Built> {
        let planned =
            Planned::on_all(&self.handle, &definition.query, None, self.num_threads).await?;
        seen.add_dimensions(&planned.dimensions(definition));
        let state = &planned.state;
        let plan = state.create_physical_plan(&planned.plan).await?;
        let spec = row_spec(&plan.schema())?;
        let rows = collect(plan, state.task_ctx()).await?;
        let mut num_rows = 0;
        let mut batches = Vec::with_capacity(rows.len());
        for rows in rows {
            let end = num_rows + rows.num_rows() as u64;
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(UInt64Array::from_iter_values(num_rows..end))];
            columns.extend(rows.columns().iter().cloned());
            batches.push(RecordBatch::try_new(Arc::clone(spec.schema()), columns)?);
            num_rows = end;
        }
        Ok(Built {
            seen,
            spec,
            batches,
        })
    }

    /// Puts all rows of a view into the store, in the place of what was there, and what it is, if that is new.
    pub(super) fn commit_all(
        &self,
        name: &str,
        definition: Option<&Definition>,
        before: Option<&StoredView>,
        built: &Built,
    ) -> Result<Version> {
        let store = self.handle.store();
        let committed = blocking(|| {
            let mut transaction = store.begin()?;
            match before {
                Some(before) => {
                    transaction.require_unchanged(&before.table);
                    transaction.replace(name, built.spec.clone())?;
                }
                None => transaction.create_table(name, built.spec.clone())?,
            }
            for rows in &built.batches {
                transaction.upsert(name, rows)?;
            }
            transaction.declare_distinct(name)?;
            if let Some(definition) = definition {
                define::define(&mut transaction, name, definition)?;
            }
            define::remember(&mut transaction, name, &built.seen)?;
            transaction.commit()
        });
        committed.map_err(to_datafusion)
    }
}

/// All rows of a view's table, and what was seen of its sources.
pub(super) struct Built {
    pub(super) seen: Seen,
    pub(super) spec: TableSpec,
    pub(super) batches: Vec<RecordBatch>,
}

impl Built {
    /// A report of the commit that has put it into the store.
    pub(super) fn told_in(
        &self,
        report: RefreshReport,
        reason: Option<String>,
        version: Version,
    ) -> RefreshReport {
        RefreshReport {
            reason,
            num_files: self.seen.files.len() as u64,
            num_groups: self.batches.iter().map(|rows| rows.num_rows() as u64).sum(),
            version,
            ..report
        }
    }
}

/// The table of a view that keeps no states.
fn row_spec(schema: &Schema) -> Result<TableSpec> {
    let mut fields = vec![Field::new(ROW, DataType::UInt64, false)];
    fields.extend(
        schema
            .fields()
            .iter()
            .enumerate()
            .map(|(place, field)| Field::new(format!("c{place}"), field.data_type().clone(), true)),
    );
    TableSpec::new(&Schema::new(fields), &[ROW]).map_err(to_datafusion)
}
