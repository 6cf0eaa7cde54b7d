//! A store as a catalog of DataFusion.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use darner_engine::{Error, is_view};
use darner_store::{Store, TableSnapshot};
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    common::TableReference,
    datasource::MemTable,
    error::Result,
    execution::SessionState,
    logical_expr::TableType,
    optimizer::AnalyzerRule,
    prelude::SessionContext,
};

use crate::{
    cache::DimensionCache,
    copy::WholeCopies,
    create::{drop_stored, store_table, taken},
    error::to_datafusion,
    functions, lookup_join,
    options::DarnerOptions,
    pin::PinSnapshots,
    table::StoreTable,
    view::{self, ViewCache},
    write::{WriteLocks, WriteRule},
};

/// The one schema of a store's catalog.
pub const SCHEMA: &str = "public";

/// Makes a store a catalog of a session: its tables are `name.public.TABLE`, and come and go with those of the store.
///
/// All tables of it that one query reads are as of one commit, the newest when the query is planned. The session can
/// change them, make and drop them, learns to join with them by lookups, and has the options of [`DarnerOptions`] and the
/// functions `darner_at`, `darner_history`, `darner_changes`, `dim_get` and `dim_has`. What it copies to one local file
/// is there as a whole or not at all. See [`sql`](crate::sql) for what DataFusion does not do well by itself when tables
/// are made of queries, or replaced.
///
/// Do this before statements are prepared: the session forgets those that were.
///
/// # Examples
/// ```
/// # use std::sync::Arc;
/// # use datafusion::prelude::SessionContext;
/// # fn count(store: Arc<darner_store::Store>) -> datafusion::error::Result<()> {
/// let context = SessionContext::new();
/// darner_sql::register(&context, store, "darner");
/// // context.sql("SELECT count(*) FROM darner.public.securities")
/// # Ok(())
/// # }
/// ```
pub fn register(context: &SessionContext, store: Arc<Store>, name: &str) -> Arc<StoreCatalog> {
    let catalog = Arc::new(StoreCatalog::new(store));
    context.register_catalog(name, Arc::clone(&catalog) as _);
    DarnerOptions::add_to(context);
    lookup_join::install(context);
    let catalogs = Catalogs::of(context);
    catalogs.add(name, catalog.handle());
    functions::register(context, &catalogs);
    // A write keeps its input to plan it again, so that tables and lookups in it are found anew each time: it comes first.
    let rules: [Arc<dyn AnalyzerRule + Send + Sync>; 3] = [
        Arc::new(WriteRule),
        Arc::new(PinSnapshots),
        Arc::new(WholeCopies),
    ];
    let state = context.state();
    // One rule serves all catalogs of a session.
    for rule in rules {
        let known = &state.analyzer().rules;
        if known.iter().all(|known| known.name() != rule.name()) {
            context.add_analyzer_rule(rule);
        }
    }
    catalog
}

/// A store that several sessions can share.
#[derive(Debug)]
pub struct StoreCatalog {
    schema: Arc<StoreSchema>,
}

impl StoreCatalog {
    /// Makes a catalog of a store.
    pub fn new(store: Arc<Store>) -> Self {
        let handle = Arc::new(StoreHandle {
            store: RwLock::new(store),
            writes: WriteLocks::default(),
            dimensions: Arc::default(),
            views: ViewCache::default(),
        });
        Self {
            schema: Arc::new(StoreSchema {
                handle,
                others: RwLock::default(),
            }),
        }
    }

    /// What all tables of the catalog share.
    pub(crate) fn handle(&self) -> &Arc<StoreHandle> {
        &self.schema.handle
    }

    /// Goes on with another opening of the store, for the statements that are planned from now on.
    pub fn set_store(&self, store: Arc<Store>) {
        self.schema.handle.set(store);
    }
}

impl CatalogProvider for StoreCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == SCHEMA).then(|| Arc::clone(&self.schema) as _)
    }
}

/// The stores of a session by the names of their catalogs, the newest first, kept in its configuration: a session may give
/// out its catalogs in a wrapping of its own, for instance where files are tables, and then nobody sees whose they are.
#[derive(Debug, Default)]
pub(crate) struct Catalogs(RwLock<Vec<(String, Arc<StoreHandle>)>>);

impl Catalogs {
    /// Those of a session, the same each time.
    fn of(context: &SessionContext) -> Arc<Self> {
        let state = context.state_ref();
        let mut state = state.write();
        let config = state.config_mut();
        config.get_extension().unwrap_or_else(|| {
            let new = Arc::new(Self::default());
            config.set_extension(Arc::clone(&new));
            new
        })
    }

    fn add(&self, name: &str, handle: &Arc<StoreHandle>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| known != name);
        all.insert(0, (name.to_owned(), Arc::clone(handle)));
    }

    fn all(&self) -> Vec<(String, Arc<StoreHandle>)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }

    /// The store whose catalog has this name in a session, if it is one.
    pub(crate) fn handle(state: &SessionState, name: &str) -> Option<Arc<StoreHandle>> {
        let catalog = state.catalog_list().catalog(name)?;
        if let Some(catalog) = catalog.downcast_ref::<StoreCatalog>() {
            return Some(Arc::clone(catalog.handle()));
        }
        let all = state.config().get_extension::<Self>()?.all();
        let found = all.into_iter().find(|(known, _)| known == name);
        found.map(|(_, handle)| handle)
    }

    /// The catalog that has a table, and the table's name there.
    pub(crate) fn find(&self, table: &str) -> darner_engine::Result<(Arc<StoreHandle>, String)> {
        let (handle, name) = self.find_stored(table)?;
        // What is stored of it are states, and no rows.
        if is_view(&handle.store(), &name) {
            return Err(Error::invalid(format!(
                "this looks into tables, and not into materialized views: view=`{name}`; read the view in FROM"
            )));
        }
        Ok((handle, name))
    }

    fn find_stored(&self, table: &str) -> darner_engine::Result<(Arc<StoreHandle>, String)> {
        let all = self.all();
        let has = |handle: &StoreHandle, name: &str| handle.store().table(name).is_ok();
        // As it stands, so that names with points and capitals need no quotes inside the quotes.
        if let Some((_, handle)) = all.iter().find(|(_, handle)| has(handle, table)) {
            return Ok((Arc::clone(handle), table.to_owned()));
        }
        let name = TableReference::parse_str(table);
        let is_schema = name.schema().is_none_or(|schema| schema == SCHEMA);
        let is_catalog = |catalog: &str| name.catalog().is_none_or(|name| name == catalog);
        let mut handles = all.iter().filter(|(catalog, _)| is_catalog(catalog));
        let found = handles.find(|(_, handle)| is_schema && has(handle, name.table()));
        if let Some((_, handle)) = found {
            return Ok((Arc::clone(handle), name.table().to_owned()));
        }
        // The error names the tables that there are.
        match all.first() {
            Some((_, handle)) => {
                handle.store().table(table)?;
                Ok((Arc::clone(handle), table.to_owned()))
            }
            None => Err(Error::not_found(format!(
                "no such table: table=`{table}`; no store is registered"
            ))),
        }
    }

    /// A table as it is now.
    pub(crate) fn table(
        &self,
        table: &str,
    ) -> darner_engine::Result<(Arc<StoreHandle>, TableSnapshot)> {
        let (handle, name) = self.find(table)?;
        let snapshot = handle.store().table(&name)?;
        Ok((handle, snapshot))
    }
}

/// What everything that was planned on one catalog shares.
pub(crate) struct StoreHandle {
    store: RwLock<Arc<Store>>,
    /// Held by statements that change tables.
    pub(crate) writes: WriteLocks,
    dimensions: Arc<DimensionCache>,
    /// Views that were planned to be read.
    pub(crate) views: ViewCache,
}

impl StoreHandle {
    /// The store as it is open now.
    pub(crate) fn store(&self) -> Arc<Store> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&store)
    }

    /// Dimensions of the store's tables, also of those that another opening of it had.
    pub(crate) fn dimensions(&self) -> &Arc<DimensionCache> {
        &self.dimensions
    }

    /// Fails if the store is open for reading only.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.store().is_read_only() {
            return Err(to_datafusion(Error::invalid(
                "the store was opened read-only: its tables cannot be changed",
            )));
        }
        Ok(())
    }

    fn set(&self, store: Arc<Store>) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = store;
    }
}

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreHandle").finish_non_exhaustive()
    }
}

/// The tables of a store, and files and views that a session put beside them.
#[derive(Debug)]
struct StoreSchema {
    handle: Arc<StoreHandle>,
    /// What is not stored: it is gone with the catalog.
    others: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl StoreSchema {
    fn other(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        others.get(name).cloned()
    }

    fn is_stored(&self, name: &str) -> bool {
        self.handle.store().table(name).is_ok()
    }
}

#[async_trait::async_trait]
impl SchemaProvider for StoreSchema {
    fn table_names(&self) -> Vec<String> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let mut names = self.handle.store().table_names();
        names.extend(others.keys().cloned());
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(other) = self.other(name) {
            return Ok(Some(other));
        }
        if let Some(view) = view::provider(&self.handle, name).await? {
            return Ok(Some(Arc::new(view)));
        }
        // To be there is all that is asked of a table before it is read.
        let found = self.handle.store().table(name).ok();
        Ok(found.map(|snapshot| {
            Arc::new(StoreTable::of(Arc::clone(&self.handle), snapshot)) as Arc<dyn TableProvider>
        }))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        match self.other(name) {
            Some(other) => Ok(Some(other.table_type())),
            None if is_view(&self.handle.store(), name) => Ok(Some(TableType::View)),
            None => Ok(self.is_stored(name).then_some(TableType::Base)),
        }
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.is_stored(&name) {
            return Err(to_datafusion(taken(&name)));
        }
        // That is what DataFusion makes of a CREATE TABLE.
        if let Some(table) = table.downcast_ref::<MemTable>() {
            store_table(&self.handle, &name, table)?;
            return Ok(None);
        }
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        Ok(others.insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let stored = self.handle.store().table(name).ok();
        if let Some(snapshot) = stored.filter(|_| self.other(name).is_none()) {
            drop_stored(&self.handle, name)?;
            return Ok(Some(Arc::new(StoreTable::new(snapshot))));
        }
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        Ok(others.remove(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.other(name).is_some() || self.is_stored(name)
    }
}
