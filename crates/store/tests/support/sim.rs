//! A disk that knows what it holds for certain and what it may lose.
//!
//! It is told the operations of a store, and answers what may be found after the power has gone. Held for certain: the
//! content of a file as of its last fsync, and the entries of a directory as of its last fsync. All that came later is
//! *pending*, and each piece may be there or be missing, whatever the others do: every 512-byte sector of a write, a
//! change of a file's length, a new entry, a removed one, a rename (which is whole or not at all).
//!
//! Files that Tonbo wrote are first seen as the source of a link or a copy, or when they are fsynced; all of their content is pending then.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    path::{Component, Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use darner_store::testing::{Observer, Op};

use super::{random::Random, work::Event};

const SECTOR_BYTES: usize = 512;

/// An operation that was done, with what is needed to repeat it. Paths are relative to the disk's root.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    MakeDir(PathBuf),
    RemoveDir(PathBuf),
    RemoveFile(PathBuf),
    Create(PathBuf),
    Open(PathBuf),
    Allocate(PathBuf, u64),
    Write(PathBuf, u64, Vec<u8>),
    /// The content is that of the file, if it is one of Tonbo's: nobody may have seen it before.
    SyncFile(PathBuf, Vec<u8>),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    /// The content is that of the source, in case that nobody has seen it before.
    Link(PathBuf, PathBuf, Vec<u8>),
    Copy(PathBuf, Vec<u8>),
    /// No operation: the work has come so far.
    Told(Event),
}

/// Records the operations below a directory, and can end a process at one of them: from there on, nothing is done.
pub(crate) struct Recorder {
    root: PathBuf,
    records: Mutex<Vec<Record>>,
    num_ops: AtomicU64,
    dies_at: AtomicU64,
    dies_on_brink: AtomicBool,
    is_dead: AtomicBool,
}

impl Recorder {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            records: Mutex::default(),
            num_ops: AtomicU64::new(0),
            dies_at: AtomicU64::new(u64::MAX),
            dies_on_brink: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
        }
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, event: Event) {
        self.records().push(Record::Told(event));
    }

    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records())
    }

    /// Lets the process end after so many more operations.
    pub(crate) fn die_in(&self, num_ops: u64) {
        let at = self.num_ops.load(Ordering::Relaxed) + num_ops;
        self.dies_at.store(at, Ordering::Relaxed);
    }

    /// Lets the process end between a step and the fsync that makes it certain: it has written to the log, or renamed
    /// something. The next process builds on it.
    pub(crate) fn die_on_brink(&self) {
        self.dies_on_brink.store(true, Ordering::Relaxed);
    }

    /// Whether the process has ended.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    /// Begins the next process.
    pub(crate) fn revive(&self) {
        self.dies_at.store(u64::MAX, Ordering::Relaxed);
        self.dies_on_brink.store(false, Ordering::Relaxed);
        self.is_dead.store(false, Ordering::Relaxed);
    }
}

impl Observer for Recorder {
    fn before(&self, op: &Op<'_>) -> std::io::Result<()> {
        if let Op::SyncFile(path) = op
            && path.parent().is_some_and(|above| above.ends_with("log"))
            && !path.ends_with("new")
            && self.dies_on_brink.load(Ordering::Relaxed)
        {
            self.die_in(0);
        }
        if self.num_ops.fetch_add(1, Ordering::Relaxed) >= self.dies_at.load(Ordering::Relaxed) {
            self.is_dead.store(true, Ordering::Relaxed);
            return Err(std::io::Error::other("the process is no more"));
        }
        Ok(())
    }

    fn after(&self, op: &Op<'_>) {
        if let Op::Rename(_, to) = op
            && !to.parent().is_some_and(|above| above.ends_with("live"))
            && self.dies_on_brink.load(Ordering::Relaxed)
        {
            self.die_in(0);
        }
        let relative = |path: &Path| path.strip_prefix(&self.root).unwrap().to_owned();
        let record = match *op {
            Op::MakeDir(path) => Record::MakeDir(relative(path)),
            Op::RemoveDir(path) => Record::RemoveDir(relative(path)),
            Op::RemoveFile(path) => Record::RemoveFile(relative(path)),
            Op::Create(path) => Record::Create(relative(path)),
            Op::Open(path) => Record::Open(relative(path)),
            Op::Allocate(path, len) => Record::Allocate(relative(path), len),
            Op::Write(path, at, bytes) => Record::Write(relative(path), at, bytes.to_vec()),
            Op::SyncFile(path) => {
                let is_tonbos = path.extension().is_some_and(|ending| ending == "parquet");
                let content = is_tonbos.then(|| std::fs::read(path).unwrap());
                Record::SyncFile(relative(path), content.unwrap_or_default())
            }
            Op::SyncDir(path) => Record::SyncDir(relative(path)),
            Op::Rename(from, to) => Record::Rename(relative(from), relative(to)),
            Op::Link(from, to) => {
                Record::Link(relative(from), relative(to), std::fs::read(to).unwrap())
            }
            Op::Copy(_, to) => Record::Copy(relative(to), std::fs::read(to).unwrap()),
            Op::Read(_) | Op::List(_) | Op::Insert(_) | Op::Flush(_) => return,
        };
        self.records().push(record);
    }
}

type NodeId = usize;

#[derive(Clone, Debug)]
enum Node {
    File {
        durable: Vec<u8>,
        pending: Vec<FileChange>,
    },
    Dir {
        durable: BTreeMap<String, NodeId>,
        pending: Vec<DirChange>,
        /// With all that is pending.
        now: BTreeMap<String, NodeId>,
    },
}

#[derive(Clone, Debug)]
enum FileChange {
    SetLen(u64),
    Write(u64, Vec<u8>),
}

#[derive(Clone, Debug)]
enum DirChange {
    Add(String, NodeId),
    Remove(String),
    Rename(String, String, NodeId),
}

fn apply_to_dir(entries: &mut BTreeMap<String, NodeId>, change: &DirChange) {
    match change {
        DirChange::Add(name, id) => {
            entries.insert(name.clone(), *id);
        }
        DirChange::Remove(name) => {
            entries.remove(name);
        }
        DirChange::Rename(from, to, id) => {
            entries.remove(from);
            entries.insert(to.clone(), *id);
        }
    }
}

fn write_to_file(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

fn apply_to_file(content: &mut Vec<u8>, change: &FileChange, keeps: &mut dyn FnMut() -> bool) {
    match change {
        FileChange::SetLen(len) => {
            if keeps() {
                content.resize(*len as usize, 0);
            }
        }
        FileChange::Write(offset, bytes) => {
            let (start, mut at) = (*offset as usize, 0);
            while at < bytes.len() {
                let len = (SECTOR_BYTES - (start + at) % SECTOR_BYTES).min(bytes.len() - at);
                if keeps() {
                    write_to_file(content, start + at, &bytes[at..at + len]);
                }
                at += len;
            }
        }
    }
}

/// How much of what is pending has reached the disk when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    Nothing,
    Everything,
    /// Each piece with this many chances in 16.
    Some(u64),
}

impl Reached {
    /// The usual amounts, the extremes more rarely.
    pub(crate) fn any(random: &mut Random) -> Self {
        match random.below(8) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::Some(1),
            3 => Self::Some(15),
            _ => Self::Some(2 + random.below(13)),
        }
    }
}

/// What a disk holds: a directory, or a file by its number (several names may have one file) and content.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Dir,
    File(NodeId, Vec<u8>),
}

/// A whole disk as it may be found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    /// Writes it into an empty directory.
    pub(crate) fn write(&self, dir: &Path) {
        let mut written: HashMap<NodeId, PathBuf> = HashMap::new();
        for (path, entry) in &self.0 {
            let path = dir.join(path);
            match entry {
                Entry::Dir => std::fs::create_dir(&path).unwrap(),
                Entry::File(id, content) => {
                    if let Some(first) = written.get(id) {
                        std::fs::hard_link(first, &path).unwrap();
                    } else {
                        std::fs::write(&path, content).unwrap();
                        written.insert(*id, path);
                    }
                }
            }
        }
    }

    /// A number that tells it from others. What is in working directories does not count.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let is_live = |path: &Path| path.parent().is_some_and(|above| above.ends_with("live"));
        for (path, entry) in &self.0 {
            if path.ancestors().any(is_live) {
                continue;
            }
            path.hash(&mut hasher);
            if let Entry::File(_, content) = entry {
                content.hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// The simulated disk.
#[derive(Clone, Debug)]
pub(crate) struct Sim {
    nodes: Vec<Node>,
}

const ROOT: NodeId = 0;

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().map(|component| match component {
        Component::Normal(name) => name.to_str().unwrap(),
        _ => panic!("path is not plain: {}", path.display()),
    })
}

fn split(path: &Path) -> (&Path, String) {
    let name = path.file_name().unwrap().to_str().unwrap();
    (path.parent().unwrap(), name.to_owned())
}

impl Sim {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![new_dir()],
        }
    }

    /// A disk that holds a tree, all of it for certain.
    pub(crate) fn holding(tree: &Tree) -> Self {
        let mut sim = Self::new();
        let mut ids: HashMap<NodeId, NodeId> = HashMap::new();
        for (path, entry) in &tree.0 {
            let id = match entry {
                Entry::Dir => sim.add_node(new_dir()),
                Entry::File(id, content) => *ids.entry(*id).or_insert_with(|| {
                    sim.add_node(Node::File {
                        durable: content.clone(),
                        pending: Vec::new(),
                    })
                }),
            };
            let (parent, name) = split(path);
            sim.change_dir(parent, DirChange::Add(name, id));
        }
        for node in &mut sim.nodes {
            if let Node::Dir {
                durable,
                pending,
                now,
            } = node
            {
                durable.clone_from(now);
                pending.clear();
            }
        }
        sim
    }

    fn add_node(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn find(&self, path: &Path) -> Option<NodeId> {
        names(path).try_fold(ROOT, |id, name| match &self.nodes[id] {
            Node::Dir { now, .. } => now.get(name).copied(),
            Node::File { .. } => None,
        })
    }

    /// A file that was written by somebody who does not say so: all of its content is pending.
    fn find_or_add(&mut self, path: &Path, content: &[u8]) -> NodeId {
        self.find(path).unwrap_or_else(|| {
            let id = self.add_node(Node::File {
                durable: Vec::new(),
                pending: vec![FileChange::Write(0, content.to_vec())],
            });
            self.add_entry(path, id);
            id
        })
    }

    fn known(&self, path: &Path) -> NodeId {
        self.find(path)
            .unwrap_or_else(|| panic!("unknown path: {}", path.display()))
    }

    fn change_dir(&mut self, path: &Path, change: DirChange) {
        let id = self.known(path);
        let Node::Dir { pending, now, .. } = &mut self.nodes[id] else {
            panic!("not a directory: {}", path.display());
        };
        apply_to_dir(now, &change);
        pending.push(change);
    }

    fn change_file(&mut self, path: &Path, change: FileChange) {
        let id = self.known(path);
        let Node::File { pending, .. } = &mut self.nodes[id] else {
            panic!("not a file: {}", path.display());
        };
        pending.push(change);
    }

    fn add_entry(&mut self, path: &Path, id: NodeId) {
        let (parent, name) = split(path);
        self.change_dir(parent, DirChange::Add(name, id));
    }

    fn create(&mut self, path: &Path, empties: bool) {
        if self.find(path).is_none() {
            let id = self.add_node(new_file());
            self.add_entry(path, id);
        } else if empties {
            self.change_file(path, FileChange::SetLen(0));
        }
    }

    fn remove_all(&mut self, id: NodeId) {
        let Node::Dir { pending, now, .. } = &mut self.nodes[id] else {
            return;
        };
        let children = std::mem::take(now);
        pending.extend(children.keys().cloned().map(DirChange::Remove));
        for child in children.into_values() {
            self.remove_all(child);
        }
    }

    /// Does an operation.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::MakeDir(path) => {
                let id = self.add_node(new_dir());
                self.add_entry(path, id);
            }
            Record::RemoveDir(path) => {
                let id = self.known(path);
                self.remove_all(id);
                let (parent, name) = split(path);
                self.change_dir(parent, DirChange::Remove(name));
            }
            Record::RemoveFile(path) => {
                let (parent, name) = split(path);
                self.change_dir(parent, DirChange::Remove(name));
            }
            Record::Create(path) => self.create(path, true),
            Record::Open(path) => self.create(path, false),
            Record::Allocate(path, len) => self.change_file(path, FileChange::SetLen(*len)),
            Record::Write(path, at, bytes) => {
                self.change_file(path, FileChange::Write(*at, bytes.clone()));
            }
            Record::SyncFile(path, content) => {
                let id = self.find_or_add(path, content);
                let Node::File { durable, pending } = &mut self.nodes[id] else {
                    panic!("not a file: {}", path.display());
                };
                for change in pending.drain(..) {
                    apply_to_file(durable, &change, &mut || true);
                }
            }
            Record::SyncDir(path) => {
                let id = self.known(path);
                let Node::Dir {
                    durable,
                    pending,
                    now,
                } = &mut self.nodes[id]
                else {
                    panic!("not a directory: {}", path.display());
                };
                durable.clone_from(now);
                pending.clear();
            }
            Record::Rename(from, to) => {
                let id = self.known(from);
                let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
                assert_eq!(from_dir, to_dir, "a rename between directories");
                self.change_dir(to_dir, DirChange::Rename(from_name, to_name, id));
            }
            Record::Link(from, to, content) => {
                let id = self.find_or_add(from, content);
                self.add_entry(to, id);
            }
            Record::Copy(to, content) => {
                self.create(to, true);
                self.change_file(to, FileChange::Write(0, content.clone()));
            }
            Record::Told(_) => {}
        }
    }

    /// What may be found after the power has gone now. Working directories come without their tables, which nobody
    /// reads.
    pub(crate) fn lose_power(&self, reached: Reached, random: &mut Random) -> Tree {
        let mut keeps = || match reached {
            Reached::Nothing => false,
            Reached::Everything => true,
            Reached::Some(chances) => random.below(16) < chances,
        };
        let mut tree = Tree::default();
        let mut contents = HashMap::new();
        self.build(ROOT, Path::new(""), &mut keeps, &mut contents, &mut tree);
        tree
    }

    fn build(
        &self,
        id: NodeId,
        path: &Path,
        keeps: &mut dyn FnMut() -> bool,
        contents: &mut HashMap<NodeId, Vec<u8>>,
        tree: &mut Tree,
    ) {
        let Node::Dir {
            durable, pending, ..
        } = &self.nodes[id]
        else {
            return;
        };
        let mut entries = durable.clone();
        for change in pending {
            if keeps() {
                apply_to_dir(&mut entries, change);
            }
        }
        let is_working_dir = path.parent().is_some_and(|above| above.ends_with("live"));
        for (name, id) in entries {
            let path = path.join(name);
            match &self.nodes[id] {
                Node::Dir { .. } if is_working_dir => {}
                Node::Dir { .. } => {
                    tree.0.insert(path.clone(), Entry::Dir);
                    self.build(id, &path, keeps, contents, tree);
                }
                Node::File { durable, pending } => {
                    let content = contents.entry(id).or_insert_with(|| {
                        let mut content = durable.clone();
                        for change in pending {
                            apply_to_file(&mut content, change, keeps);
                        }
                        content
                    });
                    tree.0.insert(path, Entry::File(id, content.clone()));
                }
            }
        }
    }
}

fn new_dir() -> Node {
    Node::Dir {
        durable: BTreeMap::new(),
        pending: Vec::new(),
        now: BTreeMap::new(),
    }
}

fn new_file() -> Node {
    Node::File {
        durable: Vec::new(),
        pending: Vec::new(),
    }
}
