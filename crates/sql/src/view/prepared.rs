//! A view's query, planned on its own or on some of its sources' rows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_schema::SchemaRef;
use darner_engine::{Error, ErrorKind, expand};
use darner_store::{TableSnapshot, TableSpec};
use datafusion::{
    catalog::TableProvider,
    common::{Column, TableReference},
    datasource::provider_as_source,
    error::Result,
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
};

use super::{
    aggregation::Aggregation,
    define::{Definition, FactsKind, Relation, StoredView, TableVersion},
    query,
    read::{Groups, MaterializedView},
    relation::Placeholder,
    shape,
};
use crate::{
    catalog::StoreHandle, error::to_datafusion, files, string_views::seen_schema, table::StoreTable,
};

/// The key of a table that has the rows of a view, and no states.
pub(crate) const ROW: &str = "row";

/// Views that were planned to be read, by name.
#[derive(Debug, Default)]
pub(crate) struct ViewCache(Mutex<HashMap<String, (u64, Arc<Prepared>)>>);

impl ViewCache {
    fn get(&self, view: &StoredView) -> Option<Arc<Prepared>> {
        let views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (defined, prepared) = views.get(&view.name)?;
        (*defined == view.defined).then(|| Arc::clone(prepared))
    }

    fn put(&self, view: &StoredView, prepared: &Arc<Prepared>) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.insert(view.name.clone(), (view.defined, Arc::clone(prepared)));
    }
}

/// A view of states, planned to be read.
#[derive(Debug)]
pub(crate) struct Prepared {
    plan: LogicalPlan,
    pub(crate) aggregation: Arc<Aggregation>,
}

impl Prepared {
    /// Plans a view on its relations as they were when it was made: so it can be read without them.
    async fn plan(definition: &Definition) -> Result<Self> {
        let planned = Planned::without_rows(definition).await?;
        Ok(Self {
            aggregation: Arc::new(planned.aggregation().await?),
            plan: planned.plan,
        })
    }

    /// Those of a view, planned once.
    pub(crate) async fn of(handle: &StoreHandle, view: &StoredView) -> Result<Arc<Self>> {
        if let Some(prepared) = handle.views.get(view) {
            return Ok(prepared);
        }
        let prepared = Arc::new(Self::plan(&view.definition).await?);
        check_states(view, prepared.aggregation.spec.as_ref())?;
        handle.views.put(view, &prepared);
        Ok(prepared)
    }

    /// The plan of the view over finished groups, which [`Groups`] gives.
    pub(crate) fn over(
        &self,
        scan: LogicalPlanBuilder,
        definition: &Definition,
    ) -> Result<LogicalPlan> {
        let stored: Vec<Column> = scan.schema().columns();
        let columns = stored.into_iter().zip(self.aggregation.output.iter());
        let columns = columns.map(|(column, (relation, field))| {
            Expr::Column(column).alias_qualified(relation.cloned(), field.name())
        });
        let groups = scan.project(columns.collect::<Vec<_>>())?.build()?;
        let plan = shape::over_groups(&self.plan, &Arc::new(groups))?;
        with_names(plan, &definition.columns)
    }
}

/// Fails if states were stored by a version that has others.
pub(crate) fn check_states(view: &StoredView, spec: &TableSpec) -> Result<()> {
    if view.table.spec().is_same_shape(spec) {
        return Ok(());
    }
    Err(to_datafusion(Error::new(
        ErrorKind::Data,
        format!(
            "states of the view were stored by another version of Darner or of DataFusion (`{}`, this is `{}`): view=`{}`; \
             rebuild it (REFRESH MATERIALIZED VIEW {} REBUILD), or drop it and create it anew",
            view.definition.datafusion,
            datafusion::DATAFUSION_VERSION,
            view.name,
            view.name
        ),
    )))
}

/// A view as a table of queries; `None` if the name is of no view.
pub(crate) async fn provider(
    handle: &Arc<StoreHandle>,
    name: &str,
) -> Result<Option<MaterializedView>> {
    let found = StoredView::find(&handle.store(), name).map_err(to_datafusion)?;
    match found {
        Some(view) => provider_of(handle, &view).await.map(Some),
        None => Ok(None),
    }
}

pub(crate) async fn provider_of(
    handle: &Arc<StoreHandle>,
    view: &StoredView,
) -> Result<MaterializedView> {
    let definition = &view.definition;
    let plan = if definition.is_incremental() {
        let prepared = Prepared::of(handle, view).await?;
        let groups = Groups::new(
            Arc::clone(handle),
            view.table.clone(),
            view.defined,
            Arc::clone(&prepared.aggregation),
        );
        let groups =
            LogicalPlanBuilder::scan("groups", provider_as_source(Arc::new(groups)), None)?;
        prepared.over(groups, definition)?
    } else {
        let table = StoreTable::of(Arc::clone(handle), view.table.clone());
        let scan = LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(table)), None)?;
        let columns = scan.schema().columns().into_iter().skip(1);
        let rows = scan.project(columns.map(Expr::Column).collect::<Vec<_>>())?;
        with_names(rows.build()?, &definition.columns)?
    };
    Ok(MaterializedView::new(&view.name, plan, &definition.query))
}

/// A plan whose columns have these names, if any are given, and no qualifiers.
fn with_names(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(place, column)| {
        let name = names.get(place).unwrap_or(&column.name).clone();
        Expr::Column(column).alias(name)
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// A view's query on relations that have rows, or have none.
pub(crate) struct Planned {
    pub(crate) state: SessionState,
    pub(crate) plan: LogicalPlan,
    /// The tables that it reads.
    pub(crate) tables: Vec<TableSnapshot>,
}

impl Planned {
    /// On the relations as they were when the view was made.
    async fn without_rows(definition: &Definition) -> Result<Self> {
        let state = query::base(1)?;
        let statement = query::parse(&state, &definition.query)?;
        let mut relations = Vec::new();
        for name in query::relations(&state, &statement)? {
            let (kind, relation) = remembered(definition, &name)?;
            let placeholder = Placeholder::remembered(kind, relation, None);
            let placeholder = placeholder.map_err(to_datafusion)?;
            relations.push((name, Arc::new(placeholder) as Arc<dyn TableProvider>));
        }
        let (state, plan) = query::analyze(&state, statement, relations).await?;
        Ok(Self {
            state,
            plan,
            tables: Vec::new(),
        })
    }

    /// On dimensions as they are now, and these facts.
    pub(crate) async fn on_facts(
        handle: &Arc<StoreHandle>,
        definition: &Definition,
        facts: Arc<dyn TableProvider>,
        num_threads: usize,
    ) -> Result<Self> {
        let tables = handle.store().tables();
        let state = query::base(num_threads)?;
        let statement = query::parse(&state, &definition.query)?;
        let mut relations = Vec::new();
        for name in query::relations(&state, &statement)? {
            let (kind, relation) = remembered(definition, &name)?;
            let is_facts = definition
                .facts
                .as_ref()
                .is_some_and(|facts| facts.relation.name == relation.name);
            let rows: Arc<dyn TableProvider> = if is_facts {
                check_same(relation, &facts.schema())?;
                Arc::clone(&facts)
            } else {
                let table = tables.iter().find(|table| table.name() == relation.name);
                let table = table.ok_or_else(|| {
                    to_datafusion(Error::not_found(format!(
                        "a table that the view reads is gone: table=`{}`; make it again, or drop the view",
                        relation.name
                    )))
                })?;
                check_columns(relation, table)?;
                Arc::new(StoreTable::past(handle, table.clone()))
            };
            let placeholder = Placeholder::remembered(kind, relation, Some(rows));
            let placeholder = placeholder.map_err(to_datafusion)?;
            relations.push((name, Arc::new(placeholder) as Arc<dyn TableProvider>));
        }
        let (state, plan) = query::analyze(&state, statement, relations).await?;
        Ok(Self {
            tables: shape::stored_tables(&plan)?,
            state,
            plan,
        })
    }

    /// On all relations as they are now. `pushed` is what programs give the rows of.
    pub(crate) async fn on_all(
        handle: &Arc<StoreHandle>,
        query: &str,
        pushed: Option<&Relation>,
        num_threads: usize,
    ) -> Result<Self> {
        let store = handle.store();
        let tables = store.tables();
        let state = query::base(num_threads)?;
        let statement = query::parse(&state, query)?;
        let mut relations = Vec::new();
        for name in query::relations(&state, &statement)? {
            let place = name.table();
            let is_here = is_here(&name);
            let is_pushed = pushed.filter(|pushed| is_here && pushed.name == place);
            let table = tables.iter().find(|table| is_here && table.name() == place);
            let placeholder = if let Some(relation) = is_pushed {
                let rows = datafusion::datasource::MemTable::try_new(
                    relation.schema().map_err(to_datafusion)?,
                    vec![Vec::new()],
                )?;
                Placeholder::remembered(FactsKind::Pushed, relation, Some(Arc::new(rows)))
                    .map_err(to_datafusion)?
            } else if let Some(view) = Box::pin(provider(handle, place)).await?.filter(|_| is_here)
            {
                Placeholder::new(place, None, Arc::new(view))
            } else if let Some(table) = table {
                let rows = StoreTable::past(handle, table.clone());
                Placeholder::new(place, Some(FactsKind::Table), Arc::new(rows))
            } else if matches!(name, TableReference::Bare { .. }) && files::has_path(place) {
                let rows = files::file_table(&state, place).await;
                let rows = rows.map_err(to_datafusion)?;
                // Of directories inside a directory, DataFusion makes columns.
                let has_files = expand(&[place.to_owned()]).is_ok();
                Placeholder::new(place, has_files.then_some(FactsKind::Files), rows)
            } else {
                return Err(to_datafusion(no_such_relation(&store, &name)));
            };
            relations.push((name, Arc::new(placeholder) as Arc<dyn TableProvider>));
        }
        let (state, plan) = query::analyze(&state, statement, relations).await?;
        Ok(Self {
            tables: shape::stored_tables(&plan)?,
            state,
            plan,
        })
    }

    /// The aggregate whose states are stored, planned.
    pub(crate) async fn aggregation(&self) -> Result<Aggregation> {
        match shape::shape_of(&self.plan)? {
            Ok(shape) => Aggregation::plan(&shape, &self.state).await,
            Err(reason) => Err(to_datafusion(Error::internal(format!(
                "a view that was incremental is not any more: {reason}"
            )))),
        }
    }

    /// The tables that were read, but the facts.
    pub(crate) fn dimensions(&self, definition: &Definition) -> Vec<(String, TableVersion)> {
        let facts = definition.facts.as_ref();
        let is_facts = |table: &&TableSnapshot| {
            facts.is_some_and(|facts| {
                facts.kind == FactsKind::Table && facts.relation.name == table.name()
            })
        };
        let dimensions = self.tables.iter().filter(|table| !is_facts(table));
        let mut dimensions: Vec<(String, TableVersion)> = dimensions
            .map(|table| (table.name().to_owned(), TableVersion::of(table)))
            .collect();
        dimensions.sort_by(|left, right| left.0.cmp(&right.0));
        dimensions.dedup();
        dimensions
    }
}

/// Whether a name is one of the store's own catalog.
fn is_here(name: &TableReference) -> bool {
    name.schema().is_none_or(|schema| schema == crate::SCHEMA)
        && name
            .catalog()
            .is_none_or(|catalog| catalog == crate::session::CATALOG)
}

/// A relation as the view's definition has it.
fn remembered<'d>(
    definition: &'d Definition,
    name: &TableReference,
) -> Result<(FactsKind, &'d Relation)> {
    let facts = definition.facts.iter();
    let facts = facts.map(|facts| (facts.kind, &facts.relation));
    let dimensions = definition.dimensions.iter();
    let dimensions = dimensions.map(|relation| (FactsKind::Table, relation));
    let mut all = facts.chain(dimensions);
    all.find(|(_, relation)| relation.name == name.table())
        .ok_or_else(|| {
            to_datafusion(Error::internal(format!(
                "a view reads what it did not when it was made: relation=`{name}`"
            )))
        })
}

/// Fails if a table that rows are joined with has lost columns, or has others.
fn check_columns(relation: &Relation, table: &TableSnapshot) -> Result<()> {
    check_same(relation, &seen_schema(table.schema()))?;
    if relation.key() == table.spec().key_columns() {
        return Ok(());
    }
    other_columns(relation)
}

/// Fails if rows have other columns than the view was made for, or the same in another order: plans name them by place.
fn check_same(relation: &Relation, found: &SchemaRef) -> Result<()> {
    let expected = relation.schema().map_err(to_datafusion)?;
    let (expected, found) = (expected.fields(), found.fields());
    let is_same = expected.len() == found.len()
        && expected.iter().zip(found).all(|(left, right)| {
            left.name() == right.name() && left.data_type() == right.data_type()
        });
    if is_same {
        return Ok(());
    }
    other_columns(relation)
}

fn other_columns(relation: &Relation) -> Result<()> {
    Err(to_datafusion(Error::invalid(format!(
        "a table that the view reads has other columns or another key than when the view was made: table=`{}`; create \
         the view anew (CREATE OR REPLACE MATERIALIZED VIEW)",
        relation.name
    ))))
}

fn no_such_relation(store: &darner_store::Store, name: &TableReference) -> Error {
    match store.table(name.table()) {
        Err(error) => error.context("a view's query"),
        Ok(_) => Error::not_found(format!(
            "a view reads tables and views of its store, and files: table=`{name}`"
        )),
    }
}
