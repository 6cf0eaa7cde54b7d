use std::hint::black_box;

use super::{BATCH_KEYS, NO_MATCH};
use crate::huge;
use crate::key::hash::{hash_bytes, home_slot};
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
/// GiB together.
#[derive(Debug)]
pub(crate) struct BytesIndex {
    slots: Vec<Slot>,
    views: Vec<View>,
    data: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    row: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    len: u32,
    head: u32,
    tail: u64,
}

const INLINE_BYTES_MAX: u32 = 12;

impl BytesIndex {
    /// An index for up to `num_keys` inserts.
    pub(crate) fn new(num_keys: usize) -> Self {
        Self {
            slots: huge::vec(
                Slot {
                    tag: 0,
                    row: NO_MATCH,
                },
                num_keys * 2 + 1,
            ),
            views: Vec::with_capacity(num_keys),
            data: Vec::new(),
        }
    }

    /// Sets the row of a key and returns the one before, or [`NO_MATCH`]. Rows come in order, from
    /// 0 on.
    pub(crate) fn insert(&mut self, key: &[u8], row: u32) -> Result<u32> {
        debug_assert_eq!(row as usize, self.views.len());
        let mut view = view_of(key).ok_or_else(|| {
            Error::new(
                ErrorKind::Resource,
                format!("a key is longer than 4 GiB: key_bytes=`{}`", key.len()),
            )
        })?;
        let hash = hash_bytes(key);
        let idx = search(&self.slots, &self.views, &self.data, hash, view, key);
        let before = self.slots[idx].row;
        self.slots[idx] = Slot {
            tag: tag(hash),
            row,
        };
        if view.len > INLINE_BYTES_MAX {
            view.tail = self.data.len() as u64;
            self.data.extend_from_slice(key);
        }
        self.views.push(view);
        Ok(before)
    }

    /// Appends the row of every key to `out`.
    pub(crate) fn probe<K: AsRef<[u8]>>(
        &self,
        mut keys: impl Iterator<Item = K>,
        out: &mut Vec<u32>,
    ) {
        let mut batch: Vec<(K, u64)> = Vec::with_capacity(BATCH_KEYS);
        loop {
            let next = keys.by_ref().take(BATCH_KEYS);
            batch.extend(next.map(|key| {
                let hash = hash_bytes(key.as_ref());
                (key, hash)
            }));
            if batch.is_empty() {
                return;
            }
            self.touch(&batch);
            out.extend(
                batch
                    .drain(..)
                    .map(|(key, hash)| self.find(key.as_ref(), hash)),
            );
        }
    }

    /// Brings what searches for these hashes begin with into the cache, many at a time.
    fn touch<K>(&self, batch: &[(K, u64)]) {
        let hashes = || batch.iter().map(|(_, hash)| *hash);
        let home = |hash| self.slots[home_slot(hash, self.slots.len())];
        black_box(hashes().fold(0, |all, hash| all | home(hash).row));
        // Where the tag is the key's, its view is looked at next.
        let view = |hash| {
            let slot = home(hash);
            let found = self.views.get(slot.row as usize);
            found
                .filter(|_| slot.tag == tag(hash))
                .map_or(0, |view| view.tail)
        };
        black_box(hashes().fold(0, |all, hash| all | view(hash)));
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.views.capacity() * size_of::<View>()
            + self.data.capacity()
    }

    pub(crate) fn shrink(&mut self) {
        self.data.shrink_to_fit();
    }

    #[inline]
    fn find(&self, key: &[u8], hash: u64) -> u32 {
        let Some(view) = view_of(key) else {
            return NO_MATCH;
        };
        self.slots[search(&self.slots, &self.views, &self.data, hash, view, key)].row
    }
}

/// The slot that holds the key, or the free slot where it would go. There is a free slot: the index
/// is half empty.
#[inline]
fn search(slots: &[Slot], views: &[View], data: &[u8], hash: u64, view: View, key: &[u8]) -> usize {
    let tag = tag(hash);
    let mut idx = home_slot(hash, slots.len());
    loop {
        let slot = slots[idx];
        if slot.row == NO_MATCH
            || (slot.tag == tag && is_equal(views[slot.row as usize], data, view, key))
        {
            return idx;
        }
        idx += 1;
        if idx == slots.len() {
            idx = 0;
        }
    }
}

#[inline]
fn is_equal(candidate: View, data: &[u8], view: View, key: &[u8]) -> bool {
    if candidate.len != view.len || candidate.head != view.head {
        return false;
    }
    if view.len <= INLINE_BYTES_MAX {
        return candidate.tail == view.tail;
    }
    let start = usize::try_from(candidate.tail).expect("a place in `data`, see `insert`");
    data[start..start + candidate.len as usize] == *key
}

/// The view of a key; for one past [`INLINE_BYTES_MAX`] without its place. `None` past 4 GiB.
#[inline]
fn view_of(key: &[u8]) -> Option<View> {
    let len = u32::try_from(key.len()).ok()?;
    let mut bytes = [0; INLINE_BYTES_MAX as usize];
    let is_inline = len <= INLINE_BYTES_MAX;
    let num_inline = if is_inline { key.len() } else { 4 };
    bytes[..num_inline].copy_from_slice(&key[..num_inline]);
    let [a, b, c, d, tail @ ..] = bytes;
    Some(View {
        len,
        head: u32::from_le_bytes([a, b, c, d]),
        tail: u64::from_le_bytes(tail),
    })
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn tag(hash: u64) -> u32 {
    hash as u32
}
