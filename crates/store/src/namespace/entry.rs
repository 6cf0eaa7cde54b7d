//! Entries of keyed state, each of them one piece of memory.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::atomic::{AtomicU32, Ordering},
};

use triomphe::ThinArc;

/// Entries up to this size are put together on the stack.
const STACK_BYTES: usize = 512;

/// A key with its value, and when it ends.
///
/// All of it stands side by side: to find an entry in a map of such pointers and to read its value is one look at memory
/// outside of the map, and to make one is one allocation.
#[derive(Clone)]
pub(crate) struct Entry(ThinArc<Header, u8>);

struct Header {
    /// Microseconds since 1970; 0 for never.
    expires_us: i64,
    /// Where the key ends and the value begins.
    key_bytes: u32,
    /// The round of changes in which it was put; 0 if it came from a page. The map's own, and changed under its lock.
    round: AtomicU32,
}

impl Entry {
    /// Copies a key, of at most 64 KiB, and a value.
    pub(crate) fn new(key: &[u8], value: &[u8], expires_us: i64) -> Self {
        let header = Header {
            expires_us,
            key_bytes: u32::try_from(key.len()).unwrap_or(u32::MAX),
            round: AtomicU32::new(0),
        };
        let num_bytes = key.len() + value.len();
        let mut small = [0; STACK_BYTES];
        let Some(bytes) = small.get_mut(..num_bytes) else {
            return Self(ThinArc::from_header_and_slice(
                header,
                &[key, value].concat(),
            ));
        };
        bytes[..key.len()].copy_from_slice(key);
        bytes[key.len()..].copy_from_slice(value);
        Self(ThinArc::from_header_and_slice(header, bytes))
    }

    fn header(&self) -> &Header {
        &self.0.header.header
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.0.slice[..self.header().key_bytes as usize]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0.slice[self.header().key_bytes as usize..]
    }

    /// Microseconds since 1970; 0 for never.
    pub(crate) fn expires_us(&self) -> i64 {
        self.header().expires_us
    }

    /// Whether it counts at a time. The clock is asked only if it matters.
    pub(super) fn is_live(&self, now_us: impl FnOnce() -> i64) -> bool {
        self.expires_us() == 0 || self.expires_us() > now_us()
    }

    /// Bytes of key and value.
    pub(crate) fn num_bytes(&self) -> usize {
        self.0.slice.len()
    }

    pub(super) fn round(&self) -> u32 {
        self.header().round.load(Ordering::Relaxed)
    }

    pub(super) fn set_round(&self, round: u32) {
        self.header().round.store(round, Ordering::Relaxed);
    }

    /// Whether both are one and the same, not two that are alike.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.heap_ptr() == other.0.heap_ptr()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
            && self.value() == other.value()
            && self.expires_us() == other.expires_us()
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key())
            .field("value", &self.value())
            .field("expires_us", &self.expires_us())
            .finish()
    }
}

/// A key or a value of keyed state: bytes that are shared with the store, and not copied. They stay as they are when the
/// entry is changed or removed.
#[derive(Clone)]
pub struct StateBytes {
    entry: Entry,
    is_key: bool,
}

impl StateBytes {
    pub(super) fn key_of(entry: &Entry) -> Self {
        Self {
            entry: entry.clone(),
            is_key: true,
        }
    }

    pub(super) fn value_of(entry: &Entry) -> Self {
        Self {
            entry: entry.clone(),
            is_key: false,
        }
    }
}

impl Deref for StateBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.is_key {
            self.entry.key()
        } else {
            self.entry.value()
        }
    }
}

impl AsRef<[u8]> for StateBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

// Compared, ordered and hashed as its bytes, so that a map of them can be asked for bytes.
impl Borrow<[u8]> for StateBytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for StateBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for StateBytes {}

impl PartialOrd for StateBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StateBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for StateBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for StateBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gives_back_key_and_value() {
        let sizes = [0, 1, 22, STACK_BYTES - 1, STACK_BYTES, STACK_BYTES + 1];
        for (key_bytes, value_bytes) in sizes
            .into_iter()
            .flat_map(|key| sizes.map(|value| (key, value)))
        {
            let (key, value) = (vec![7; key_bytes], vec![9; value_bytes]);
            let entry = Entry::new(&key, &value, 5);
            assert_eq!((entry.key(), entry.value()), (&key[..], &value[..]));
            assert_eq!(entry.num_bytes(), key_bytes + value_bytes);
            assert_eq!(*StateBytes::key_of(&entry), *key);
            assert_eq!(*StateBytes::value_of(&entry), *value);
            assert!(entry.is_live(|| 4) && !entry.is_live(|| 5));
            assert_eq!(entry, Entry::new(&key, &value, 5));
            assert!(entry.is_same(&entry.clone()));
            assert!(!entry.is_same(&Entry::new(&key, &value, 5)));
        }
    }
}
