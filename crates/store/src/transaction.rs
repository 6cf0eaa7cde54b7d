//! Staged changes that become one commit.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow_array::RecordBatch;

use crate::{
    behind::Behind,
    catalog::{TableSpec, check_name},
    change::{self, Change, NewPage, TableId},
    error::{Error, ErrorKind, Result},
    history::Retention,
    keyspace::Keyspace,
    namespace::{StateOp, expires_us},
    page::{EncodedPage, PageEncoder, PageKind},
    settings::FLUSH_BYTES,
    store::Store,
    table::TableSnapshot,
    version::Version,
};

/// Changes to any number of tables, done together by [`commit`](Self::commit) or not at all.
///
/// Rows are encoded as they come. While they are few they wait in memory and go through the log; past
/// [`bulk_bytes`](crate::StoreOptions::bulk_bytes) they are written to the tables' files at once, where nobody sees
/// them until the commit. A transaction that is dropped leaves nothing behind that a reader could see.
///
/// # Examples
/// ```
/// # use std::sync::Arc;
/// # use arrow_array::{Int64Array, RecordBatch, StringArray};
/// # use arrow_schema::{DataType, Field, Schema};
/// # use darner_store::{Store, StoreOptions, TableSpec};
/// # let dir = tempfile::tempdir()?;
/// let schema = Arc::new(Schema::new(vec![
///     Field::new("id", DataType::Int64, false),
///     Field::new("name", DataType::Utf8, true),
/// ]));
/// let rows = RecordBatch::try_new(
///     Arc::clone(&schema),
///     vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["a", "b"]))],
/// )?;
/// let store = Store::open(dir.path(), StoreOptions::default())?;
/// let mut transaction = store.begin()?;
/// transaction.create_table("names", TableSpec::new(&schema, &["id"])?)?;
/// transaction.upsert("names", &rows)?;
/// let version = transaction.commit()?;
/// assert_eq!(store.table("names")?.version(), version);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Transaction<'s> {
    store: &'s Store,
    changes: Vec<Change>,
    /// The tables as this transaction sees them: its own changes before those of the store.
    targets: HashMap<String, Option<Target>>,
    staged_bytes: usize,
    is_bulk: bool,
    /// Pages of a bulk transaction on their way to the disk.
    behind: Behind,
    /// Pages were lost on their way: there is nothing whole to commit any more.
    has_failed: bool,
}

#[derive(Clone)]
struct Target {
    table: TableId,
    spec: Arc<TableSpec>,
    keyspace: Arc<Keyspace>,
    is_new: bool,
    is_distinct: bool,
    has_deletes: bool,
}

impl<'s> Transaction<'s> {
    pub(crate) fn new(store: &'s Store) -> Self {
        Self {
            store,
            changes: Vec::new(),
            targets: HashMap::new(),
            staged_bytes: 0,
            is_bulk: false,
            behind: Behind::default(),
            has_failed: false,
        }
    }

    /// Creates an empty table.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if there is one of that name, [`ErrorKind::Invalid`] for a name that cannot be one.
    pub fn create_table(&mut self, name: &str, spec: TableSpec) -> Result<()> {
        check_name(name)?;
        if self.find(name).is_some() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("table exists: table=`{name}`"),
            ));
        }
        let table = TableId {
            id: self.store.take_table_id(),
            incarnation: self.store.take_generation(),
        };
        let (spec, keyspace) = (Arc::new(spec), self.new_keyspace(table));
        self.changes.push(Change::Create {
            name: name.to_owned(),
            table,
            spec: Arc::clone(&spec),
            keyspace: Arc::clone(&keyspace),
        });
        self.set_target(name, table, spec, keyspace);
        Ok(())
    }

    /// Drops a table with all its rows.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn drop_table(&mut self, name: &str) -> Result<()> {
        let target = self.existing(name)?;
        self.changes.push(Change::Drop {
            name: name.to_owned(),
            table: target.table,
        });
        self.targets.insert(name.to_owned(), None);
        Ok(())
    }

    /// Empties a table; what is upserted next is all that it will hold. Its columns and key may change too.
    ///
    /// Readers see all of the old rows or all of the new ones.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn replace(&mut self, name: &str, spec: TableSpec) -> Result<()> {
        let target = self.existing(name)?;
        let incarnation = self.store.take_generation();
        let table = TableId {
            id: target.table.id,
            incarnation,
        };
        let (spec, keyspace) = (Arc::new(spec), self.new_keyspace(table));
        self.changes.push(Change::Replace {
            name: name.to_owned(),
            before: target.table,
            incarnation,
            spec: Arc::clone(&spec),
            keyspace: Arc::clone(&keyspace),
        });
        self.set_target(name, table, spec, keyspace);
        Ok(())
    }

    /// Declares that all rows that this transaction puts into a table that it has created or replaced have keys of
    /// their own. Readers need not look for replaced rows then. The caller has checked it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such table.
    pub fn declare_distinct(&mut self, name: &str) -> Result<()> {
        self.existing(name)?;
        if let Some(Some(target)) = self.targets.get_mut(name) {
            target.is_distinct = target.is_new && !target.has_deletes;
        }
        Ok(())
    }

    /// Adds rows, replacing those that have the same key. Of several rows with one key the last wins.
    ///
    /// # Shapes
    /// `rows`: the table's columns, by name, type and order; no null in a key column.
    /// # Errors
    /// [`ErrorKind::NotFound`] without such a table, [`ErrorKind::Invalid`] for rows that do not fit,
    /// [`ErrorKind::Resource`] for a row over the page limit: the transaction is as it was then.
    /// [`ErrorKind::Unavailable`] if a large transaction cannot be written: it cannot be committed then.
    pub fn upsert(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        let target = self.existing(name)?;
        target
            .spec
            .check_rows(rows)
            .map_err(|error| error.context(format!("table=`{name}`")))?;
        let schema = Arc::clone(target.spec.schema());
        let encoder = PageEncoder::new(PageKind::Upsert, schema, self.store.options().page_bytes);
        let pages = encoder.encode(rows)?;
        self.stage(name, &target, pages)
    }

    /// Removes the rows with these keys. A key that has no row is no error.
    ///
    /// # Shapes
    /// `keys`: the table's key columns, by name and type, in key order; no nulls.
    /// # Errors
    /// As for [`upsert`](Self::upsert).
    pub fn delete(&mut self, name: &str, keys: &RecordBatch) -> Result<()> {
        let target = self.existing(name)?;
        target
            .spec
            .check_keys(keys)
            .map_err(|error| error.context(format!("table=`{name}`")))?;
        let schema = Arc::clone(target.spec.key_schema());
        let encoder = PageEncoder::new(PageKind::Delete, schema, self.store.options().page_bytes);
        let pages = encoder.encode(keys)?;
        if let Some(Some(target)) = self.targets.get_mut(name) {
            target.has_deletes |= !pages.is_empty();
            target.is_distinct &= !target.has_deletes;
        }
        let target = Target {
            is_distinct: false,
            ..target
        };
        self.stage(name, &target, pages)
    }

    /// Sets a watermark: a name with bytes of the caller's, part of the commit.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that cannot be one.
    pub fn set_watermark(&mut self, name: &str, value: &[u8]) -> Result<()> {
        check_name(name)?;
        self.staged_bytes += value.len();
        self.changes.push(Change::Watermark {
            name: name.to_owned(),
            value: Some(value.to_vec()),
        });
        Ok(())
    }

    /// Removes a watermark.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that cannot be one.
    pub fn remove_watermark(&mut self, name: &str) -> Result<()> {
        check_name(name)?;
        self.changes.push(Change::Watermark {
            name: name.to_owned(),
            value: None,
        });
        Ok(())
    }

    /// Says how much of a table's past is kept from now on.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such table.
    pub fn set_retention(&mut self, name: &str, retention: Retention) -> Result<()> {
        let target = self.existing(name)?;
        self.changes.push(Change::Retain {
            name: name.to_owned(),
            table: target.table,
            retention,
        });
        Ok(())
    }

    /// Sets the value of a key of keyed state. See [`KeyedState`](crate::KeyedState).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that cannot be a namespace's, [`ErrorKind::Resource`] for a key over 64 KiB
    /// or a value over 64 MiB.
    pub fn put_state(&mut self, namespace: &str, key: &[u8], value: &[u8]) -> Result<()> {
        self.stage_state(namespace, StateOp::put(key, value, 0)?)
    }

    /// Sets the value of a key of keyed state for some time, counted from now.
    ///
    /// # Errors
    /// As for [`put_state`](Self::put_state).
    pub fn put_state_for(
        &mut self,
        namespace: &str,
        key: &[u8],
        value: &[u8],
        time_to_live: Duration,
    ) -> Result<()> {
        let expires_us = expires_us(self.store.options().clock.now_us(), time_to_live);
        self.stage_state(namespace, StateOp::put(key, value, expires_us)?)
    }

    /// Removes a key of keyed state.
    ///
    /// # Errors
    /// As for [`put_state`](Self::put_state).
    pub fn delete_state(&mut self, namespace: &str, key: &[u8]) -> Result<()> {
        self.stage_state(namespace, StateOp::delete(key)?)
    }

    /// Removes all keys of a namespace of keyed state.
    ///
    /// # Errors
    /// As for [`put_state`](Self::put_state).
    pub fn clear_state(&mut self, namespace: &str) -> Result<()> {
        self.stage_state(namespace, StateOp::Clear)
    }

    fn stage_state(&mut self, namespace: &str, op: StateOp) -> Result<()> {
        check_name(namespace)?;
        self.staged_bytes += op.num_bytes();
        match self.changes.last_mut() {
            Some(Change::State { name, ops, .. }) if name == namespace => ops.push(op),
            _ => {
                let id = self.store.namespace_id(namespace);
                self.changes.push(Change::State {
                    name: namespace.to_owned(),
                    id,
                    ops: vec![op],
                });
            }
        }
        // Large ones wait in memory; only the way of the commit is another.
        self.is_bulk |= self.staged_bytes > self.store.options().bulk_bytes;
        Ok(())
    }

    /// Refuses the commit if another one changes the table after this snapshot was taken. For changes that were made
    /// from what was read: then the rows that were read and those that are replaced are of one state.
    ///
    /// # Examples
    /// ```
    /// # use darner_store::{ErrorKind, Result, Store, TableSnapshot, Version};
    /// # fn changed(transaction: &mut darner_store::Transaction<'_>, table: &TableSnapshot) -> Result<()> { Ok(()) }
    /// # fn change(store: &Store) -> Result<Version> {
    /// loop {
    ///     let table = store.table("names")?;
    ///     let mut transaction = store.begin()?;
    ///     transaction.require_unchanged(&table);
    ///     changed(&mut transaction, &table)?;
    ///     match transaction.commit() {
    ///         Err(error) if error.kind() == ErrorKind::Conflict => {}
    ///         done => return done,
    ///     }
    /// }
    /// # }
    /// ```
    pub fn require_unchanged(&mut self, snapshot: &TableSnapshot) {
        let require = Change::Require {
            name: snapshot.name().to_owned(),
            table: snapshot.id(),
            changed: snapshot.version().number,
        };
        // Before what this transaction does to the table itself.
        self.changes.insert(0, require);
    }

    /// The columns and key of a table as this transaction sees it, or `None`.
    pub fn table_spec(&mut self, name: &str) -> Option<Arc<TableSpec>> {
        self.find(name).map(|target| target.spec)
    }

    /// Makes the changes durable and visible, and returns the commit's version. All or nothing.
    ///
    /// A transaction without changes is no commit: the answer is the version that there is.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another commit has created, replaced or dropped one of the tables meanwhile, or changed
    /// one that [`require_unchanged`](Self::require_unchanged) names; nothing is changed then. [`ErrorKind::Unavailable`] if the disk failed or is full: whether the commit is found
    /// by the next open is unknown then, but it is whole or not there.
    pub fn commit(mut self) -> Result<Version> {
        if self.has_failed {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "transaction cannot be committed because a part of it could not be written; begin another",
            ));
        }
        self.behind.end()?;
        let is_change = |change: &Change| !matches!(change, Change::Require { .. });
        if !self.changes.iter().any(is_change) {
            return Ok(self.store.version());
        }
        for change in &mut self.changes {
            if let Change::Write {
                name,
                table,
                is_distinct,
                ..
            } = change
            {
                // Deletes may have come after the first rows were staged.
                let target = self.targets.get(name.as_str()).and_then(Option::as_ref);
                *is_distinct = target.is_some_and(|t| t.table == *table && t.is_distinct);
            }
        }
        let made: Vec<Arc<Keyspace>> = self.made_keyspaces().cloned().collect();
        let result = self
            .store
            .commit(std::mem::take(&mut self.changes), self.is_bulk);
        if result.is_err() {
            for keyspace in &made {
                keyspace.drop_later();
            }
        }
        result
    }

    /// The generations that this transaction has made.
    fn made_keyspaces(&self) -> impl Iterator<Item = &Arc<Keyspace>> {
        self.changes.iter().filter_map(|change| match change {
            Change::Create { keyspace, .. } | Change::Replace { keyspace, .. } => Some(keyspace),
            _ => None,
        })
    }

    fn stage(&mut self, name: &str, target: &Target, pages: Vec<EncodedPage>) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let num_bytes = pages.iter().map(|page| page.bytes.len()).sum();
        self.staged_bytes += num_bytes;
        self.behind.note(&target.keyspace, num_bytes);
        let first_id = target.keyspace.take_page_ids(pages.len());
        let new_pages = (first_id..).zip(pages).map(|(id, page)| NewPage {
            meta: page.meta(id, 0),
            page: Some(page),
        });
        match self.changes.last_mut() {
            Some(Change::Write { table, pages, .. }) if *table == target.table => {
                pages.extend(new_pages);
            }
            _ => self.changes.push(Change::Write {
                name: name.to_owned(),
                table: target.table,
                keyspace: Arc::clone(&target.keyspace),
                is_distinct: target.is_distinct,
                pages: new_pages.collect(),
            }),
        }
        if self.staged_bytes > self.store.options().bulk_bytes {
            self.is_bulk = true;
            self.staged_bytes = 0;
            change::check(&self.changes).inspect_err(|_| self.has_failed = true)?;
            change::write_pages(&mut self.changes);
            let round_bytes = FLUSH_BYTES.min(self.store.options().bulk_bytes.saturating_mul(4));
            self.behind
                .go_on(&self.changes, round_bytes)
                .inspect_err(|_| self.has_failed = true)?;
        }
        Ok(())
    }

    fn find(&mut self, name: &str) -> Option<Target> {
        if let Some(target) = self.targets.get(name) {
            return target.clone();
        }
        let found = self.store.find_table(name).map(|table| Target {
            table: TableId {
                id: table.id,
                incarnation: table.incarnation,
            },
            spec: table.spec,
            keyspace: table.keyspace,
            is_new: false,
            is_distinct: false,
            has_deletes: false,
        });
        self.targets.insert(name.to_owned(), found.clone());
        found
    }

    fn existing(&mut self, name: &str) -> Result<Target> {
        self.find(name)
            .ok_or_else(|| self.store.no_such_table(name))
    }

    fn new_keyspace(&self, table: TableId) -> Arc<Keyspace> {
        let work_dir = self.store.work_dir();
        Arc::new(Keyspace::new(
            work_dir,
            table.id,
            table.incarnation,
            None,
            0,
        ))
    }

    fn set_target(
        &mut self,
        name: &str,
        table: TableId,
        spec: Arc<TableSpec>,
        keyspace: Arc<Keyspace>,
    ) {
        let target = Target {
            table,
            spec,
            keyspace,
            is_new: true,
            is_distinct: false,
            has_deletes: false,
        };
        self.targets.insert(name.to_owned(), Some(target));
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Not committed: its pages go with it, and generations that only this transaction knows.
        let _ = self.behind.end();
        change::forget(&self.changes);
        for keyspace in self.made_keyspaces() {
            keyspace.drop_later();
        }
    }
}
