use std::hint::select_unpredictable;
use std::ops::Range;

use rayon::prelude::*;

use super::byte_keys::ByteKeys;
use super::groups::{Group, Groups};
use super::parts::{self, Table};
use super::perfect::{FEW_KEYS, PerfectTable};
use super::records::{Keys, Of16, Of32, Of64, RECORDS_EACH, Record};
use super::short::{SHORT_BYTES_MAX, ShortIndex};
use super::{NO_MATCH, next, row_count};
use crate::key::hash::home_slot;
use crate::prefetch::{LINE_BYTES, prefetch};

/// An index of keys of bytes, by how many words of 8 bytes a record has.
#[derive(Debug)]
pub(crate) enum BytesIndex {
    /// None is longer than 7 bytes.
    Short(ShortIndex),
    /// For keys of up to 8 bytes, and for those past 56.
    One(RecordIndex<1, Of16>),
    Three(RecordIndex<3, Of32>),
    Five(RecordIndex<5, Of64>),
    Seven(RecordIndex<7, Of64>),
}

/// How long keys are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lengths {
    /// Whether a key is more than a short one.
    has_more: bool,
    /// For each of [`WORDS`], those that are longer.
    long: [Long; WORDS.len()],
}

/// Words that a record can have.
const WORDS: [usize; 4] = [1, 3, 5, 7];

/// Keys that are more than a record.
#[derive(Clone, Copy, Debug, Default)]
struct Long {
    num_keys: usize,
    num_bytes: usize,
}

/// One key in so many at most is more than its record: some few long keys do not make the records of all wide. But where
/// there is no width for that, records are the widest; and where most keys are longer than those, the narrowest, since what
/// is compared stands elsewhere.
const KEYS_PER_LONG: usize = 64;

/// Open addressing over hashes, at most half full, and a record of every key.
///
/// ```text
/// slot    tag u32 | row u32             tag: 32 bits of the hash that do not choose the group
/// record  word u64 (W times) | len u64  of every row: the bytes of its key, see `words`; of a key of
///                                       more bytes, the last word says where all of them stand
/// ```
///
/// Records are 16, 32 or 64 bytes, so that one is never in two lines of memory, and a key that is found takes two: a group
/// of slots and a record. A key of up to `8 * W` bytes is compared word by word, as many words for a short one as for a
/// long one: a processor cannot foresee where keys of mixed lengths end. Longer ones are few, or most are: those are compared where they stand.
///
/// Keys go through the index in three steps: hash, look at the group, compare with the record. Blocks of keys take them by
/// turns, and each step asks for the memory that the next one looks at, so that by then the memory is there. Where all is in
/// a cache this is no loss: a step is a short loop without branches, whose rounds do not wait for each other. Keys are
/// inserted in large numbers, see [`parts`]. When few keys are all there, a table takes the place of the groups, see
/// [`PerfectTable`].
#[derive(Debug)]
pub(crate) struct RecordIndex<const W: usize, A> {
    /// Empty where there is a table in its place.
    groups: Groups<u32, GROUP_SLOTS>,
    few: Option<PerfectTable<u32>>,
    keys: Keys<W, A>,
    /// Hashes of keys that have no slot yet, when there are enough of them.
    waiting: Vec<u64>,
    first_waiting: u32,
    /// Whether a record is of a row that has no slot any more.
    has_superseded: bool,
}

/// Tags and rows, of 8 bytes together, that fill a line of memory.
const GROUP_SLOTS: usize = LINE_BYTES / (2 * size_of::<u32>());

/// Keys that go through a step together.
const BLOCK_KEYS: usize = 64;

/// Such keys, and what a step tells the next.
struct Block<const W: usize, A> {
    /// Of all keys that are looked for.
    range: Range<usize>,
    records: [Record<W, A>; BLOCK_KEYS],
    hashes: [u64; BLOCK_KEYS],
    /// The row in a key's group that has its tag; and if there is none, whether the search ends there.
    rows: [u32; BLOCK_KEYS],
    is_over: [bool; BLOCK_KEYS],
}

/// Gives `$body` the index of a width.
macro_rules! each {
    ($bytes:expr, $index:ident => $body:expr) => {
        match $bytes {
            BytesIndex::Short($index) => $body,
            BytesIndex::One($index) => $body,
            BytesIndex::Three($index) => $body,
            BytesIndex::Five($index) => $body,
            BytesIndex::Seven($index) => $body,
        }
    };
}

impl BytesIndex {
    /// An index for up to `num_keys` inserts of keys of these lengths, and of no others.
    pub(crate) fn new(num_keys: usize, lengths: Lengths) -> Self {
        if !lengths.has_more {
            return Self::Short(ShortIndex::new(num_keys));
        }
        let [one, three, five, seven] = lengths.long;
        let is_enough = |long: Long| long.num_keys <= num_keys / KEYS_PER_LONG;
        let are_most_long = seven.num_keys > num_keys / 2;
        if is_enough(one) || are_most_long {
            Self::One(RecordIndex::new(num_keys, one))
        } else if is_enough(three) {
            Self::Three(RecordIndex::new(num_keys, three))
        } else if is_enough(five) {
            Self::Five(RecordIndex::new(num_keys, five))
        } else {
            Self::Seven(RecordIndex::new(num_keys, seven))
        }
    }

    /// Sets the rows of keys, which count up from 0 over all calls. `told` hears, now or when the index
    /// [settles](Self::settle), of each that was there already: the row before, and its own.
    pub(crate) fn insert<'a>(&mut self, keys: impl ByteKeys<'a>, told: impl FnMut(u32, u32)) {
        each!(self, index => index.insert(keys, told));
    }

    /// Gives a slot to what waits for one. Comes before a probe.
    pub(crate) fn settle(&mut self, told: impl FnMut(u32, u32)) {
        each!(self, index => index.settle(told));
    }

    /// Makes it ready to be looked at for long, when it has settled for the last time.
    pub(crate) fn finish(&mut self) {
        each!(self, index => index.finish());
    }

    /// Appends the row of every key, or [`NO_MATCH`], to `out`.
    pub(crate) fn probe<'a>(&self, keys: impl ByteKeys<'a>, out: &mut Vec<u32>) {
        each!(self, index => index.probe(keys, out));
    }

    /// The row of one key, or [`NO_MATCH`].
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> u32 {
        each!(self, index => index.find(key))
    }

    /// The number of rows, superseded ones included.
    pub(crate) fn num_rows(&self) -> u32 {
        each!(self, index => index.num_rows())
    }

    pub(crate) fn num_bytes(&self) -> usize {
        each!(self, index => index.num_bytes())
    }
}

impl Lengths {
    pub(crate) fn of<'a>(keys: impl ByteKeys<'a>) -> Self {
        let ats = (0..keys.len()).into_par_iter().with_min_len(RECORDS_EACH);
        let lengths = ats.map(|at| Self::of_one(keys.key(at).len()));
        lengths.reduce(Self::default, Self::and)
    }

    fn of_one(len: usize) -> Self {
        let long = WORDS.map(|words| {
            let is_long = len > 8 * words;
            Long {
                num_keys: usize::from(is_long),
                num_bytes: if is_long { len } else { 0 },
            }
        });
        Self {
            has_more: len > SHORT_BYTES_MAX,
            long,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        let long = std::array::from_fn(|idx| {
            let [a, b] = [self.long[idx], other.long[idx]];
            Long {
                num_keys: a.num_keys + b.num_keys,
                num_bytes: a.num_bytes + b.num_bytes,
            }
        });
        Self {
            has_more: self.has_more || other.has_more,
            long,
        }
    }
}

impl<const W: usize, A> Block<W, A> {
    const EMPTY: Self = Self {
        range: 0..0,
        records: [const { Record::EMPTY }; BLOCK_KEYS],
        hashes: [0; BLOCK_KEYS],
        rows: [NO_MATCH; BLOCK_KEYS],
        is_over: [false; BLOCK_KEYS],
    };
}

impl<const W: usize, A: Copy + Send + Sync> Table<GROUP_SLOTS> for Keys<W, A> {
    type Key = u64;
    type Stored = u32;

    #[inline]
    fn home(hash: u64, num_groups: usize) -> usize {
        home_slot(hash, num_groups)
    }

    #[inline]
    fn offer(&self, group: &mut Group<u32, GROUP_SLOTS>, hash: u64, row: u32) -> Option<u32> {
        let tag = tag(hash);
        let mut from = 0;
        loop {
            let slot = group.slot_for(tag, from)?;
            let before = group.row(slot);
            let record = || &self.records[row as usize];
            let is_same = || self.is_equal(before, self.long(record()), record());
            if before == NO_MATCH || is_same() {
                return Some(group.set(slot, tag, row));
            }
            // Tags of different keys are hardly ever the same.
            from = slot + 1;
        }
    }
}

impl<const W: usize, A: Copy + Send + Sync> RecordIndex<W, A> {
    fn new(num_keys: usize, long: Long) -> Self {
        Self {
            groups: Groups::new((num_keys * 2 + 1).div_ceil(GROUP_SLOTS)),
            few: None,
            keys: Keys::new(num_keys, long.num_bytes),
            waiting: Vec::new(),
            first_waiting: 0,
            has_superseded: false,
        }
    }

    fn insert<'a>(&mut self, keys: impl ByteKeys<'a>, mut told: impl FnMut(u32, u32)) {
        let first_row = self.keys.num_rows();
        self.keys.push(keys);
        let rows = first_row..self.keys.num_rows();
        if !parts::is_large(self.groups.all()) {
            for row in rows {
                let groups = self.groups.all_mut();
                let before = parts::insert_one(&self.keys, groups, self.keys.hash_of(row), row);
                if before != NO_MATCH {
                    self.has_superseded = true;
                    told(before, row);
                }
            }
            return;
        }
        let round_keys = parts::round_keys(self.groups.all());
        let mut rest = rows;
        while !rest.is_empty() {
            if self.waiting.is_empty() {
                self.first_waiting = rest.start;
            }
            let num_now = rest.len().min(round_keys - self.waiting.len());
            let now: Range<u32> = rest.start..rest.start + row_count(num_now);
            rest.start = now.end;
            let keys = &self.keys;
            let hashes = now.into_par_iter().with_min_len(RECORDS_EACH);
            self.waiting.par_extend(hashes.map(|row| keys.hash_of(row)));
            if self.waiting.len() >= round_keys {
                self.settle(&mut told);
            }
        }
    }

    fn settle(&mut self, mut told: impl FnMut(u32, u32)) {
        let hashes = std::mem::take(&mut self.waiting);
        let groups = self.groups.all_mut();
        let has_superseded = &mut self.has_superseded;
        let told = |before, row| {
            *has_superseded = true;
            told(before, row);
        };
        parts::insert(&self.keys, groups, &hashes, self.first_waiting, told);
    }

    fn finish(&mut self) {
        if self.few.is_some() || self.keys.records.len() > FEW_KEYS {
            return;
        }
        let entries = self.groups.all().iter().flat_map(Group::entries);
        let stored = entries.map(|(_, row)| (self.keys.hash_of(row), row));
        self.few = PerfectTable::new(stored, NO_MATCH);
        if self.few.is_some() {
            self.groups = Groups::new(0);
        }
    }

    fn probe<'a>(&self, keys: impl ByteKeys<'a>, out: &mut Vec<u32>) {
        debug_assert!(self.waiting.is_empty(), "settled before it is probed");
        let num_keys = keys.len();
        // Where two keys have one tag, `look` may tell of a row that has no slot, and has an equal record all the same.
        let may_mislead = self.has_superseded && self.few.is_none();
        if num_keys < BLOCK_KEYS || may_mislead {
            out.extend((0..num_keys).map(|at| self.find(keys.key(at))));
            return;
        }
        out.reserve(num_keys);
        let mut blocks = [const { Block::EMPTY }; 3];
        let num_blocks = num_keys.div_ceil(BLOCK_KEYS);
        for number in 0..num_blocks + 2 {
            if number < num_blocks {
                let start = number * BLOCK_KEYS;
                let range = start..num_keys.min(start + BLOCK_KEYS);
                self.begin(keys, range, &mut blocks[number % 3]);
            }
            if (1..=num_blocks).contains(&number) {
                self.look(&mut blocks[(number - 1) % 3]);
            }
            if number >= 2 {
                self.confirm(keys, &blocks[(number - 2) % 3], out);
            }
        }
    }

    /// The first step: the hashes of keys, which say their groups.
    fn begin<'a>(&self, keys: impl ByteKeys<'a>, range: Range<usize>, block: &mut Block<W, A>) {
        let groups = self.groups.all();
        let is_few = self.few.is_some();
        for (record, at) in block.records.iter_mut().zip(range.clone()) {
            *record = Record::of(keys, at);
        }
        let found = block.records.iter().zip(&mut block.hashes);
        for ((record, hash), at) in found.zip(range.clone()) {
            *hash = self.keys.hash(|| keys.key(at), record);
            if !is_few {
                prefetch(groups.get(home_slot(*hash, groups.len())));
            }
        }
        block.range = range;
    }

    /// The second: the row in a key's group that has its tag, which another key has hardly ever; of few keys, the only one
    /// that can have it.
    fn look(&self, block: &mut Block<W, A>) {
        if let Some(few) = &self.few {
            let found = block.rows.iter_mut().zip(&block.hashes);
            for (row, hash) in found.take(block.range.len()) {
                *row = few.get(*hash);
                prefetch(self.keys.records.get(*row as usize));
            }
            return;
        }
        let groups = self.groups.all();
        let found = block.rows.iter_mut().zip(&mut block.is_over);
        for ((row, is_over), hash) in found.zip(&block.hashes).take(block.range.len()) {
            let group = &groups[home_slot(*hash, groups.len())];
            (*row, *is_over) = group.look(tag(*hash));
            prefetch(self.keys.records.get(*row as usize));
        }
    }

    /// The last: whether that row has the key. Whether there is one is as good as random, and no branch depends on it.
    fn confirm<'a>(&self, keys: impl ByteKeys<'a>, block: &Block<W, A>, out: &mut Vec<u32>) {
        if self.keys.has_long {
            self.ask_bytes(block);
        }
        let Some(first) = self.keys.records.first() else {
            out.extend(block.range.clone().map(|_| NO_MATCH));
            return;
        };
        let found = block.rows.iter().zip(&block.is_over).zip(&block.records);
        let found = found.zip(block.range.clone());
        out.extend(found.map(|(((&row, &is_over), wanted), at)| {
            let is_none = row == NO_MATCH;
            let record = self.keys.records.get(row as usize).unwrap_or(first);
            let mut is_it = record.difference(wanted) | u64::from(is_none) == 0;
            if self.keys.is_long(wanted) {
                is_it = !is_none && self.keys.is_equal(row, keys.key(at), wanted);
            }
            // Full groups and tags that two keys have are rare.
            let is_over = u8::from(is_none) & u8::from(is_over) | u8::from(self.few.is_some());
            let is_known = u8::from(is_it) | is_over != 0;
            if is_known {
                select_unpredictable(is_it, row, NO_MATCH)
            } else {
                self.find(keys.key(at))
            }
        }));
    }

    /// Asks for the bytes that long keys are compared with, the first and the last.
    fn ask_bytes(&self, block: &Block<W, A>) {
        let found = block.rows.iter().zip(&block.records);
        for (row, wanted) in found.take(block.range.len()) {
            if self.keys.is_long(wanted)
                && let Some(record) = self.keys.records.get(*row as usize)
            {
                let bytes = self.keys.long(record);
                prefetch(bytes.first());
                prefetch(bytes.last());
            }
        }
    }

    #[inline]
    fn find(&self, key: &[u8]) -> u32 {
        let wanted = Record::of(&[key][..], 0);
        let hash = self.keys.hash(|| key, &wanted);
        if let Some(few) = &self.few {
            let row = few.get(hash);
            let is_it = row != NO_MATCH && self.keys.is_equal(row, key, &wanted);
            return if is_it { row } else { NO_MATCH };
        }
        let tag = tag(hash);
        let groups = self.groups.all();
        let mut place = home_slot(hash, groups.len());
        // There is a free slot: the index is half empty.
        loop {
            let group = &groups[place];
            for slot in 0..GROUP_SLOTS {
                let row = group.row(slot);
                let is_it = || *group.key(slot) == tag && self.keys.is_equal(row, key, &wanted);
                if row == NO_MATCH || is_it() {
                    return row;
                }
            }
            place = next(place, groups.len());
        }
    }

    fn num_rows(&self) -> u32 {
        self.keys.num_rows()
    }

    fn num_bytes(&self) -> usize {
        self.groups.num_bytes()
            + self.few.as_ref().map_or(0, PerfectTable::num_bytes)
            + self.keys.num_bytes()
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn tag(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hash::{hash_words, words};

    /// The rows of keys, before the index is made ready to be looked at for long, and after it.
    fn rows(index: &mut BytesIndex, keys: &[&[u8]]) -> Vec<u32> {
        let mut rows = Vec::new();
        index.probe(keys, &mut rows);
        for is_finished in [false, true] {
            if is_finished {
                index.finish();
                let mut again = Vec::new();
                index.probe(keys, &mut again);
                assert_eq!(again, rows);
            }
            for (key, row) in keys.iter().zip(&rows) {
                assert_eq!(index.find(key), *row);
            }
        }
        rows
    }

    /// All lengths on both sides of each width, and keys that differ from one that is there in one byte or in length.
    #[test]
    fn keys_are_found_if_every_byte_is_theirs() {
        for longest in [0, 1, 7, 8, 9, 24, 25, 40, 41, 55, 56, 57, 58, 150] {
            let keys: Vec<Vec<u8>> = (0..=longest).map(|len| vec![b'x'; len]).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let mut index = BytesIndex::new(keys.len(), Lengths::of(&keys[..]));
            index.insert(&keys[..], |_, _| panic!("keys are distinct"));
            index.settle(|_, _| ());
            let all: Vec<u32> = (0..).take(keys.len()).collect();
            assert_eq!(rows(&mut index, &keys), all);
            let mut others = vec![vec![b'x'; longest + 1], vec![b'x'; longest + 100]];
            for key in &keys {
                others.extend((0..key.len()).map(|at| {
                    let mut other = key.to_vec();
                    other[at] = b'y';
                    other
                }));
                let zero = [key, &[0][..]].concat();
                others.push(zero);
            }
            let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
            let found = rows(&mut index, &others);
            assert!(found.iter().all(|row| *row == NO_MATCH), "{longest}");
        }
    }

    /// Keys of which some are more than their records, of every width; and that they are few does not make all wide.
    #[test]
    fn some_long_keys_do_not_make_records_wide() {
        for (short, long, num_long) in [
            (8, 9, 10),
            (24, 25, 3),
            (40, 300, 10),
            (8, 90, 500),
            (8, 90, 501),
            (8, 90, 990),
        ] {
            let key = |number: usize| {
                let len = if number < num_long { long } else { short };
                // The last bytes alone tell them apart.
                let mut key = vec![b'x'; len - 3];
                key.extend(format!("{number:03}").bytes());
                key
            };
            let keys: Vec<Vec<u8>> = (0..1_000).map(key).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let mut index = BytesIndex::new(keys.len(), Lengths::of(&keys[..]));
            let mut told = Vec::new();
            for keys in [&keys[..700], &keys[700..], &keys[..5]] {
                index.insert(keys, |before, row| told.push((before, row)));
            }
            index.settle(|before, row| told.push((before, row)));
            let again = (0..5).map(|row| (row, 1_000 + row));
            assert!(told.into_iter().eq(again));
            let found: Vec<u32> = (1_000..1_005).chain(5..1_000).collect();
            assert_eq!(rows(&mut index, &keys), found);
            let mut index = BytesIndex::new(keys.len(), Lengths::of(&keys[..]));
            index.insert(&keys[..], |_, _| panic!("keys are distinct"));
            let all: Vec<u32> = (0..1_000).collect();
            assert_eq!(rows(&mut index, &keys), all);
            let others: Vec<Vec<u8>> = keys.iter().map(|key| [key, &key[..1]].concat()).collect();
            let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
            assert_eq!(rows(&mut index, &others), [NO_MATCH; 1_000]);
            let record = match (short, num_long) {
                (_, 500) | (40, _) => 64,
                (24, _) => 32,
                _ => 16,
            };
            // Slots, records, bytes of long keys, and some slots more.
            let most = 1_000 * (16 + record) + num_long * long + 200;
            assert!(index.num_bytes() <= most, "{short} {long} {num_long}");
        }
    }

    /// Two keys of one hash, and rows of which one has no slot any more: the bits that two other rows share are its number.
    #[test]
    fn keys_of_one_hash_are_told_apart() {
        // The first eight bytes make a factor of the hash zero, so that the next eight do not matter.
        let first = 0x4528_21e6_38d0_1377_u64.to_le_bytes();
        let [x, y] = [1, 2].map(|byte| [first, [byte; 8], [9; 8]].concat());
        let hash = |key: &[u8]| hash_words(&words::<3>(key), key.len());
        assert_eq!(hash(&x), hash(&y));
        let keys: [&[u8]; 6] = [b"f0", &x, b"f2", &x, b"f4", &y];
        let mut index = BytesIndex::new(keys.len(), Lengths::of(&keys[..]));
        let mut told = Vec::new();
        index.insert(&keys[..], |before, row| told.push((before, row)));
        assert_eq!(told, [(1, 3)]);
        let sought: Vec<&[u8]> = [&x[..], &y[..]].repeat(BLOCK_KEYS);
        assert_eq!(rows(&mut index, &sought), [3, 5].repeat(BLOCK_KEYS));
        // Without a row that was superseded too.
        let keys = &keys[1..];
        let distinct = [keys[0], keys[1], keys[4]];
        let mut index = BytesIndex::new(3, Lengths::of(&distinct[..]));
        index.insert(&distinct[..], |_, _| panic!("keys are distinct"));
        assert_eq!(rows(&mut index, &sought), [0, 2].repeat(BLOCK_KEYS));
    }

    #[test]
    fn an_index_without_keys_has_none() {
        let keys = vec![&b"key"[..]; 100];
        for num_keys in [0, 100] {
            let mut index = BytesIndex::new(num_keys, Lengths::default());
            assert_eq!(rows(&mut index, &keys), [NO_MATCH; 100]);
        }
    }
}
