//! Entries in key order.

use std::{
    collections::{BinaryHeap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::{
    entry::{Entry, StateBytes},
    key::Key,
    memory::{Entries, Inner, Namespace},
    pages::{EntryPage, bound_of, key_bounds, read_pages},
};
use crate::{
    error::{Error, Result},
    page::PageMeta,
    state::TableState,
};

/// Which entries are wanted, and in which order.
///
/// # Examples
/// ```
/// # use darner_store::Scan;
/// let newest_five_of_user = Scan::prefix(b"user/7/").reverse().limit(5);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Scan {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    limit: Option<usize>,
    is_reverse: bool,
}

impl Scan {
    /// All entries.
    pub fn all() -> Self {
        Self::default()
    }

    /// Entries with `start <= key < end`.
    pub fn range(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self {
            start: start.into(),
            end: Some(end.into()),
            ..Self::default()
        }
    }

    /// Entries with `start <= key`.
    pub fn from(start: impl Into<Vec<u8>>) -> Self {
        Self {
            start: start.into(),
            ..Self::default()
        }
    }

    /// Entries whose key begins with these bytes.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        // The next bytes in order that do not begin so: the last byte that can grow grows, and what follows goes.
        let mut end = start.clone();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        let end = end.pop().map(|last| {
            end.push(last + 1);
            end
        });
        Self {
            start,
            end,
            ..Self::default()
        }
    }

    /// At most so many entries.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// From the largest key to the smallest.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.is_reverse = true;
        self
    }

    fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }

    fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = self.end.as_deref();
        (
            Bound::Included(&self.start[..]),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        )
    }
}

/// Entries of a [`Scan`]: key and value, in order, as they were when the scan began.
pub struct ScanEntries<'n> {
    source: Source<'n>,
    num_left: usize,
}

enum Source<'n> {
    Memory(std::vec::IntoIter<Entry>),
    Pages(Box<Merge<'n>>),
}

impl<'n> ScanEntries<'n> {
    pub(super) fn none() -> Self {
        Self {
            source: Source::Memory(Vec::new().into_iter()),
            num_left: 0,
        }
    }

    pub(super) fn new(namespace: &'n Namespace, scan: &Scan, now_us: i64) -> Result<Self> {
        let num_left = scan.limit.unwrap_or(usize::MAX);
        if scan.is_empty() || num_left == 0 {
            return Ok(Self::none());
        }
        let inner = namespace.read_sorted()?;
        let source = match &inner.entries {
            Entries::Resident(_) => {
                Source::Memory(resident(&inner, scan, num_left, now_us).into_iter())
            }
            Entries::Paged(changed) => {
                let changed: Vec<(Key, Option<Entry>)> = changed
                    .range::<[u8], _>(scan.bounds())
                    .map(|(key, entry)| (key.clone(), entry.clone()))
                    .collect();
                let table = if inner.is_cleared {
                    inner.table.with_pages(|_| false)
                } else {
                    inner.table.clone()
                };
                drop(inner);
                Source::Pages(Box::new(Merge::new(
                    namespace, table, scan, changed, now_us,
                )?))
            }
        };
        Ok(Self { source, num_left })
    }
}

fn resident(inner: &Inner, scan: &Scan, limit: usize, now_us: i64) -> Vec<Entry> {
    let Entries::Resident(resident) = &inner.entries else {
        return Vec::new();
    };
    let live = |key: &Key| {
        let entry = resident.get(key)?;
        entry.is_live(|| now_us).then(|| entry.clone())
    };
    let Some(sorted) = resident.sorted() else {
        // `read_sorted` answers with sorted keys.
        return Vec::new();
    };
    let keys = sorted.range::<[u8], _>(scan.bounds());
    if scan.is_reverse {
        keys.rev().filter_map(live).take(limit).collect()
    } else {
        keys.filter_map(live).take(limit).collect()
    }
}

impl Iterator for ScanEntries<'_> {
    type Item = Result<(StateBytes, StateBytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.num_left == 0 {
            return None;
        }
        let next = match &mut self.source {
            Source::Memory(entries) => entries.next().map(Ok),
            Source::Pages(merge) => merge.next().transpose(),
        };
        self.num_left -= 1;
        if !matches!(next, Some(Ok(_))) {
            self.num_left = 0;
        }
        next.map(|entry| {
            entry.map(|entry| (StateBytes::key_of(&entry), StateBytes::value_of(&entry)))
        })
    }
}

/// Pages that a scan reads at once, at most: 2 MiB of the usual size.
const AHEAD_PAGES_MAX: usize = 32;

/// Merges pages, each sorted, and the changed entries. A page is read when the merge comes to its first key.
struct Merge<'n> {
    namespace: &'n Namespace,
    table: TableState,
    scan: Scan,
    now_us: i64,
    /// Pages not opened yet with their first key in scan order, encoded, `None` if unknown; the next one last.
    waiting: Vec<(Option<Box<[u8]>>, usize)>,
    /// The pages that `waiting` ends with, read ahead, the next one first.
    ahead: VecDeque<Arc<EntryPage>>,
    /// How many pages are read at once: more each time, because a long scan is likely to become longer.
    num_ahead: usize,
    open: BinaryHeap<Cursor>,
}

/// Where the merge stands in one run of entries. The greatest cursor is the next in scan order; of equal keys the
/// newest.
struct Cursor {
    key: Key,
    is_reverse: bool,
    /// The number of its page in the table, or `usize::MAX` for changed entries: newer is greater.
    age: usize,
    row: usize,
    run: Run,
}

enum Run {
    Page(Arc<EntryPage>),
    Changed(Arc<Vec<(Key, Option<Entry>)>>),
}

impl Run {
    fn len(&self) -> usize {
        match self {
            Self::Page(page) => page.len(),
            Self::Changed(changed) => changed.len(),
        }
    }

    fn key(&self, row: usize) -> Key {
        match self {
            Self::Page(page) => page.key(row).into(),
            Self::Changed(changed) => changed[row].0.clone(),
        }
    }

    fn entry(&self, row: usize) -> Option<Entry> {
        match self {
            Self::Page(page) => page.entry(row),
            Self::Changed(changed) => changed[row].1.clone(),
        }
    }
}

impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_key = if self.is_reverse {
            self.key.cmp(&other.key)
        } else {
            other.key.cmp(&self.key)
        };
        by_key.then(self.age.cmp(&other.age))
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cursor {}

impl<'n> Merge<'n> {
    fn new(
        namespace: &'n Namespace,
        table: TableState,
        scan: &Scan,
        changed: Vec<(Key, Option<Entry>)>,
        now_us: i64,
    ) -> Result<Self> {
        let start = bound_of(&scan.start)?;
        let end = scan.end.as_deref().map(bound_of).transpose()?;
        let is_wanted = |page: &PageMeta| {
            key_bounds(page).is_none_or(|(min, max)| {
                *max >= *start && end.as_deref().is_none_or(|end| *min < *end)
            })
        };
        let mut waiting: Vec<(Option<Box<[u8]>>, usize)> = (0..)
            .zip(table.pages.iter())
            .filter(|(_, page)| is_wanted(page))
            .map(|(at, page)| {
                let bounds = key_bounds(page);
                let first = bounds.map(|(min, max)| if scan.is_reverse { max } else { min });
                (first.map(Into::into), at)
            })
            .collect();
        // The next one last; what is unknown is looked into at once.
        waiting.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) if scan.is_reverse => a.cmp(b),
            (Some(a), Some(b)) => b.cmp(a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        let mut merge = Self {
            namespace,
            table,
            scan: scan.clone(),
            now_us,
            waiting,
            ahead: VecDeque::new(),
            num_ahead: 1,
            open: BinaryHeap::new(),
        };
        if !changed.is_empty() {
            let first = if scan.is_reverse {
                changed.len() - 1
            } else {
                0
            };
            merge.push(Run::Changed(Arc::new(changed)), usize::MAX, Some(first));
        }
        Ok(merge)
    }

    /// Puts a run into the heap at a row; a run that is at its end, or past the wanted range, is left out.
    fn push(&mut self, run: Run, age: usize, row: Option<usize>) {
        let Some(row) = row.filter(|row| *row < run.len()) else {
            return;
        };
        let key = run.key(row);
        if self.scan.contains(&key) {
            self.open.push(Cursor {
                key,
                is_reverse: self.scan.is_reverse,
                age,
                row,
                run,
            });
        }
    }

    /// Opens every page that may hold a key at or before the next one.
    fn open_pages(&mut self) -> Result<()> {
        while let Some((first, _)) = self.waiting.last() {
            if let (Some(first), Some(cursor)) = (first, self.open.peek()) {
                let next = bound_of(&cursor.key)?;
                let is_later = if self.scan.is_reverse {
                    **first < *next
                } else {
                    **first > *next
                };
                if is_later {
                    break;
                }
            }
            let Some((_, at)) = self.waiting.pop() else {
                break;
            };
            let page = match self.ahead.pop_front() {
                Some(page) => page,
                None => self.read_ahead(at)?,
            };
            let row = if self.scan.is_reverse {
                let end = self.scan.end.as_ref();
                end.map_or(page.len(), |end| page.lower_bound(end))
                    .checked_sub(1)
            } else {
                Some(page.lower_bound(&self.scan.start))
            };
            self.push(Run::Page(page), at, row);
        }
        Ok(())
    }

    /// Reads a page, and some of those that come after it.
    fn read_ahead(&mut self, at: usize) -> Result<Arc<EntryPage>> {
        let next = self.waiting.iter().rev().map(|(_, at)| *at);
        let wanted: Vec<&PageMeta> = [at]
            .into_iter()
            .chain(next.take(self.num_ahead - 1))
            .map(|at| &*self.table.pages[at])
            .collect();
        self.ahead = read_pages(self.namespace, &self.table, &wanted)?.into();
        self.num_ahead = (self.num_ahead * 2).min(AHEAD_PAGES_MAX);
        self.ahead
            .pop_front()
            .ok_or_else(|| Error::internal("page was read without an answer"))
    }

    fn advance(&mut self, cursor: Cursor) {
        let row = if self.scan.is_reverse {
            cursor.row.checked_sub(1)
        } else {
            Some(cursor.row + 1)
        };
        self.push(cursor.run, cursor.age, row);
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            self.open_pages()?;
            let Some(newest) = self.open.pop() else {
                return Ok(None);
            };
            let entry = newest.run.entry(newest.row);
            let key = newest.key.clone();
            self.advance(newest);
            while self.open.peek().is_some_and(|older| older.key == key) {
                if let Some(older) = self.open.pop() {
                    self.advance(older);
                }
            }
            if let Some(entry) = entry.filter(|entry| entry.is_live(|| self.now_us)) {
                return Ok(Some(entry));
            }
        }
    }
}
