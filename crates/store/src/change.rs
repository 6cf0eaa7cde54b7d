//! What one commit changes, on its way from a transaction through the log into the state.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    catalog::{TableSpec, check_name},
    codec::{Decoder, Encoder},
    error::{Error, ErrorKind, Result},
    history::{CommitKind, Retention},
    keyspace::{Keyspace, Wanted},
    namespace::{Namespace, StateOp},
    page::{EncodedPage, PageMeta},
    settings::FLUSH_BYTES,
    state::{State, TableState, Watermark},
    version::Version,
};

/// A table from one replacement to the next, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableId {
    pub(crate) id: u32,
    pub(crate) incarnation: u32,
}

/// One step of a commit.
pub(crate) enum Change {
    /// Nothing changes here, but the commit is refused if another one has changed the table since this one. It comes
    /// before all other steps, and does not go into the log: what is there was admitted.
    Require {
        name: String,
        table: TableId,
        changed: u64,
    },
    /// A new, empty table.
    Create {
        name: String,
        table: TableId,
        spec: Arc<TableSpec>,
        keyspace: Arc<Keyspace>,
    },
    /// The table is no more.
    Drop { name: String, table: TableId },
    /// The table goes on, empty, as a new generation.
    Replace {
        name: String,
        before: TableId,
        incarnation: u32,
        spec: Arc<TableSpec>,
        keyspace: Arc<Keyspace>,
    },
    /// Pages are added.
    Write {
        name: String,
        table: TableId,
        keyspace: Arc<Keyspace>,
        is_distinct: bool,
        pages: Vec<NewPage>,
    },
    /// A watermark is set or removed.
    Watermark {
        name: String,
        value: Option<Vec<u8>>,
    },
    /// It is said how much of a table's past is kept.
    Retain {
        name: String,
        table: TableId,
        retention: Retention,
    },
    /// Entries of keyed state are changed, in order. The namespace is made if there is none.
    State {
        name: String,
        /// The namespace's number, if it is made now.
        id: u32,
        ops: Vec<StateOp>,
    },
}

/// A page of a commit that is not done yet.
pub(crate) struct NewPage {
    /// Without its version, which the commit decides.
    pub(crate) meta: PageMeta,
    /// The page itself; `None` once it was written to the keyspace.
    pub(crate) page: Option<EncodedPage>,
}

/// The tables as a commit will find them: the state and the commits that go before it in the same group.
pub(crate) struct Overlay<'a> {
    state: &'a State,
    changed: BTreeMap<String, Option<TableId>>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        Self {
            state,
            changed: BTreeMap::new(),
        }
    }

    fn find(&self, name: &str) -> Option<TableId> {
        match self.changed.get(name) {
            Some(table) => *table,
            None => self.state.tables.get(name).map(|table| TableId {
                id: table.id,
                incarnation: table.incarnation,
            }),
        }
    }

    /// Checks that every change still fits, and takes them in if so.
    pub(crate) fn admit(&mut self, changes: &[Change]) -> Result<()> {
        let before = self.changed.clone();
        let result = changes.iter().try_for_each(|change| self.admit_one(change));
        if result.is_err() {
            self.changed = before;
        }
        result
    }

    fn admit_one(&mut self, change: &Change) -> Result<()> {
        let (name, expected, after) = match change {
            Change::Watermark { .. } | Change::State { .. } => return Ok(()),
            Change::Require {
                name,
                table,
                changed,
            } => return self.check_unchanged(name, *table, *changed),
            Change::Create { name, table, .. } => (name, None, Some(*table)),
            Change::Drop { name, table } => (name, Some(*table), None),
            Change::Replace {
                name,
                before,
                incarnation,
                ..
            } => (
                name,
                Some(*before),
                Some(TableId {
                    incarnation: *incarnation,
                    ..*before
                }),
            ),
            Change::Write { name, table, .. } | Change::Retain { name, table, .. } => {
                (name, Some(*table), Some(*table))
            }
        };
        if self.find(name) != expected {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "table was created, replaced or dropped by another commit meanwhile: table=`{name}`; try again"
                ),
            ));
        }
        self.changed.insert(name.clone(), after);
        Ok(())
    }

    fn check_unchanged(&self, name: &str, table: TableId, changed: u64) -> Result<()> {
        let is_same = |found: &TableState| {
            (found.id, found.incarnation, found.changed.number)
                == (table.id, table.incarnation, changed)
        };
        // A commit of the same group has no version yet.
        if !self.changed.contains_key(name) && self.state.tables.get(name).is_some_and(is_same) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "table was changed by another commit meanwhile: table=`{name}` read=`{changed}`; try again"
            ),
        ))
    }
}

/// Encoded bytes of the pages of a commit.
pub(crate) fn num_page_bytes(changes: &[Change]) -> u64 {
    let pages = changes.iter().map(|change| match change {
        Change::Write { pages, .. } => pages
            .iter()
            .map(|page| u64::from(page.meta.num_bytes))
            .sum(),
        _ => 0,
    });
    pages.sum()
}

/// Brings pages to the files that their table is in now: a compaction may have moved it since they were staged.
pub(crate) fn follow_compaction(state: &State, changes: &mut [Change]) -> Result<()> {
    for change in changes {
        let Change::Write {
            name,
            table,
            keyspace,
            pages,
            ..
        } = change
        else {
            continue;
        };
        let Some(found) = state.tables.get(name.as_str()) else {
            continue;
        };
        let is_same = found.id == table.id && found.incarnation == table.incarnation;
        if !is_same || Arc::ptr_eq(&found.keyspace, keyspace) {
            continue;
        }
        let first_id = found.keyspace.take_page_ids(pages.len());
        let ids = first_id..;
        // What is in the old files already goes to the new ones by and by: a large load would not fit into memory.
        let mut window: Vec<(u64, &PageMeta)> = Vec::new();
        let mut window_bytes = 0;
        for (id, page) in ids.clone().zip(pages.iter()) {
            if page.page.is_none() {
                window_bytes += page.meta.num_bytes as usize;
                window.push((id, &page.meta));
            }
            if window_bytes >= COPY_BYTES {
                move_pages(keyspace, &found.keyspace, &window)?;
                window.clear();
                window_bytes = 0;
            }
        }
        move_pages(keyspace, &found.keyspace, &window)?;
        for (id, page) in ids.zip(pages.iter_mut()) {
            page.meta.id = id;
        }
        *keyspace = Arc::clone(&found.keyspace);
    }
    Ok(())
}

/// Writes pages of one keyspace into another, each under a new number.
fn move_pages(from: &Keyspace, to: &Keyspace, pages: &[(u64, &PageMeta)]) -> Result<()> {
    let metas: Vec<&PageMeta> = pages.iter().map(|(_, page)| *page).collect();
    let buffers = from.read(&metas)?;
    let copies = pages
        .iter()
        .zip(&buffers)
        .map(|((id, _), bytes)| (*id, bytes::Bytes::copy_from_slice(bytes)));
    to.write(copies);
    to.relieve(
        FLUSH_BYTES,
        &Wanted::Some(pages.iter().map(|(id, _)| *id).collect()),
    )
}

/// Opens the tables that are written to: one that is damaged refuses the commit before it is in the log.
pub(crate) fn prepare(changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| match change {
        Change::Write { keyspace, .. } => keyspace.prepare(),
        _ => Ok(()),
    })
}

/// Brings the pages that are not in their keyspace yet there. Each is written once.
pub(crate) fn write_pages(changes: &mut [Change]) {
    for change in changes {
        if let Change::Write {
            keyspace, pages, ..
        } = change
        {
            let unwritten = pages.iter_mut().filter_map(|page| {
                page.page
                    .take()
                    .map(|encoded| (page.meta.id, encoded.bytes))
            });
            keyspace.write(unwritten);
        }
    }
}

/// Gives up the pages of changes that are not committed.
pub(crate) fn forget(changes: &[Change]) {
    for change in changes {
        if let Change::Write {
            keyspace, pages, ..
        } = change
        {
            let written = pages.iter().filter(|page| page.page.is_none());
            let ids: Vec<u64> = written.map(|page| page.meta.id).collect();
            keyspace.forget(&ids);
        }
    }
}

/// Fails if a table can never be written to its files any more: more pages would only fill the memory.
pub(crate) fn check(changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| match change {
        Change::Write { keyspace, .. } => keyspace.check(),
        _ => Ok(()),
    })
}

/// Gives memory back where many pages of small commits wait.
pub(crate) fn relieve(changes: &[Change], bytes_max: usize) -> Result<()> {
    changes.iter().try_for_each(|change| match change {
        Change::Write { keyspace, .. } => keyspace.relieve(bytes_max, &Wanted::All),
        _ => Ok(()),
    })
}

/// Brings the pages of a large commit to disk, before others are kept from committing.
pub(crate) fn flush_ahead(changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| match change {
        Change::Write {
            keyspace, pages, ..
        } => keyspace.flush_ahead(&wanted(pages)),
        _ => Ok(()),
    })
}

fn wanted(pages: &[NewPage]) -> Wanted {
    Wanted::pages(pages.iter().map(|page| &page.meta))
}

/// Brings a commit into the state. Its pages are in their keyspaces already.
pub(crate) fn apply(state: &mut State, version: Version, changes: Vec<Change>) {
    state.version = version;
    let mut touched: BTreeMap<String, CommitKind> = BTreeMap::new();
    for change in changes {
        match change {
            Change::Create {
                name,
                table,
                spec,
                keyspace,
            } => {
                state.next_table_id = state.next_table_id.max(table.id.saturating_add(1));
                touched.insert(name.clone(), CommitKind::Create);
                let new = TableState::new(table.id, table.incarnation, spec, keyspace, version);
                state.tables.insert(name, new);
            }
            Change::Drop { name, .. } => {
                touched.remove(&name);
                if let Some(table) = state.tables.remove(&name) {
                    for table in table.older.iter().chain([&table]) {
                        table.keyspace.drop_later();
                    }
                }
            }
            Change::Replace {
                name,
                before,
                incarnation,
                spec,
                keyspace,
            } => {
                let mut new = TableState::new(before.id, incarnation, spec, keyspace, version);
                if let Some(old) = state.tables.remove(&name) {
                    succeed(&mut new, old, version);
                }
                touched
                    .entry(name.clone())
                    .and_modify(|kind| {
                        if *kind == CommitKind::Write {
                            *kind = CommitKind::Replace;
                        }
                    })
                    .or_insert(CommitKind::Replace);
                state.tables.insert(name, new);
            }
            Change::Write {
                name,
                is_distinct,
                pages,
                ..
            } => {
                if let Some(table) = state.tables.get_mut(&name) {
                    let number = version.number;
                    let pages = pages
                        .into_iter()
                        .map(|page| PageMeta {
                            version: number,
                            ..page.meta
                        })
                        .collect();
                    table.append(pages, is_distinct, version);
                    touched.entry(name).or_insert(CommitKind::Write);
                }
            }
            Change::Watermark {
                name,
                value: Some(value),
            } => {
                state.watermarks.insert(name, Watermark { version, value });
            }
            Change::Watermark { name, value: None } => {
                state.watermarks.remove(&name);
            }
            Change::Retain {
                name, retention, ..
            } => {
                if let Some(table) = state.tables.get_mut(&name) {
                    table.retention = retention;
                    // A checkpoint has the table as it is, retention and all.
                    table.checkpointed = None;
                }
            }
            // Namespaces are shared, so whoever calls this brings it to them when it counts.
            Change::State { .. } | Change::Require { .. } => {}
        }
    }
    for (name, kind) in touched {
        if let Some(table) = state.tables.get_mut(&name) {
            table.note_commit(kind, version);
        }
    }
}

/// Hands over from a table that is replaced: its past, and how much of it is kept.
fn succeed(new: &mut TableState, mut old: TableState, version: Version) {
    new.created = old.created;
    new.retention = old.retention;
    new.history = std::mem::take(&mut old.history);
    new.older = std::mem::take(&mut old.older);
    if old.begun == version {
        // Made and replaced by one commit: nobody ever sees it.
        old.keyspace.drop_later();
    } else {
        new.older.push(old);
    }
}

/// Brings the changes of keyed state of a commit to the namespaces, making those that are missing.
pub(crate) fn apply_state(
    state: &mut State,
    changes: Vec<(String, u32, Vec<StateOp>)>,
    open: impl Fn(u32) -> Arc<Namespace>,
    now_us: i64,
) {
    for (name, id, ops) in changes {
        state.next_table_id = state.next_table_id.max(id.saturating_add(1));
        state.namespaces_changed = state.version.number;
        if let Some(namespace) = state.namespaces.get(&name) {
            namespace.apply(ops, now_us);
        } else {
            let namespace = open(id);
            namespace.apply(ops, now_us);
            state.namespaces.insert(name, namespace);
        }
    }
}

/// Takes the changes of keyed state out of a commit.
pub(crate) fn take_state(changes: &mut Vec<Change>) -> Vec<(String, u32, Vec<StateOp>)> {
    let mut taken = Vec::new();
    changes.retain_mut(|change| match change {
        Change::State { name, id, ops } => {
            taken.push((std::mem::take(name), *id, std::mem::take(ops)));
            false
        }
        _ => true,
    });
    taken
}

/// Encoded bytes of pages that are moved at once.
const COPY_BYTES: usize = 8 << 20;

const CREATE: u8 = 1;
const DROP: u8 = 2;
const REPLACE: u8 = 3;
const WRITE: u8 = 4;
const WATERMARK: u8 = 5;
const RETAIN: u8 = 6;
const STATE: u8 = 7;

/// Encodes a commit as the payload of a log frame. All pages are still in memory.
///
/// ```text
/// change   tag u8 | fields
///   1 create     name, id, incarnation, spec
///   2 drop       name, id, incarnation
///   3 replace    name, id, incarnation before, incarnation, spec
///   4 write      name, id, incarnation, is_distinct u8, num_pages u64, (page meta, page bytes)...
///   5 watermark  name, 0 u8 | 1 u8, bytes
///   6 retain     name, id, incarnation, num_versions u64, age in microseconds u64
///   7 state      namespace, id u32, num_ops u64, op...
/// op       1 u8 put (expires i64, key, value) | 2 u8 delete (key) | 3 u8 clear
/// ```
pub(crate) fn encode(changes: &[Change], version: Version) -> Vec<u8> {
    // Pages are most of it; what is said of each is small.
    let page_bytes = num_page_bytes(changes);
    let page_bytes = usize::try_from(page_bytes + page_bytes / 64).unwrap_or_default();
    let ops = changes.iter().flat_map(|change| match change {
        Change::State { ops, .. } => &ops[..],
        _ => &[],
    });
    let op_bytes: usize = ops.map(StateOp::num_bytes).sum();
    let mut out = Encoder::with_capacity(page_bytes + op_bytes + 256);
    for change in changes {
        match change {
            Change::Require { .. } => {}
            Change::Create {
                name, table, spec, ..
            } => {
                put_table(&mut out, CREATE, name, *table);
                spec.encode(&mut out);
            }
            Change::Drop { name, table } => put_table(&mut out, DROP, name, *table),
            Change::Replace {
                name,
                before,
                incarnation,
                spec,
                ..
            } => {
                put_table(&mut out, REPLACE, name, *before);
                out.put_u32(*incarnation);
                spec.encode(&mut out);
            }
            Change::Write {
                name,
                table,
                is_distinct,
                pages,
                ..
            } => {
                put_table(&mut out, WRITE, name, *table);
                out.put_u8(u8::from(*is_distinct));
                out.put_u64(pages.len() as u64);
                for page in pages {
                    PageMeta {
                        version: version.number,
                        ..page.meta.clone()
                    }
                    .encode(&mut out);
                    let bytes = page.page.as_ref().map(|page| &page.bytes[..]);
                    out.put_bytes(bytes.unwrap_or_default());
                }
            }
            Change::Watermark { name, value } => {
                out.put_u8(WATERMARK);
                out.put_str(name);
                out.put_u8(u8::from(value.is_some()));
                if let Some(value) = value {
                    out.put_bytes(value);
                }
            }
            Change::Retain {
                name,
                table,
                retention,
            } => {
                put_table(&mut out, RETAIN, name, *table);
                retention.encode(&mut out);
            }
            Change::State { name, id, ops } => {
                out.put_u8(STATE);
                out.put_str(name);
                out.put_u32(*id);
                out.put_u64(ops.len() as u64);
                for op in ops {
                    op.encode(&mut out);
                }
            }
        }
    }
    out.finish()
}

fn put_table(out: &mut Encoder, tag: u8, name: &str, table: TableId) {
    out.put_u8(tag);
    out.put_str(name);
    out.put_u32(table.id);
    out.put_u32(table.incarnation);
}

/// Decodes a log frame's payload. `open` makes the keyspace of a new generation; `find` finds that of an old one.
pub(crate) fn decode(
    payload: &[u8],
    open: impl Fn(TableId) -> Arc<Keyspace>,
    find: impl Fn(&str, TableId) -> Option<Arc<Keyspace>>,
) -> Result<Vec<Change>> {
    let mut input = Decoder::new(payload);
    let mut changes = Vec::new();
    let mut opened: Vec<(TableId, Arc<Keyspace>)> = Vec::new();
    while !input.is_empty() {
        let tag = input.get_u8()?;
        let name = input.get_str()?.to_owned();
        check_name(&name)?;
        if tag == WATERMARK {
            let value = match input.get_u8()? {
                0 => None,
                _ => Some(input.get_bytes()?.to_vec()),
            };
            changes.push(Change::Watermark { name, value });
            continue;
        }
        if tag == STATE {
            let id = input.get_u32()?;
            let num_ops = input.get_u64()?;
            let ops = (0..num_ops).map(|_| StateOp::decode(&mut input));
            let ops = ops.collect::<Result<_>>()?;
            changes.push(Change::State { name, id, ops });
            continue;
        }
        let table = TableId {
            id: input.get_u32()?,
            incarnation: input.get_u32()?,
        };
        changes.push(match tag {
            CREATE => {
                let keyspace = open(table);
                opened.push((table, Arc::clone(&keyspace)));
                Change::Create {
                    name,
                    table,
                    spec: Arc::new(TableSpec::decode(&mut input)?),
                    keyspace,
                }
            }
            DROP => Change::Drop { name, table },
            REPLACE => {
                let incarnation = input.get_u32()?;
                let after = TableId {
                    incarnation,
                    ..table
                };
                let keyspace = open(after);
                opened.push((after, Arc::clone(&keyspace)));
                let spec = Arc::new(TableSpec::decode(&mut input)?);
                Change::Replace {
                    name,
                    before: table,
                    incarnation,
                    spec,
                    keyspace,
                }
            }
            WRITE => {
                let keyspace = opened
                    .iter()
                    .find(|(opened, _)| *opened == table)
                    .map(|(_, keyspace)| Arc::clone(keyspace))
                    .or_else(|| find(&name, table))
                    .ok_or_else(|| {
                        Error::data(format!("log writes to an unknown table=`{name}`"))
                    })?;
                decode_write(&mut input, name, table, keyspace)?
            }
            RETAIN => Change::Retain {
                name,
                table,
                retention: Retention::decode(&mut input)?,
            },
            tag => return Err(Error::data(format!("log holds an unknown change=`{tag}`"))),
        });
    }
    Ok(changes)
}

fn decode_write(
    input: &mut Decoder<'_>,
    name: String,
    table: TableId,
    keyspace: Arc<Keyspace>,
) -> Result<Change> {
    let is_distinct = input.get_u8()? != 0;
    let num_pages = input.get_u64()?;
    let mut pages = Vec::new();
    for _ in 0..num_pages {
        let meta = PageMeta::decode(input)?;
        let bytes = bytes::Bytes::copy_from_slice(input.get_bytes()?);
        keyspace.reserve_page_id(meta.id);
        let page = EncodedPage {
            kind: meta.kind,
            num_rows: meta.num_rows,
            stats: meta.stats.clone(),
            bytes,
        };
        pages.push(NewPage {
            meta,
            page: Some(page),
        });
    }
    Ok(Change::Write {
        name,
        table,
        keyspace,
        is_distinct,
        pages,
    })
}
