//! Work of every kind, of which each state is known beforehand: the n-th step is a function of the seed and of n.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use arrow_array::{cast::AsArray, types::Int64Type};
use darner_store::{
    AsOf, Clock, CompactionMode, Durability, ErrorKind, Result, Scan, Store, StoreOptions,
    TableSnapshot,
};

use super::{
    random::Random,
    workload::{Edit, Model, ModelRows, Scale, check, commit, plan, step_of},
};

/// The time of all work: it stands still, so that whoever repeats the work later repeats what ends, too.
pub(crate) const NOW_US: i64 = 1_000_000;

/// What work is made of, beside small commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Small,
    Bulk,
    Checkpoint,
    Compaction,
    Open,
    Backup,
    /// Something of all.
    Mixed,
    /// Something of all, with a thread that makes checkpoints and compacts meanwhile. What it does is no function of
    /// the seed.
    Threaded,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Commit,
    Checkpoint,
    Compact,
    /// Copies the store to a new place beside it.
    Backup,
    /// Ends without a word, and opens again.
    Drop,
    /// Ends in order, and opens again.
    Close,
}

impl Kind {
    /// Those whose file operations are a function of the seed.
    pub(crate) const REPEATABLE: [Self; 7] = [
        Self::Small,
        Self::Bulk,
        Self::Checkpoint,
        Self::Compaction,
        Self::Open,
        Self::Backup,
        Self::Mixed,
    ];

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::REPEATABLE.into_iter().chain([Self::Threaded])
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Bulk => "bulk",
            Self::Checkpoint => "checkpoint",
            Self::Compaction => "compaction",
            Self::Open => "open",
            Self::Backup => "backup",
            Self::Mixed => "mixed",
            Self::Threaded => "threaded",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }

    /// Small numbers everywhere, so that little work meets every path.
    pub(crate) fn options(self) -> StoreOptions {
        let is_mixed = matches!(self, Self::Mixed | Self::Threaded);
        StoreOptions {
            durability: Durability::Synced,
            page_bytes: 2000,
            bulk_bytes: match self {
                Self::Bulk => 0,
                Self::Mixed | Self::Threaded => 2500,
                _ => 16 << 20,
            },
            checkpoint_log_bytes: if is_mixed { 12_000 } else { 64 << 20 },
            log_segment_bytes: if is_mixed { 4096 } else { 16_384 },
            compaction: match self {
                Self::Threaded => CompactionMode::Background,
                // By the thread that works, so that the order of operations is a function of the seed.
                Self::Mixed | Self::Compaction => CompactionMode::AtOnce,
                _ => CompactionMode::Never,
            },
            compact_bytes: 3000,
            state_memory_bytes: 4000,
            page_cache_bytes: 10_000,
            clock: Clock::new(|| NOW_US),
        }
    }

    fn action(self, random: &mut Random) -> Action {
        let is_other = random.below(3) == 0;
        match self {
            Self::Checkpoint if is_other => Action::Checkpoint,
            Self::Compaction if is_other => Action::Compact,
            Self::Open if is_other => [Action::Drop, Action::Close][random.below(2) as usize],
            Self::Backup if is_other => Action::Backup,
            Self::Mixed | Self::Threaded => match random.below(12) {
                0 => Action::Checkpoint,
                1 => Action::Compact,
                2 => Action::Drop,
                3 => Action::Close,
                4 => Action::Backup,
                _ => Action::Commit,
            },
            _ => Action::Commit,
        }
    }
}

/// What a store holds after each step of the work of one seed.
pub(crate) struct Models {
    seed: u64,
    first: u64,
    known: VecDeque<Model>,
}

impl Models {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            first: 0,
            known: VecDeque::from([Model::default()]),
        }
    }

    fn plan(&self, model: &Model) -> Vec<Edit> {
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(model.step);
        plan(model, &mut Random::new(seed), Scale::SMALL)
    }

    /// What the step after `step` does.
    pub(crate) fn edits_after(&mut self, step: u64) -> Vec<Edit> {
        let model = self.at(step).clone();
        self.plan(&model)
    }

    pub(crate) fn at(&mut self, step: u64) -> &Model {
        while self.first + self.known.len() as u64 <= step {
            let mut model = self.known.back().unwrap().clone();
            let edits = self.plan(&model);
            model.apply(&edits, NOW_US);
            self.known.push_back(model);
        }
        assert!(self.first <= step, "step {step} was forgotten");
        &self.known[(step - self.first) as usize]
    }

    /// Gives back the memory of all steps before this one.
    pub(crate) fn forget_before(&mut self, step: u64) {
        while self.first < step && self.known.len() > 1 {
            self.known.pop_front();
            self.first += 1;
        }
    }
}

/// A commit begins, or has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Attempted(u64),
    Acknowledged(u64),
}

/// Work on one store.
pub(crate) struct Work {
    pub(crate) dir: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) models: Models,
    pub(crate) store: Option<Store>,
    actions: Random,
    num_backups: u64,
}

impl Work {
    /// Work in `dir`, which may hold the store of earlier work with the same seed.
    pub(crate) fn new(dir: &Path, kind: Kind, seed: u64, actions_seed: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            kind,
            models: Models::new(seed),
            store: None,
            actions: Random::new(actions_seed),
            num_backups: 0,
        }
    }

    /// Opens the store, or does the next action on it.
    pub(crate) fn act(&mut self, tell: &mut dyn FnMut(Event)) -> Result<()> {
        let Some(store) = &self.store else {
            let store = Store::open(&self.dir, self.kind.options())?;
            // Whoever has opened it has seen this.
            tell(Event::Acknowledged(step_of(&store)));
            self.store = Some(store);
            return Ok(());
        };
        match self.kind.action(&mut self.actions) {
            Action::Commit => {
                let step = step_of(store);
                let edits = self.models.edits_after(step);
                tell(Event::Attempted(step + 1));
                commit(store, step + 1, &edits)?;
                tell(Event::Acknowledged(step + 1));
                Ok(())
            }
            Action::Checkpoint => store.checkpoint(),
            Action::Compact => store.compact(),
            Action::Backup => {
                self.num_backups += 1;
                // Processes that were killed have left theirs.
                let (process, number) = (std::process::id(), self.num_backups);
                let copy = format!("{COPY}{process}-{number}");
                store.backup(self.dir.with_file_name(copy)).map(|_| ())
            }
            Action::Drop => {
                self.store = None;
                Ok(())
            }
            Action::Close => self.store.take().map_or(Ok(()), Store::close),
        }
    }
}

/// How the names of copies begin.
const COPY: &str = "copy-";

/// Looks at the copies beside a store and removes them. Each is the store after one of its steps, or no store at all.
pub(crate) fn check_copies(dir: &Path, kind: Kind, models: &mut Models, attempted: u64) {
    for found in std::fs::read_dir(dir.parent().unwrap()).unwrap() {
        let copy = found.unwrap().path();
        let name = copy.file_name().unwrap().to_str().unwrap();
        if !name.starts_with(COPY) {
            continue;
        }
        match Store::open_read_only_with(&copy, kind.options()) {
            Ok(store) => {
                let step = step_of(&store);
                assert!(step <= attempted, "copy of step {step} of {attempted}");
                check(&store, models.at(step), NOW_US);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{} cannot be opened: {error:?}", copy.display()),
        }
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

/// Opens a store for writing and checks that it holds what it held after one of the steps of a range, and takes the
/// commit of the next step. Returns the step that it was found at.
pub(crate) fn check_store(dir: &Path, kind: Kind, models: &mut Models, range: (u64, u64)) -> u64 {
    check_and_commit(dir, kind, models, range, true)
}

/// As [`check_store`], for a store that is thrown away: the commit is another and shorter than the one that is planned,
/// so that it does not by chance put right what is left of that.
pub(crate) fn check_found(dir: &Path, kind: Kind, models: &mut Models, range: (u64, u64)) {
    check_and_commit(dir, kind, models, range, false);
}

fn check_and_commit(
    dir: &Path,
    kind: Kind,
    models: &mut Models,
    (acknowledged, attempted): (u64, u64),
    as_planned: bool,
) -> u64 {
    let open = || match Store::open(dir, kind.options()) {
        Ok(store) => store,
        Err(error) => panic!("cannot be opened: {error:?}"),
    };
    check_copies(dir, kind, models, attempted);
    let store = open();
    let step = step_of(&store);
    assert!(
        (acknowledged..=attempted).contains(&step),
        "step={step} acknowledged={acknowledged} attempted={attempted}"
    );
    check(&store, models.at(step), NOW_US);
    let edits = if as_planned {
        models.edits_after(step)
    } else {
        Vec::new()
    };
    let mut model = models.at(step).clone();
    model.apply(&edits, NOW_US);
    if let Err(error) = commit(&store, step + 1, &edits) {
        panic!("takes no commit: {error:?}");
    }
    drop(store);
    check(&open(), &model, NOW_US);
    step
}

type Bytes = Vec<u8>;

/// All that can be read of a store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contents {
    pub(crate) step: u64,
    tables: BTreeMap<String, ModelRows>,
    /// Earlier versions, as far as they are kept.
    past: BTreeMap<(String, u64), ModelRows>,
    namespaces: BTreeMap<String, Vec<(Bytes, Bytes)>>,
}

fn read_table(table: &TableSnapshot) -> Result<ModelRows> {
    let mut collected = ModelRows::new();
    for batch in table.rows(None)? {
        let batch = batch?;
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let payloads = batch.column(1).as_primitive::<Int64Type>();
        let regions = batch.column(2).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let key = (ids.value(row), regions.value(row).to_owned());
            let before = collected.insert(key, payloads.value(row));
            assert!(before.is_none(), "a key came twice");
        }
    }
    assert_eq!(table.num_rows()?, collected.len() as u64);
    Ok(collected)
}

/// Reads everything, and fails as the first read that fails.
pub(crate) fn contents(store: &Store) -> Result<Contents> {
    let mut found = Contents {
        step: step_of(store),
        tables: BTreeMap::new(),
        past: BTreeMap::new(),
        namespaces: BTreeMap::new(),
    };
    for name in store.table_names() {
        let table = store.table(&name)?;
        found.tables.insert(name.clone(), read_table(&table)?);
        for commit in table.history()?.iter().filter(|commit| commit.is_readable) {
            let number = commit.version.number;
            let past = store.table_at(&name, AsOf::Version(number))?;
            found
                .past
                .insert((name.clone(), number), read_table(&past)?);
        }
    }
    for name in store.namespaces() {
        let state = store.state(&name)?;
        let entries = state.scan(&Scan::all())?;
        let entries = entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        let entries = entries.collect::<Result<Vec<_>>>()?;
        for (key, value) in &entries {
            assert_eq!(state.get(key)?.as_deref(), Some(&value[..]));
        }
        drop(state);
        found.namespaces.insert(name, entries);
    }
    Ok(found)
}

/// A directory for one test; in memory where that is to be had, since fsync is for nothing there.
pub(crate) fn fast_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    if memory.is_dir()
        && let Ok(dir) = builder.tempdir_in(memory)
    {
        return dir;
    }
    builder.tempdir().unwrap()
}
