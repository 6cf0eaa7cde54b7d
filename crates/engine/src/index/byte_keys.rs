//! Keys of bytes, of whatever layout.

use arrow_array::types::{ByteArrayType, ByteViewType};
use arrow_array::{Array, FixedSizeBinaryArray, GenericByteArray, GenericByteViewArray};
use arrow_buffer::ArrowNativeType;
use arrow_data::{ByteView, MAX_INLINE_VIEW_LEN};
use arrow_row::Rows;

use crate::key::hash::{WORD_BYTES_MAX, words, words_before};
use crate::prefetch::{AHEAD_BYTES, prefetch};

/// Keys of bytes, by their number from 0 on. What stands at a null means nothing.
pub(crate) trait ByteKeys<'a>: Copy + Sync {
    fn len(self) -> usize;

    fn key(self, at: usize) -> &'a [u8];

    /// The [`words`] of a key, and how many bytes it has.
    #[inline]
    fn words<const W: usize>(self, at: usize) -> ([u64; W], usize) {
        let key = self.key(at);
        (words(key), key.len())
    }
}

impl<'a> ByteKeys<'a> for &'a Rows {
    fn len(self) -> usize {
        self.num_rows()
    }

    #[inline]
    fn key(self, at: usize) -> &'a [u8] {
        self.row(at).data()
    }
}

impl<'a> ByteKeys<'a> for &[&'a [u8]] {
    fn len(self) -> usize {
        <[_]>::len(self)
    }

    #[inline]
    fn key(self, at: usize) -> &'a [u8] {
        self[at]
    }
}

/// Strings or binary that stand one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a, O> {
    offsets: &'a [O],
    bytes: &'a [u8],
}

impl<'a, T: ByteArrayType> From<&'a GenericByteArray<T>> for Run<'a, T::Offset> {
    fn from(array: &'a GenericByteArray<T>) -> Self {
        Self {
            offsets: array.value_offsets(),
            bytes: array.value_data(),
        }
    }
}

impl<'a, O: ArrowNativeType + Sync> ByteKeys<'a> for Run<'a, O> {
    fn len(self) -> usize {
        self.offsets.len() - 1
    }

    #[inline]
    fn key(self, at: usize) -> &'a [u8] {
        &self.bytes[self.offsets[at].as_usize()..self.offsets[at + 1].as_usize()]
    }

    #[inline]
    fn words<const W: usize>(self, at: usize) -> ([u64; W], usize) {
        let start = self.offsets[at].as_usize();
        let len = self.offsets[at + 1].as_usize() - start;
        let rest = self.bytes.get(start..);
        if W > 1 {
            prefetch(self.bytes.get(start + AHEAD_BYTES));
        }
        let found = rest.and_then(|rest| words_before(rest, len));
        (found.unwrap_or_else(|| words(self.key(at))), len)
    }
}

/// Strings or binary as views.
pub(crate) struct Views<'a, T: ByteViewType>(pub(crate) &'a GenericByteViewArray<T>);

impl<T: ByteViewType> Clone for Views<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ByteViewType> Copy for Views<'_, T> {}

impl<'a, T: ByteViewType> ByteKeys<'a> for Views<'a, T> {
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline]
    fn key(self, at: usize) -> &'a [u8] {
        self.0.value(at).as_ref()
    }

    #[inline]
    fn words<const W: usize>(self, at: usize) -> ([u64; W], usize) {
        let raw = self.0.views()[at];
        let view = ByteView::from(raw);
        let len = view.length as usize;
        let found = if len <= MAX_INLINE_VIEW_LEN as usize {
            // Behind the length, in room for as many words as there are.
            let mut bytes = [0; WORD_BYTES_MAX];
            let inline = &raw.to_le_bytes()[size_of::<u32>()..];
            bytes[..inline.len()].copy_from_slice(inline);
            words_before(&bytes, len)
        } else {
            let bytes = self.0.data_buffers().get(view.buffer_index as usize);
            let rest = bytes.and_then(|bytes| bytes.get(view.offset as usize..));
            rest.and_then(|rest| words_before(rest, len))
        };
        (found.unwrap_or_else(|| words(self.key(at))), len)
    }
}

/// Binary of one size.
#[derive(Clone, Copy)]
pub(crate) struct Fixed<'a>(pub(crate) &'a FixedSizeBinaryArray);

impl<'a> ByteKeys<'a> for Fixed<'a> {
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline]
    fn key(self, at: usize) -> &'a [u8] {
        self.0.value(at)
    }
}

/// Gives `$body` the [`ByteKeys`] of an array of strings or binary, under the name `$keys`.
macro_rules! with_values {
    ($array:expr, $keys:ident => $body:expr) => {{
        use arrow_array::cast::AsArray as _;
        use arrow_schema::DataType;
        use $crate::index::byte_keys::{Fixed, Run, Views};
        let array: &dyn arrow_array::Array = $array;
        macro_rules! with {
            ($typed:expr) => {{
                let $keys = $typed;
                $body
            }};
        }
        match array.data_type() {
            DataType::Utf8 => with!(Run::from(array.as_string::<i32>())),
            DataType::LargeUtf8 => with!(Run::from(array.as_string::<i64>())),
            DataType::Utf8View => with!(Views(array.as_string_view())),
            DataType::Binary => with!(Run::from(array.as_binary::<i32>())),
            DataType::LargeBinary => with!(Run::from(array.as_binary::<i64>())),
            DataType::BinaryView => with!(Views(array.as_binary_view())),
            DataType::FixedSizeBinary(_) => with!(Fixed(array.as_fixed_size_binary())),
            other => unreachable!("a plan never compares this type as bytes: {other}"),
        }
    }};
}
pub(crate) use with_values;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BinaryArray, BinaryViewArray, FixedSizeBinaryArray, LargeBinaryArray,
        LargeStringArray, StringArray, StringViewArray,
    };

    use super::*;

    /// Words of keys with others behind them, and of the last ones, which have too little behind them.
    #[test]
    fn words_are_those_of_the_key_in_every_layout() {
        let texts = (0..150)
            .map(|at| "abcdefghijklmnopqrstuvwxyz".repeat(3)[at % 7..][..at % 70].to_owned());
        let texts: Vec<String> = texts.collect();
        let bytes = || texts.iter().map(String::as_bytes);
        let fixed = texts.iter().map(|text| format!("{text:70}").into_bytes());
        let arrays: [ArrayRef; 7] = [
            Arc::new(StringArray::from_iter_values(&texts)),
            Arc::new(LargeStringArray::from_iter_values(&texts)),
            Arc::new(StringViewArray::from_iter_values(&texts)),
            Arc::new(BinaryArray::from_iter_values(bytes())),
            Arc::new(LargeBinaryArray::from_iter_values(bytes())),
            Arc::new(BinaryViewArray::from_iter_values(bytes())),
            Arc::new(FixedSizeBinaryArray::try_from_iter(fixed).unwrap()),
        ];
        for array in &arrays {
            for (start, len) in [(0, 150), (0, 13), (137, 13), (40, 71)] {
                let array = array.slice(start, len);
                with_values!(&array, keys => {
                    assert_eq!(keys.len(), len);
                    for at in 0..len {
                        let key = keys.key(at);
                        assert_eq!(&key[..(start + at) % 70], texts[start + at].as_bytes());
                        assert_eq!(keys.words::<1>(at), (words(key), key.len()));
                        assert_eq!(keys.words::<3>(at), (words(key), key.len()));
                        assert_eq!(keys.words::<5>(at), (words(key), key.len()));
                        assert_eq!(keys.words::<7>(at), (words(key), key.len()));
                    }
                });
            }
        }
    }
}
