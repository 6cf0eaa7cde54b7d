use super::parts::{self, Table};
use super::{AHEAD_KEYS, NO_MATCH, Slot, next, row_of};
use crate::huge;
use crate::key::hash::{hash_bytes, home_slot};
use crate::prefetch::prefetch;
use crate::{Error, ErrorKind, Result};

/// Open addressing over byte keys, linear probing, at most half full.
///
/// ```text
/// slot  tag u32 | row u32              tag: 32 bits of the hash that do not choose the slot
/// view  len u32 | head u32 | tail u64  of every row: a key of up to 12 bytes in head and tail,
///                                      else its first 4 bytes and its place in `data`
/// ```
///
/// A key of up to 12 bytes is compared without touching `data`. Places are `u64`: keys may pass 4
/// GiB together. Keys are inserted in large numbers, see [`parts`].
#[derive(Debug)]
pub(crate) struct BytesIndex {
    slots: Vec<Slot<u32>>,
    keys: Keys,
    /// Hashes of keys that have no slot yet, when there are enough of them.
    waiting: Vec<u64>,
    first_waiting: u32,
}

/// The keys of all rows.
#[derive(Debug)]
struct Keys {
    views: Vec<View>,
    data: Vec<u8>,
}

impl Table for Keys {
    type Key = u64;
    type Stored = u32;

    #[inline]
    fn home(hash: u64, num_slots: usize) -> usize {
        home_slot(hash, num_slots)
    }

    #[inline]
    fn offer(&self, slot: &mut Slot<u32>, hash: u64, row: u32) -> (bool, u32) {
        let tag = tag(hash);
        let before = row_of(slot);
        let is_free = before == NO_MATCH;
        // Tags of different keys are hardly ever the same.
        let is_over = is_free || (slot.0 == tag && self.are_equal(before, row));
        *slot = if is_over { (tag, !row) } else { *slot };
        (is_over, before)
    }
}

impl Keys {
    fn are_equal(&self, row: u32, other: u32) -> bool {
        let other = self.views[other as usize];
        let key = match other.len {
            0..=INLINE_BYTES_MAX => &[][..],
            _ => self.long(other),
        };
        self.is_equal(row, other, key)
    }

    /// Whether a row has a key. The key's bytes matter if they are more than a view has.
    #[inline]
    fn is_equal(&self, row: u32, view: View, key: &[u8]) -> bool {
        let candidate = self.views[row as usize];
        if candidate.len != view.len || candidate.head != view.head {
            return false;
        }
        if view.len <= INLINE_BYTES_MAX {
            return candidate.tail == view.tail;
        }
        are_equal(self.long(candidate), key)
    }

    /// A key that is not in its view.
    #[inline]
    fn long(&self, view: View) -> &[u8] {
        let start =
            usize::try_from(view.tail).expect("a place in `data`, see `BytesIndex::insert`");
        &self.data[start..start + view.len as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    len: u32,
    head: u32,
    tail: u64,
}

const INLINE_BYTES_MAX: u32 = 12;

/// An index of fewer bytes is in the cache as it is.
const CACHED_BYTES_MAX: usize = 256 << 10;

/// Keys that are looked for at a time: those of three steps, and those that begin.
const NUM_LOOKUPS: usize = 4 * AHEAD_KEYS;

/// A key that is looked for.
struct Lookup<K> {
    key: K,
    hash: u64,
    /// The first row with its tag, once that is known.
    row: u32,
}

impl BytesIndex {
    /// An index for up to `num_keys` inserts of keys that take `num_bytes` together, more or less.
    pub(crate) fn new(num_keys: usize, num_bytes: usize) -> Self {
        Self {
            slots: huge::zeros((0, !NO_MATCH), num_keys * 2 + 1),
            keys: Keys {
                views: huge::with_capacity(num_keys),
                data: huge::with_capacity(num_bytes),
            },
            waiting: Vec::new(),
            first_waiting: 0,
        }
    }

    /// Sets the row of a key. Rows come in order, from 0 on. `told` hears, now or when the index
    /// [settles](Self::settle), of each that was there already: the row before, and its own.
    pub(crate) fn insert(
        &mut self,
        key: &[u8],
        row: u32,
        mut told: impl FnMut(u32, u32),
    ) -> Result<()> {
        debug_assert_eq!(row as usize, self.keys.views.len());
        let mut view = view_of(key).ok_or_else(|| {
            Error::new(
                ErrorKind::Resource,
                format!("a key is longer than 4 GiB: key_bytes=`{}`", key.len()),
            )
        })?;
        if view.len > INLINE_BYTES_MAX {
            view.tail = self.keys.data.len() as u64;
            self.keys.data.extend_from_slice(key);
        }
        self.keys.views.push(view);
        let hash = hash_bytes(key);
        if parts::is_large(&self.slots) {
            if self.waiting.is_empty() {
                self.first_waiting = row;
            }
            self.waiting.push(hash);
            if self.waiting.len() >= parts::round_keys(&self.slots) {
                self.settle(told);
            }
        } else {
            let before = parts::insert_one(&self.keys, &mut self.slots, hash, row);
            if before != NO_MATCH {
                told(before, row);
            }
        }
        Ok(())
    }

    /// Gives a slot to what waits for one. Comes before a probe.
    pub(crate) fn settle(&mut self, told: impl FnMut(u32, u32)) {
        let hashes = std::mem::take(&mut self.waiting);
        parts::insert(
            &self.keys,
            &mut self.slots,
            &hashes,
            self.first_waiting,
            told,
        );
    }

    /// Appends the row of every key to `out`.
    ///
    /// A key goes through the index in steps, and each step asks for the memory that the next one looks at: its slot,
    /// then the view of the row whose tag it has, then bytes. Between two steps of a key come those of others, so that by
    /// then the memory is there.
    pub(crate) fn probe<K: AsRef<[u8]> + Copy>(
        &self,
        mut keys: impl ExactSizeIterator<Item = K>,
        out: &mut Vec<u32>,
    ) {
        debug_assert!(self.waiting.is_empty(), "settled before it is probed");
        if keys.len() < AHEAD_KEYS || self.num_bytes() <= CACHED_BYTES_MAX {
            out.extend(keys.map(|key| self.find(key.as_ref(), hash_bytes(key.as_ref()))));
            return;
        }
        let num_keys = keys.len();
        let mut lookups: Vec<Lookup<K>> = Vec::with_capacity(NUM_LOOKUPS);
        out.reserve(num_keys);
        for at in 0..num_keys + 3 * AHEAD_KEYS {
            // The last step comes first: it makes room for the key that begins.
            if let Some(at) = at.checked_sub(3 * AHEAD_KEYS) {
                let lookup = &lookups[at % NUM_LOOKUPS];
                out.push(self.confirm(lookup.key.as_ref(), lookup.hash, lookup.row));
            }
            let of_step = |step: usize| {
                let at = at.checked_sub(step * AHEAD_KEYS);
                at.filter(|at| *at < num_keys).map(|at| at % NUM_LOOKUPS)
            };
            if let Some(at) = of_step(2) {
                self.ask_bytes(lookups[at].row);
            }
            if let Some(at) = of_step(1) {
                let lookup = &mut lookups[at];
                lookup.row = self.first_with_tag(lookup.hash);
                prefetch(self.keys.views.get(lookup.row as usize));
            }
            if let Some(key) = keys.next() {
                let hash = hash_bytes(key.as_ref());
                prefetch(self.slots.get(home_slot(hash, self.slots.len())));
                let lookup = Lookup {
                    key,
                    hash,
                    row: NO_MATCH,
                };
                if lookups.len() < NUM_LOOKUPS {
                    lookups.push(lookup);
                } else {
                    lookups[at % NUM_LOOKUPS] = lookup;
                }
            }
        }
    }

    /// The first row whose tag is that of a key, in the order of a search for it. Another key has it hardly ever.
    #[inline]
    fn first_with_tag(&self, hash: u64) -> u32 {
        let tag = tag(hash);
        let mut idx = home_slot(hash, self.slots.len());
        loop {
            let slot = self.slots[idx];
            let row = row_of(&slot);
            if row == NO_MATCH || slot.0 == tag {
                return row;
            }
            idx = next(idx, self.slots.len());
        }
    }

    /// Asks for the bytes of a row's key, in one line of memory or two, if its view has not all of them.
    #[inline]
    fn ask_bytes(&self, row: u32) {
        let view = self.keys.views.get(row as usize);
        if let Some(view) = view.filter(|view| view.len > INLINE_BYTES_MAX) {
            let place = usize::try_from(view.tail).unwrap_or(usize::MAX);
            let last = place.saturating_add(view.len as usize - 1);
            prefetch(self.keys.data.get(place));
            prefetch(self.keys.data.get(last));
        }
    }

    /// The row of a key, given the first row with its tag.
    #[inline]
    fn confirm(&self, key: &[u8], hash: u64, row: u32) -> u32 {
        if row == NO_MATCH {
            return NO_MATCH;
        }
        match view_of(key) {
            Some(view) if self.keys.is_equal(row, view, key) => row,
            // Another key has the tag.
            _ => self.find(key, hash),
        }
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<u32>>()
            + self.keys.views.capacity() * size_of::<View>()
            + self.keys.data.capacity()
    }

    pub(crate) fn shrink(&mut self) {
        // A move costs time, and large pages.
        if self.keys.data.len() < self.keys.data.capacity() / 2 {
            self.keys.data.shrink_to_fit();
        }
    }

    /// The row of a key, or [`NO_MATCH`].
    #[inline]
    pub(crate) fn find(&self, key: &[u8], hash: u64) -> u32 {
        let Some(view) = view_of(key) else {
            return NO_MATCH;
        };
        let tag = tag(hash);
        let mut idx = home_slot(hash, self.slots.len());
        // There is a free slot: the index is half empty.
        loop {
            let slot = self.slots[idx];
            let row = row_of(&slot);
            if row == NO_MATCH || (slot.0 == tag && self.keys.is_equal(row, view, key)) {
                return row;
            }
            idx = next(idx, self.slots.len());
        }
    }
}

/// Compares keys of one length. Most are short: those without a call, and without a branch for each step. Three chunks
/// of sixteen bytes, some with bytes that another has too, are half as many loads as six words.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "where two keys differ cannot be foreseen, so a branch for each chunk is what is avoided here"
)]
#[inline]
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    match (chunks(a), chunks(b)) {
        (Some(a), Some(b)) => (a[0] == b[0]) & (a[1] == b[1]) & (a[2] == b[2]),
        _ => a == b,
    }
}

/// Longer keys are compared by a call.
const CHUNKS_BYTES_MAX: usize = 48;

/// The bytes of a key of 16 to 48 bytes, sixteen at a time.
#[inline]
fn chunks(key: &[u8]) -> Option<[&[u8; 16]; 3]> {
    let last = key.len().checked_sub(16)?;
    if key.len() > CHUNKS_BYTES_MAX {
        return None;
    }
    let chunk = |at: usize| key.get(at.min(last)..)?.first_chunk();
    Some([chunk(0)?, chunk(16)?, chunk(32)?])
}

/// The view of a key; for one past [`INLINE_BYTES_MAX`] without its place. `None` past 4 GiB.
///
/// Whole words that overlap are loaded, because a copy of some few bytes is a call.
#[inline]
fn view_of(key: &[u8]) -> Option<View> {
    let len = u32::try_from(key.len()).ok()?;
    let (head, tail) = match (key.first_chunk(), key.last_chunk(), key.last_chunk()) {
        (Some(first), _, Some(last)) => {
            let last = u64::from_le_bytes(*last);
            let tail = INLINE_BYTES_MAX.checked_sub(len);
            (
                u32::from_le_bytes(*first),
                tail.map_or(0, |rest| last >> (8 * rest)),
            )
        }
        (Some(first), Some(last), None) => {
            let last = u64::from(u32::from_le_bytes(*last));
            (u32::from_le_bytes(*first), last >> (8 * (8 - len)))
        }
        _ => {
            let bytes = key.iter().rev();
            (bytes.fold(0, |head, byte| head << 8 | u32::from(*byte)), 0)
        }
    };
    Some(View { len, head, tail })
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

    #[test]
    fn keys_are_equal_if_every_byte_is() {
        for len in 0..=60 {
            let key = vec![b'x'; len];
            assert!(are_equal(&key, &key.clone()));
            for at in 0..len {
                let mut other = key.clone();
                other[at] = b'y';
                assert!(!are_equal(&key, &other), "len={len} at={at}");
            }
        }
    }

    #[test]
    fn views_have_the_bytes_of_short_keys_and_the_first_of_long_ones() {
        let bytes: Vec<u8> = (1..=40).collect();
        for len in 0..=bytes.len() {
            let mut expected = [0; 12];
            let num_inline = if len <= 12 { len } else { 4 };
            expected[..num_inline].copy_from_slice(&bytes[..num_inline]);
            let view = view_of(&bytes[..len]).unwrap();
            assert_eq!(view.len as usize, len);
            assert_eq!(view.head.to_le_bytes(), expected[..4]);
            assert_eq!(view.tail.to_le_bytes(), expected[4..]);
        }
    }
}
