//! Durable sets of files: how they are written, swapped and found again.
//!
//! ```text
//! CURRENT                              "darner-store 2 NUMBER MANIFEST_CRC\n": which checkpoint counts
//! checkpoint/0000000000000007/
//!   MANIFEST                           the catalog, the watermarks, and every file below with length and CRC32C
//!   t3g1/                              table 3, generation 1
//!     pages                            the page list: what each page is, and its checksum
//!     01J....parquet                   Tonbo's files, hard-linked with the working directory: never changed
//!     version/01J....log               Tonbo's list of its files, copied: Tonbo does change its own
//! ```
//!
//! Write order, each step on disk before the next begins:
//! 1. flush the changed tables; link or copy their files into the new directory; write page lists;
//! 2. fsync every new file and every new directory; write and fsync `MANIFEST`; fsync the directories above;
//! 3. write `CURRENT.new`, fsync it, rename it over `CURRENT`, fsync the store's directory. **This is the commit.**
//! 4. remove the log segments that the checkpoint covers, and older checkpoints that no reader holds.
//!
//! A crash before 3 leaves the old checkpoint and the whole log; the new directory is removed by the next open. A
//! crash after 3 leaves segments that are skipped by their version. A table that did not change since the checkpoint
//! before is linked from there, without being flushed, read or checksummed again.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    catalog::{TableSpec, check_name},
    codec::{Decoder, Encoder},
    disk,
    error::{Error, ErrorKind, Result},
    history::{CommitKind, HistoryEntry, Retention},
    keyspace::{
        Attach, Keyspace, PAGES_SUFFIX, TableFile, TableSource, VERSION_DIR, Wanted, check_copied,
        check_file,
    },
    lock::{self, ReaderLock},
    namespace::namespace_of,
    page::PageMeta,
    state::{Counted, State, TableState, Watermark, table_dir_name},
    version::Version,
    workdir::WorkDir,
};

const CHECKPOINT_DIR: &str = "checkpoint";
const CURRENT: &str = "CURRENT";
const MANIFEST: &str = "MANIFEST";
const PAGES: &str = "pages";
const FORMAT: &str = "darner-store 2";
const MANIFEST_MAGIC: &[u8; 8] = b"DRNRMAN2";
const PAGES_MAGIC: &[u8; 8] = b"DRNRPGS2";

/// The first format, which has no past and no namespaces. It is read, and the next checkpoint is of the present one.
const FORMAT_1: &str = "darner-store 1";
const MANIFEST_MAGIC_1: &[u8; 8] = b"DRNRMAN1";
const PAGES_MAGIC_1: &[u8; 8] = b"DRNRPGS1";

/// Which checkpoint counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) number: u64,
    manifest_crc: u32,
}

impl Current {
    /// Reads `CURRENT`; `None` if there is none.
    pub(crate) fn read(store_dir: &Path) -> Result<Option<Self>> {
        let path = store_dir.join(CURRENT);
        let bytes = match disk::read_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let damaged = || {
            Error::data(format!(
                "file of the store is damaged: file=`{}`",
                path.display()
            ))
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let fields = text
            .strip_prefix(FORMAT)
            .or_else(|| text.strip_prefix(FORMAT_1));
        let Some(fields) = fields else {
            if text.starts_with("darner-store ") {
                return Err(Error::data(format!(
                    "store has a format that this version of darner does not know: file=`{}` expected=`{FORMAT}`",
                    path.display()
                )));
            }
            return Err(damaged());
        };
        let fields = fields.strip_suffix('\n').ok_or_else(damaged)?;
        let mut fields = fields.split(' ').skip(1);
        let mut field = |len: usize| {
            let digits = fields
                .next()
                .filter(|digits| digits.len() == len)
                .ok_or_else(damaged)?;
            u64::from_str_radix(digits, 16).map_err(|_| damaged())
        };
        let number = field(16)?;
        let manifest_crc = u32::try_from(field(8)?).map_err(|_| damaged())?;
        Ok(Some(Self {
            number,
            manifest_crc,
        }))
    }

    fn encode(self) -> String {
        format!("{FORMAT} {:016x} {:08x}\n", self.number, self.manifest_crc)
    }

    pub(crate) fn dir(self, store_dir: &Path) -> PathBuf {
        store_dir
            .join(CHECKPOINT_DIR)
            .join(format!("{:016x}", self.number))
    }
}

/// Writes a checkpoint of `state` and makes it the current one. Steps 1 to 3.
///
/// Each table's `checkpointed` points into the new checkpoint afterwards.
pub(crate) fn write(store_dir: &Path, number: u64, state: &mut State) -> Result<()> {
    let above = store_dir.join(CHECKPOINT_DIR);
    let dir = Current {
        number,
        manifest_crc: 0,
    }
    .dir(store_dir);
    disk::make_dir(&above)?;
    // Left by a checkpoint that failed; nothing points to it.
    disk::remove_dir(&dir)?;
    disk::make_dir(&dir)?;
    let result = write_files(store_dir, number, &dir, state);
    if result.is_err() {
        // It counts for nothing, and the next open would remove it; unless it does count, or nobody can tell.
        match Current::read(store_dir) {
            Ok(current) if current.is_none_or(|current| current.number != number) => {
                let _ = disk::remove_dir(&dir);
            }
            _ => {}
        }
    }
    let files = result?;
    let lock = Arc::new(lock_manifest(&dir)?);
    let mut files = files.into_iter();
    let mut note = |table: &mut TableState| {
        let source = TableSource {
            dir: dir.join(table_dir_name(table.id, table.generation)),
            files: files.next().unwrap_or_default(),
            attach: Attach::Link,
            lock: Arc::clone(&lock),
        };
        table.keyspace.set_source(source.clone());
        table.checkpointed = Some(source);
    };
    for table in state.tables.values_mut() {
        table.older.iter_mut().for_each(&mut note);
        note(table);
    }
    state.checkpointed = state.version;
    Ok(())
}

fn write_files(
    store_dir: &Path,
    number: u64,
    dir: &Path,
    state: &State,
) -> Result<Vec<Vec<TableFile>>> {
    let mut tables = Vec::with_capacity(state.tables.len());
    for table in state.tables.values().flat_map(parts) {
        let table_dir = dir.join(table_dir_name(table.id, table.generation));
        disk::make_dir(&table_dir)?;
        disk::make_dir(&table_dir.join(VERSION_DIR))?;
        let files = if let Some(source) = &table.checkpointed {
            link_unchanged(source, &table_dir)?
        } else {
            let keyspace = &table.keyspace;
            // Not what was committed later than what this checkpoint is of: the log has it.
            let wanted = Wanted::pages(table.pages.iter().map(|page| &**page));
            let files = keyspace.flush_and(&wanted, |known| {
                copy_live(keyspace.dir(), known, &table_dir)
            })?;
            write_page_list(&table_dir, table, files)?
        };
        disk::sync_dir(&table_dir.join(VERSION_DIR))?;
        disk::sync_dir(&table_dir)?;
        tables.push(files);
    }
    let manifest = encode_manifest(state, &tables);
    let current = Current {
        number,
        manifest_crc: crc32c::crc32c(&manifest),
    };
    publish(store_dir, dir, current, &manifest)?;
    Ok(tables)
}

/// Takes over a table that did not change since the checkpoint before.
fn link_unchanged(source: &TableSource, table_dir: &Path) -> Result<Vec<TableFile>> {
    for file in &source.files {
        let to = table_dir.join(&file.name);
        if !disk::link_or_copy(&source.dir.join(&file.name), &to)? {
            disk::sync_file(&to)?;
        }
    }
    Ok(source.files.clone())
}

/// Brings a flushed working directory into a checkpoint, on disk. Files that are `known` are there already.
fn copy_live(live_dir: &Path, known: &[TableFile], table_dir: &Path) -> Result<Vec<TableFile>> {
    let mut files = Vec::new();
    for name in disk::list_dir(live_dir)?
        .into_iter()
        .filter(|name| name.ends_with(PAGES_SUFFIX))
    {
        let (from, to) = (live_dir.join(&name), table_dir.join(&name));
        let is_linked = disk::link_or_copy(&from, &to)?;
        let known = known.iter().find(|file| file.name == name);
        if let (Some(known), true) = (known, is_linked) {
            // The same file, already on disk and with a known checksum.
            files.push(known.clone());
            continue;
        }
        disk::sync_file(&to)?;
        let (num_bytes, crc) = disk::checksum_file(&to)?;
        files.push(TableFile {
            name,
            num_bytes,
            crc,
        });
    }
    for name in disk::list_dir(&live_dir.join(VERSION_DIR))? {
        let name = format!("{VERSION_DIR}/{name}");
        let to = table_dir.join(&name);
        disk::copy(&live_dir.join(&name), &to)?;
        disk::sync_file(&to)?;
        let (num_bytes, crc) = disk::checksum_file(&to)?;
        files.push(TableFile {
            name,
            num_bytes,
            crc,
        });
    }
    Ok(files)
}

/// The generations of a table that a checkpoint holds: earlier incarnations, then the table as it is.
fn parts(table: &TableState) -> impl Iterator<Item = &TableState> {
    table.older.iter().chain([table])
}

fn write_page_list(
    table_dir: &Path,
    table: &TableState,
    mut files: Vec<TableFile>,
) -> Result<Vec<TableFile>> {
    let mut out = Encoder::new();
    for byte in PAGES_MAGIC {
        out.put_u8(*byte);
    }
    out.put_u64(table.pages.len() as u64);
    for page in table.pages.iter() {
        page.encode(&mut out);
    }
    out.put_u64(table.history.len() as u64);
    for entry in table.history.iter() {
        entry.encode(&mut out);
    }
    let bytes = out.finish();
    disk::write_file_synced(&table_dir.join(PAGES), &bytes)?;
    files.push(TableFile {
        name: PAGES.to_owned(),
        num_bytes: bytes.len() as u64,
        crc: crc32c::crc32c(&bytes),
    });
    Ok(files)
}

fn read_page_list(
    table_dir: &Path,
    files: &[TableFile],
) -> Result<(Vec<Arc<PageMeta>>, Vec<HistoryEntry>)> {
    let path = table_dir.join(PAGES);
    let file = files
        .iter()
        .find(|file| file.name == PAGES)
        .ok_or_else(|| {
            Error::data(format!(
                "checkpoint has no page list: file=`{}`",
                path.display()
            ))
        })?;
    check_file(&path, file)?;
    let bytes = disk::read_file(&path)?;
    let (is_format_1, content) = content_of(&bytes, PAGES_MAGIC, PAGES_MAGIC_1);
    let mut input = Decoder::new(content);
    let num_pages = input.get_u64()?;
    let mut pages = Vec::new();
    for _ in 0..num_pages {
        pages.push(Arc::new(PageMeta::decode(&mut input)?));
    }
    let num_entries = if is_format_1 { 0 } else { input.get_u64()? };
    let history = (0..num_entries)
        .map(|_| HistoryEntry::decode(&mut input))
        .collect::<Result<_>>()?;
    input.expect_end()?;
    Ok((pages, history))
}

fn encode_manifest(state: &State, tables: &[Vec<TableFile>]) -> Vec<u8> {
    let mut out = Encoder::new();
    for byte in MANIFEST_MAGIC {
        out.put_u8(*byte);
    }
    state.version.encode(&mut out);
    out.put_u32(state.next_table_id);
    out.put_u64(state.tables.len() as u64);
    let mut files = tables.iter();
    for (name, table) in &state.tables {
        out.put_str(name);
        out.put_u64(table.older.len() as u64);
        for part in parts(table) {
            let files = files.next().map_or(&[][..], |files| files);
            encode_table(part, files, &mut out);
        }
    }
    out.put_u64(state.watermarks.len() as u64);
    for (name, watermark) in &state.watermarks {
        out.put_str(name);
        watermark.version.encode(&mut out);
        out.put_bytes(&watermark.value);
    }
    out.finish()
}

fn encode_table(table: &TableState, files: &[TableFile], out: &mut Encoder) {
    out.put_u32(table.id);
    out.put_u32(table.generation);
    out.put_u32(table.incarnation);
    table.spec.encode(out);
    out.put_u64(table.num_sorted_pages as u64);
    out.put_u8(u8::from(table.is_distinct));
    out.put_u64(table.counted.num_stored);
    out.put_u64(table.counted.num_dead);
    for version in [table.created, table.begun, table.changed] {
        version.encode(out);
    }
    out.put_u64(table.oldest);
    table.retention.encode(out);
    out.put_u64(table.keyspace.next_page_id());
    out.put_u64(files.len() as u64);
    for file in files {
        out.put_str(&file.name);
        out.put_u64(file.num_bytes);
        out.put_u32(file.crc);
    }
}

/// Keeps a checkpoint that this process has just made current.
fn lock_manifest(dir: &Path) -> Result<ReaderLock> {
    let path = dir.join(MANIFEST);
    let file = std::fs::File::open(&path)
        .map_err(|error| Error::io(format!("cannot open `{}`", path.display()), error))?;
    ReaderLock::take(file)?
        .ok_or_else(|| Error::internal("somebody holds the manifest of a new checkpoint"))
}

/// A checkpoint that stays for as long as this, or a table that was read with it, is used.
pub(crate) struct Pinned {
    pub(crate) current: Current,
    dir: PathBuf,
    manifest: Vec<u8>,
    lock: Arc<ReaderLock>,
}

/// Takes hold of the current checkpoint.
///
/// `None` if a writer has just replaced it: look again.
pub(crate) fn pin(store_dir: &Path, current: Current) -> Result<Option<Pinned>> {
    let dir = current.dir(store_dir);
    let path = dir.join(MANIFEST);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) => {
            // A writer may have removed it meanwhile, or it is really gone.
            return if Current::read(store_dir)? == Some(current) {
                Err(Error::data(format!(
                    "manifest of the store is missing: file=`{}`",
                    path.display()
                ))
                .with_source(error))
            } else {
                Ok(None)
            };
        }
    };
    let Some(lock) = ReaderLock::take(file)? else {
        return Ok(None);
    };
    if Current::read(store_dir)? != Some(current) {
        return Ok(None);
    }
    let manifest = disk::read_file(&path)?;
    if crc32c::crc32c(&manifest) != current.manifest_crc {
        return Err(Error::data(format!(
            "file of the store is damaged: file=`{}`; restore the store from a backup",
            path.display()
        )));
    }
    Ok(Some(Pinned {
        current,
        dir,
        manifest,
        lock: Arc::new(lock),
    }))
}

/// Reads the current checkpoint. Its tables will work in directories below `work_dir`.
///
/// `None` if a writer has just replaced it: look again.
pub(crate) fn load(
    store_dir: &Path,
    current: Current,
    work_dir: &Arc<WorkDir>,
    attach: Attach,
) -> Result<Option<State>> {
    let Some(pinned) = pin(store_dir, current)? else {
        return Ok(None);
    };
    pinned.state(work_dir, attach).map(Some)
}

impl Pinned {
    /// What the checkpoint holds.
    pub(crate) fn state(&self, work_dir: &Arc<WorkDir>, attach: Attach) -> Result<State> {
        decode_manifest(&self.manifest, &self.dir, work_dir, attach, &self.lock)
            .map_err(|error| error.context(self.dir.join(MANIFEST).display()))
    }

    /// Writes the same checkpoint into another store, which has none, and makes it the current one there.
    ///
    /// `state` is what [`state`](Self::state) has answered. Each file is checked on its way. Returns the number of
    /// files and their bytes.
    pub(crate) fn copy_to(&self, state: &State, store_dir: &Path) -> Result<(u64, u64)> {
        let above = store_dir.join(CHECKPOINT_DIR);
        let dir = self.current.dir(store_dir);
        disk::make_dir(&above)?;
        disk::make_dir(&dir)?;
        let (mut num_files, mut num_bytes) = (0, 0);
        for table in state.tables.values().flat_map(parts) {
            let Some(source) = &table.checkpointed else {
                continue;
            };
            let table_dir = dir.join(table_dir_name(table.id, table.generation));
            disk::make_dir(&table_dir)?;
            disk::make_dir(&table_dir.join(VERSION_DIR))?;
            for file in &source.files {
                let from = source.dir.join(&file.name);
                let copied = disk::copy_synced(&from, &table_dir.join(&file.name))?;
                check_copied(&from, file, copied)?;
                num_files += 1;
                num_bytes += file.num_bytes;
            }
            disk::sync_dir(&table_dir.join(VERSION_DIR))?;
            disk::sync_dir(&table_dir)?;
        }
        publish(store_dir, &dir, self.current, &self.manifest)?;
        Ok((num_files + 2, num_bytes + self.manifest.len() as u64))
    }
}

/// The last steps of a checkpoint: its manifest, and the pointer to it.
fn publish(store_dir: &Path, dir: &Path, current: Current, manifest: &[u8]) -> Result<()> {
    disk::write_file_synced(&dir.join(MANIFEST), manifest)?;
    disk::sync_dir(dir)?;
    disk::sync_dir(&store_dir.join(CHECKPOINT_DIR))?;
    if !store_dir.join(CURRENT).exists() {
        // The directory of checkpoints is new, too: it must be there for certain before CURRENT points into it.
        disk::sync_dir(store_dir)?;
    }
    let temporary = store_dir.join("CURRENT.new");
    disk::write_file_synced(&temporary, current.encode().as_bytes())?;
    disk::rename(&temporary, &store_dir.join(CURRENT))?;
    disk::sync_dir(store_dir)
}

fn decode_manifest(
    bytes: &[u8],
    dir: &Path,
    work_dir: &Arc<WorkDir>,
    attach: Attach,
    lock: &Arc<ReaderLock>,
) -> Result<State> {
    let (is_format_1, content) = content_of(bytes, MANIFEST_MAGIC, MANIFEST_MAGIC_1);
    let mut input = Decoder::new(content);
    let version = Version::decode(&mut input)?;
    let mut state = State {
        version,
        checkpointed: version,
        next_table_id: input.get_u32()?,
        ..State::empty()
    };
    let place = Place {
        is_format_1,
        dir,
        work_dir,
        attach,
        lock,
    };
    for _ in 0..input.get_u64()? {
        let name = input.get_str()?.to_owned();
        check_name(namespace_of(&name).unwrap_or(&name))?;
        let num_older = if is_format_1 { 0 } else { input.get_u64()? };
        let older = (0..num_older).map(|_| decode_table(&mut input, &place));
        let older = older.collect::<Result<_>>()?;
        let table = TableState {
            older,
            ..decode_table(&mut input, &place)?
        };
        state.tables.insert(name, table);
    }
    for _ in 0..input.get_u64()? {
        let name = input.get_str()?.to_owned();
        let version = Version::decode(&mut input)?;
        let value = input.get_bytes()?.to_vec();
        state.watermarks.insert(name, Watermark { version, value });
    }
    input.expect_end()?;
    Ok(state)
}

/// What stands behind the magic bytes of a file, and whether it is of the first format. Nothing if the bytes are wrong.
fn content_of<'a>(bytes: &'a [u8], magic: &[u8], magic_1: &[u8]) -> (bool, &'a [u8]) {
    match bytes.split_at_checked(magic.len()) {
        Some((found, content)) if found == magic => (false, content),
        Some((found, content)) if found == magic_1 => (true, content),
        _ => (false, &[]),
    }
}

/// Where the tables of a manifest are, and where they are worked with.
struct Place<'a> {
    is_format_1: bool,
    dir: &'a Path,
    work_dir: &'a Arc<WorkDir>,
    attach: Attach,
    lock: &'a Arc<ReaderLock>,
}

fn decode_table(input: &mut Decoder<'_>, place: &Place<'_>) -> Result<TableState> {
    let has_past = !place.is_format_1;
    let (id, generation) = (input.get_u32()?, input.get_u32()?);
    let incarnation = if has_past {
        input.get_u32()?
    } else {
        generation
    };
    let spec = Arc::new(TableSpec::decode(input)?);
    let num_sorted_pages = if has_past { input.get_u64()? } else { 0 };
    let num_sorted_pages = usize::try_from(num_sorted_pages).unwrap_or(usize::MAX);
    let is_distinct = input.get_u8()? != 0;
    let counted = if has_past {
        Counted {
            num_stored: input.get_u64()?,
            num_dead: input.get_u64()?,
        }
    } else {
        Counted::default()
    };
    let created = Version::decode(input)?;
    let begun = if has_past {
        Some(Version::decode(input)?)
    } else {
        None
    };
    let changed = Version::decode(input)?;
    // Of a table of the first format only the newest version is known.
    let begun = begun.unwrap_or(changed);
    let (oldest, retention) = if has_past {
        (input.get_u64()?, Retention::decode(input)?)
    } else {
        (changed.number, Retention::default())
    };
    let next_page_id = input.get_u64()?;
    let mut files = Vec::new();
    for _ in 0..input.get_u64()? {
        let name = input.get_str()?.to_owned();
        check_file_name(&name)?;
        files.push(TableFile {
            name,
            num_bytes: input.get_u64()?,
            crc: input.get_u32()?,
        });
    }
    let table_dir = place.dir.join(table_dir_name(id, generation));
    let (pages, mut history) = read_page_list(&table_dir, &files)?;
    if place.is_format_1 {
        let kind = if created == changed {
            CommitKind::Create
        } else {
            CommitKind::Write
        };
        history.push(HistoryEntry {
            version: changed,
            kind,
            counts: None,
        });
    }
    if num_sorted_pages > pages.len() {
        return Err(Error::data(format!(
            "table has fewer pages than sorted ones: dir=`{}`",
            table_dir.display()
        )));
    }
    let source = TableSource {
        dir: table_dir,
        files,
        attach: place.attach,
        lock: Arc::clone(place.lock),
    };
    let keyspace = Keyspace::new(
        Arc::clone(place.work_dir),
        id,
        generation,
        Some(source.clone()),
        next_page_id,
    );
    Ok(TableState {
        generation,
        pages: Arc::new(pages),
        num_sorted_pages,
        is_distinct,
        counted,
        created,
        begun,
        changed,
        oldest,
        retention,
        history: Arc::new(history),
        checkpointed: Some(source),
        ..TableState::new(id, incarnation, spec, Arc::new(keyspace), created)
    })
}

/// A manifest names files inside its own directory, and nothing else.
fn check_file_name(name: &str) -> Result<()> {
    let base = name
        .strip_prefix(VERSION_DIR)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(name);
    let is_plain = !base.is_empty()
        && !base.starts_with('.')
        && base
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_');
    if is_plain {
        return Ok(());
    }
    Err(Error::data(format!(
        "manifest names a file outside of its checkpoint: file=`{name}`"
    )))
}

/// Removes checkpoints other than the current one, except those that a reader holds.
///
/// `current` is what this process takes for current. After a failed fsync it may be another, and then that one stays too.
pub(crate) fn remove_old(store_dir: &Path, current: u64) -> Result<()> {
    let found = Current::read(store_dir)?.map(|found| found.number);
    let above = store_dir.join(CHECKPOINT_DIR);
    for name in disk::list_dir(&above)? {
        // Only what has the form of our own names is ours to remove.
        let number = Some(&name).filter(|name| name.len() == 16);
        let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if number.is_none_or(|number| number == current || Some(number) == found) {
            continue;
        }
        let dir = above.join(&name);
        let manifest = dir.join(MANIFEST);
        // The lock is held until the directory is gone, so that no reader comes in between.
        let unused = lock::take_unused(&manifest);
        if unused.is_some() || !manifest.exists() {
            disk::remove_dir(&dir)?;
        }
    }
    Ok(())
}
