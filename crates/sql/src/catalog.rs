//! A store as a catalog of DataFusion.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use darner_store::Store;
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    common::{exec_err, not_impl_err},
    error::Result,
    logical_expr::TableType,
    optimizer::AnalyzerRule,
    prelude::SessionContext,
};

use crate::{
    cache::DimensionCache, lookup_join, options::DarnerOptions, pin::PinSnapshots,
    table::StoreTable,
};

/// The one schema of a store's catalog.
pub const SCHEMA: &str = "public";

/// Makes a store a catalog of a session: its tables are `name.public.TABLE`, and come and go with those of the store.
///
/// All tables of it that one query reads are as of one commit, the newest when the query is planned.
///
/// The session learns to join with these tables by lookups, and the options of [`DarnerOptions`]. Do this before
/// statements are prepared: the session forgets those that were.
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
    let state = context.state();
    // One rule serves all catalogs of a session.
    let has_rule = state
        .analyzer()
        .rules
        .iter()
        .any(|rule| rule.name() == PinSnapshots.name());
    if !has_rule {
        context.add_analyzer_rule(Arc::new(PinSnapshots));
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
            dimensions: Arc::default(),
        });
        Self {
            schema: Arc::new(StoreSchema {
                handle,
                others: RwLock::default(),
            }),
        }
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

/// What everything that was planned on one catalog shares.
pub(crate) struct StoreHandle {
    store: RwLock<Arc<Store>>,
    dimensions: Arc<DimensionCache>,
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
        // To be there is all that is asked of a table before it is read.
        let found = self.handle.store().table(name).ok();
        Ok(found.map(|snapshot| {
            Arc::new(StoreTable::of(Arc::clone(&self.handle), snapshot)) as Arc<dyn TableProvider>
        }))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        match self.other(name) {
            Some(other) => Ok(Some(other.table_type())),
            None => Ok(self.is_stored(name).then_some(TableType::Base)),
        }
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.is_stored(&name) {
            return exec_err!("name is taken: table=`{name}`");
        }
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        Ok(others.insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.is_stored(name) {
            return not_impl_err!("tables of the store cannot be dropped in SQL: table=`{name}`");
        }
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        Ok(others.remove(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.other(name).is_some() || self.is_stored(name)
    }
}
