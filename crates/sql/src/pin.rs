//! One version of the store for each query.

use std::{collections::BTreeMap, sync::Arc};

use darner_engine::{Error, ErrorKind, VIEW_PREFIX};
use darner_store::TableSnapshot;
use datafusion::{
    catalog::TableProvider,
    common::{config::ConfigOptions, tree_node::Transformed},
    datasource::{DefaultTableSource, provider_as_source, source_as_provider},
    error::{DataFusionError, Result},
    logical_expr::LogicalPlan,
    optimizer::AnalyzerRule,
};

use crate::{
    catalog::StoreHandle, error::to_datafusion, functions::pin_lookups, table::StoreTable,
    view::Groups,
};

/// Lets all tables of one catalog that a query reads or looks into be as of one commit: the newest one when the query is planned.
///
/// A table is looked up by its name when a statement is read, one after the other, and commits may come between. A plan
/// that is kept and run again reads what is there then.
#[derive(Debug)]
pub(crate) struct PinSnapshots;

impl AnalyzerRule for PinSnapshots {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut moments = Moments::default();
        let plan = pin_lookups(plan, &mut moments)?;
        let pinned = plan.transform_down_with_subqueries(|plan| {
            let LogicalPlan::TableScan(mut scan) = plan else {
                return Ok(Transformed::no(plan));
            };
            if let Some(table) = pin(&scan.source, &mut moments)? {
                scan.source = provider_as_source(table);
                return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
            }
            Ok(Transformed::no(LogicalPlan::TableScan(scan)))
        })?;
        Ok(pinned.data)
    }

    fn name(&self) -> &'static str {
        "pin_snapshots"
    }
}

/// The tables of the catalogs that a query names, each at the moment in which it was met first.
#[derive(Default)]
pub(crate) struct Moments(Vec<Moment>);

impl Moments {
    /// A table of a catalog at its moment.
    pub(crate) fn table(
        &mut self,
        handle: &Arc<StoreHandle>,
        name: &str,
    ) -> Option<&TableSnapshot> {
        let at = self
            .0
            .iter()
            .position(|moment| Arc::ptr_eq(&moment.handle, handle));
        let at = at.unwrap_or_else(|| {
            self.0.push(Moment::now(handle));
            self.0.len() - 1
        });
        self.0[at].tables.get(name)
    }
}

/// The tables of a catalog at one moment.
struct Moment {
    handle: Arc<StoreHandle>,
    tables: BTreeMap<String, TableSnapshot>,
}

impl Moment {
    fn now(handle: &Arc<StoreHandle>) -> Self {
        let tables = handle.store().tables();
        Self {
            handle: Arc::clone(handle),
            tables: tables
                .into_iter()
                .map(|table| (table.name().to_owned(), table))
                .collect(),
        }
    }
}

/// The table of a scan as of the query's moment, if it is one that changes.
fn pin(
    source: &Arc<dyn datafusion::logical_expr::TableSource>,
    moments: &mut Moments,
) -> Result<Option<Arc<dyn TableProvider>>> {
    if source.downcast_ref::<DefaultTableSource>().is_none() {
        return Ok(None);
    }
    let provider = source_as_provider(source)?;
    if let Some(groups) = provider.downcast_ref::<Groups>() {
        return pin_groups(groups, moments).map(Some);
    }
    let Some(table) = provider.downcast_ref::<StoreTable>() else {
        return Ok(None);
    };
    let Some(handle) = table.handle() else {
        return Ok(None);
    };
    let name = table.snapshot().name();
    let changed = |what: &str| changed(name, what);
    let now = moments
        .table(handle, name)
        .ok_or_else(|| changed("dropped"))?;
    if now.schema() != table.snapshot().schema()
        || now.spec().key_columns() != table.snapshot().spec().key_columns()
    {
        return Err(changed("made anew with other columns"));
    }
    let now = StoreTable::of(Arc::clone(handle), now.clone());
    Ok(Some(Arc::new(now)))
}

/// The groups of a view as of the query's moment.
fn pin_groups(groups: &Groups, moments: &mut Moments) -> Result<Arc<dyn TableProvider>> {
    let name = groups.table.name();
    let handle = Arc::clone(groups.handle());
    let now = moments
        .table(&handle, name)
        .ok_or_else(|| changed(name, "dropped"))?;
    let defined = handle.store().watermark(&format!("{VIEW_PREFIX}{name}"));
    if now.schema() != groups.table.schema()
        || defined.map(|watermark| watermark.version.number) != Some(groups.defined)
    {
        return Err(changed(name, "made anew"));
    }
    Ok(Arc::new(groups.at(now.clone())))
}

fn changed(name: &str, what: &str) -> DataFusionError {
    to_datafusion(Error::new(
        ErrorKind::Conflict,
        format!("table was {what} while the query was planned: table=`{name}`; try again"),
    ))
}
