//! Keys of entries in memory.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// Bytes that a key has in place: as many as make it no larger than the variant for longer ones.
const INLINE_BYTES: usize = 22;

/// A key of keyed state.
///
/// Most keys are short. They stand in the map itself, so that finding one takes no look at memory elsewhere, and making
/// one takes no allocation.
#[derive(Clone)]
pub(crate) enum Key {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Long(Arc<[u8]>),
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        match u8::try_from(key.len()) {
            Ok(len) if key.len() <= INLINE_BYTES => {
                let mut bytes = [0; INLINE_BYTES];
                bytes[..key.len()].copy_from_slice(key);
                Self::Inline { len, bytes }
            }
            _ => Self::Long(key.into()),
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(shared) => shared,
        }
    }
}

// Compared, ordered and hashed as its bytes, so that a map of keys can be asked for bytes.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&&**self).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashMap},
        mem::size_of,
    };

    use super::*;

    #[test]
    fn keys_of_any_length_are_their_bytes() {
        assert_eq!(size_of::<Key>(), 24);
        let lengths = [0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 300];
        // The last byte tells keys of one length apart, and one is the beginning of another.
        let bytes: Vec<Vec<u8>> = lengths
            .into_iter()
            .flat_map(|len| [vec![7; len], [vec![7; len], vec![0]].concat()])
            .collect();
        let keys: Vec<Key> = bytes.iter().map(|bytes| Key::from(&bytes[..])).collect();
        let by_hash: HashMap<Key, usize> = keys.iter().cloned().zip(0..).collect();
        let by_order: BTreeMap<Key, usize> = keys.iter().cloned().zip(0..).collect();
        let mut sorted = bytes.clone();
        sorted.sort();
        sorted.dedup();
        assert!(by_order.keys().map(|key| key.to_vec()).eq(sorted));
        for (key, bytes) in keys.iter().zip(&bytes) {
            assert_eq!(**key, **bytes);
            assert_eq!(by_hash[&bytes[..]], by_order[&bytes[..]]);
        }
    }
}
