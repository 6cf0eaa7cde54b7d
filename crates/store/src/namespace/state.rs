//! Keyed state as its users see it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    entry::{Entry, StateBytes},
    memory::{Entries, Inner, Namespace},
    op::StateOp,
    pages,
    scan::{Scan, ScanEntries},
};
use crate::{catalog::check_name, error::Result, store::Store, version::Version};

/// One namespace of keyed state: bytes by key, durable with each commit.
///
/// A namespace comes into being with its first entry; before that it reads as empty. Each of the methods that change
/// something is one commit; a [`Transaction`](crate::Transaction) puts several changes, also of tables and
/// watermarks, into one.
///
/// # Examples
/// ```
/// # use darner_store::{Scan, Store, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path(), StoreOptions::default())?;
/// let counts = store.state("counts")?;
/// counts.put(b"user/7", &3_u64.to_le_bytes())?;
/// assert_eq!(counts.get(b"user/7")?.as_deref(), Some(&3_u64.to_le_bytes()[..]));
/// assert_eq!(counts.scan(&Scan::prefix("user/"))?.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KeyedState<'s> {
    store: &'s Store,
    name: String,
    found: OnceLock<Arc<Namespace>>,
}

/// What a namespace holds and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceStats {
    /// Entries that have not ended. `None` for a paged namespace: only a scan would tell.
    pub num_entries: Option<u64>,
    /// Bytes in memory for all entries, or, if paged, `None`.
    pub memory_bytes: Option<u64>,
    /// Whether all entries are in memory.
    pub is_resident: bool,
    /// Pages as of the last checkpoint.
    pub num_pages: u64,
    /// Encoded bytes of these pages.
    pub stored_bytes: u64,
}

impl<'s> KeyedState<'s> {
    pub(crate) fn new(store: &'s Store, name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(Self {
            store,
            name: name.to_owned(),
            found: OnceLock::new(),
        })
    }

    /// The namespace's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&Namespace> {
        // A commit brings its namespaces up one after the other, under the state's lock: whoever has seen one of them
        // waits here for the others.
        self.store.wait_for_apply();
        if let Some(found) = self.found.get() {
            return Some(found);
        }
        let found = self.store.find_namespace(&self.name)?;
        Some(self.found.get_or_init(|| found))
    }

    fn now_us(&self) -> i64 {
        self.store.options().clock.now_us()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage.
    pub fn get(&self, key: &[u8]) -> Result<Option<StateBytes>> {
        let Some(namespace) = self.namespace() else {
            return Ok(None);
        };
        self.get_in(namespace, &*namespace.read()?, key)
    }

    fn get_in(
        &self,
        namespace: &Namespace,
        inner: &Inner,
        key: &[u8],
    ) -> Result<Option<StateBytes>> {
        let found;
        let entry = match &inner.entries {
            Entries::Resident(resident) => resident.get(key),
            Entries::Paged(changed) => match changed.get(key) {
                Some(entry) => entry.as_ref(),
                None if inner.is_cleared => None,
                None => {
                    found = pages::find(namespace, &inner.table, key)?;
                    found.as_ref()
                }
            },
        };
        let is_live = |entry: &&Entry| entry.is_live(|| self.now_us());
        Ok(entry.filter(is_live).map(StateBytes::value_of))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of several keys, in their order, as of one moment.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<StateBytes>>> {
        let Some(namespace) = self.namespace() else {
            return Ok(vec![None; keys.len()]);
        };
        let inner = namespace.read()?;
        keys.iter()
            .map(|key| self.get_in(namespace, &inner, key.as_ref()))
            .collect()
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource) for a key over 64 KiB or a value over 64 MiB; otherwise as
    /// for [`Transaction::commit`](crate::Transaction::commit).
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Version> {
        self.commit(vec![StateOp::put(key, value, 0)?])
    }

    /// Sets the value of a key for some time, counted from now. Afterwards the key reads as if it had been deleted.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_for(&self, key: &[u8], value: &[u8], time_to_live: Duration) -> Result<Version> {
        let expires_us = expires_us(self.now_us(), time_to_live);
        self.commit(vec![StateOp::put(key, value, expires_us)?])
    }

    /// Sets the values of several keys in one commit. Of several with one key the last counts.
    ///
    /// # Errors
    /// As for [`put`](Self::put); then none of them is set.
    pub fn put_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: &[(K, V)]) -> Result<Version> {
        let ops = entries
            .iter()
            .map(|(key, value)| StateOp::put(key.as_ref(), value.as_ref(), 0));
        self.commit(ops.collect::<Result<_>>()?)
    }

    /// Removes a key. One that is not there is no error.
    ///
    /// # Errors
    /// As for [`Transaction::commit`](crate::Transaction::commit).
    pub fn delete(&self, key: &[u8]) -> Result<Version> {
        self.commit(vec![StateOp::delete(key)?])
    }

    /// Removes several keys in one commit.
    ///
    /// # Errors
    /// As for [`delete`](Self::delete).
    pub fn delete_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Version> {
        let ops = keys.iter().map(|key| StateOp::delete(key.as_ref()));
        self.commit(ops.collect::<Result<_>>()?)
    }

    /// Removes all keys.
    ///
    /// # Errors
    /// As for [`delete`](Self::delete).
    pub fn clear(&self) -> Result<Version> {
        self.commit(vec![StateOp::Clear])
    }

    fn commit(&self, ops: Vec<StateOp>) -> Result<Version> {
        self.store
            .commit_state(&self.name, self.namespace().is_none(), ops)
    }

    /// The entries that a [`Scan`] asks for, in key order, as of now.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage; also from the iterator.
    pub fn scan(&self, scan: &Scan) -> Result<ScanEntries<'_>> {
        match self.namespace() {
            None => Ok(ScanEntries::none()),
            Some(namespace) => ScanEntries::new(namespace, scan, self.now_us()),
        }
    }

    /// The number of entries that have not ended. Scans a namespace that does not fit into memory.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn len(&self) -> Result<u64> {
        let Some(namespace) = self.namespace() else {
            return Ok(0);
        };
        if let Entries::Resident(resident) = &namespace.read()?.entries {
            return Ok(resident.len(self.now_us()) as u64);
        }
        let mut num_entries = 0;
        for entry in self.scan(&Scan::all())? {
            entry?;
            num_entries += 1;
        }
        Ok(num_entries)
    }

    /// Whether there is no entry that has not ended.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn is_empty(&self) -> Result<bool> {
        let mut entries = self.scan(&Scan::all().limit(1))?;
        Ok(entries.next().transpose()?.is_none())
    }

    /// What the namespace holds and where.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn stats(&self) -> Result<NamespaceStats> {
        let Some(namespace) = self.namespace() else {
            return Ok(NamespaceStats {
                num_entries: Some(0),
                memory_bytes: Some(0),
                is_resident: true,
                num_pages: 0,
                stored_bytes: 0,
            });
        };
        let inner = namespace.read()?;
        let resident = match &inner.entries {
            Entries::Resident(resident) => Some(resident),
            Entries::Paged(_) => None,
        };
        let now_us = self.now_us();
        Ok(NamespaceStats {
            num_entries: resident.map(|resident| resident.len(now_us) as u64),
            memory_bytes: resident.map(|resident| resident.num_bytes() as u64),
            is_resident: resident.is_some(),
            num_pages: inner.table.pages.len() as u64,
            stored_bytes: inner.table.num_bytes(),
        })
    }
}

/// When an entry ends. Never 0, which stands for never.
pub(crate) fn expires_us(now_us: i64, time_to_live: Duration) -> i64 {
    let time_to_live_us = i64::try_from(time_to_live.as_micros()).unwrap_or(i64::MAX);
    now_us.saturating_add(time_to_live_us).max(1)
}
