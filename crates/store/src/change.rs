//! What one commit changes, on its way from a transaction through the log into the state.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    catalog::{TableSpec, check_name},
    codec::{Decoder, Encoder},
    error::{Error, ErrorKind, Result},
    keyspace::Keyspace,
    page::{EncodedPage, PageMeta},
    state::{State, TableState, Watermark},
    version::Version,
};

/// A table generation, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableId {
    pub(crate) id: u32,
    pub(crate) generation: u32,
}

/// One step of a commit.
pub(crate) enum Change {
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
        generation: u32,
        spec: Arc<TableSpec>,
        keyspace: Arc<Keyspace>,
    },
    /// Pages are added to a generation.
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
                generation: table.generation,
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
            Change::Watermark { .. } => return Ok(()),
            Change::Create { name, table, .. } => (name, None, Some(*table)),
            Change::Drop { name, table } => (name, Some(*table), None),
            Change::Replace {
                name,
                before,
                generation,
                ..
            } => (
                name,
                Some(*before),
                Some(TableId {
                    generation: *generation,
                    ..*before
                }),
            ),
            Change::Write { name, table, .. } => (name, Some(*table), Some(*table)),
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
}

/// Makes sure that [`write_pages`] will not fail for lack of room, before the commit is in the log.
pub(crate) fn prepare(changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| match change {
        Change::Write { keyspace, .. } => keyspace.prepare(),
        _ => Ok(()),
    })
}

/// Writes the pages that are not in their keyspace yet. Each is written once.
pub(crate) fn write_pages(changes: &mut [Change]) -> Result<()> {
    changes.iter_mut().try_for_each(|change| {
        let Change::Write {
            keyspace, pages, ..
        } = change
        else {
            return Ok(());
        };
        let unwritten: Vec<(u64, EncodedPage)> = pages
            .iter_mut()
            .filter_map(|page| page.page.take().map(|bytes| (page.meta.id, bytes)))
            .collect();
        keyspace.write(&unwritten)
    })
}

/// Gives memory back where many pages were written.
pub(crate) fn relieve(changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| match change {
        Change::Write { keyspace, .. } => keyspace.relieve(),
        _ => Ok(()),
    })
}

/// Brings a commit into the state. Its pages are in their keyspaces already.
pub(crate) fn apply(state: &mut State, version: Version, changes: Vec<Change>) {
    state.version = version;
    for change in changes {
        match change {
            Change::Create {
                name,
                table,
                spec,
                keyspace,
            } => {
                state.next_table_id = state.next_table_id.max(table.id.saturating_add(1));
                state
                    .tables
                    .insert(name, new_table(table, spec, keyspace, version, version));
            }
            Change::Drop { name, .. } => {
                if let Some(table) = state.tables.remove(&name) {
                    table.keyspace.drop_later();
                }
            }
            Change::Replace {
                name,
                before,
                generation,
                spec,
                keyspace,
            } => {
                let old = state.tables.remove(&name);
                let created = old.as_ref().map_or(version, |table| table.created);
                if let Some(table) = &old {
                    table.keyspace.drop_later();
                }
                let table = TableId {
                    generation,
                    ..before
                };
                state
                    .tables
                    .insert(name, new_table(table, spec, keyspace, created, version));
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
        }
    }
}

fn new_table(
    table: TableId,
    spec: Arc<TableSpec>,
    keyspace: Arc<Keyspace>,
    created: Version,
    changed: Version,
) -> TableState {
    TableState {
        id: table.id,
        generation: table.generation,
        spec,
        keyspace,
        pages: Arc::default(),
        is_distinct: true,
        created,
        changed,
        checkpointed: None,
    }
}

const CREATE: u8 = 1;
const DROP: u8 = 2;
const REPLACE: u8 = 3;
const WRITE: u8 = 4;
const WATERMARK: u8 = 5;

/// Encodes a commit as the payload of a log frame. All pages are still in memory.
///
/// ```text
/// change   tag u8 | fields
///   1 create     name, id, generation, spec
///   2 drop       name, id, generation
///   3 replace    name, id, generation before, generation, spec
///   4 write      name, id, generation, is_distinct u8, num_pages u64, (page meta, page bytes)...
///   5 watermark  name, 0 u8 | 1 u8, bytes
/// ```
pub(crate) fn encode(changes: &[Change], version: Version) -> Vec<u8> {
    let mut out = Encoder::new();
    for change in changes {
        match change {
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
                generation,
                spec,
                ..
            } => {
                put_table(&mut out, REPLACE, name, *before);
                out.put_u32(*generation);
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
        }
    }
    out.finish()
}

fn put_table(out: &mut Encoder, tag: u8, name: &str, table: TableId) {
    out.put_u8(tag);
    out.put_str(name);
    out.put_u32(table.id);
    out.put_u32(table.generation);
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
        let table = TableId {
            id: input.get_u32()?,
            generation: input.get_u32()?,
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
                let generation = input.get_u32()?;
                let after = TableId {
                    generation,
                    ..table
                };
                let keyspace = open(after);
                opened.push((after, Arc::clone(&keyspace)));
                let spec = Arc::new(TableSpec::decode(&mut input)?);
                Change::Replace {
                    name,
                    before: table,
                    generation,
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
