//! Keys of bytes, of whatever layout.

use arrow_array::ArrayAccessor;
use arrow_row::Rows;

/// Keys of bytes, by their number from 0 on. What stands at a null means nothing.
pub(crate) trait ByteKeys<'a>: Copy + Sync {
    fn len(self) -> usize;

    fn key(self, at: usize) -> &'a [u8];
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

/// The values of a column of strings or binary.
#[derive(Clone, Copy)]
pub(crate) struct Values<A>(pub(crate) A);

impl<'a, A: ArrayAccessor<Item: Text<'a>> + Copy + Sync> ByteKeys<'a> for Values<A> {
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline]
    fn key(self, at: usize) -> &'a [u8] {
        self.0.value(at).bytes()
    }
}

/// A string or binary.
pub(crate) trait Text<'a> {
    fn bytes(self) -> &'a [u8];
}

impl<'a> Text<'a> for &'a str {
    #[inline]
    fn bytes(self) -> &'a [u8] {
        self.as_bytes()
    }
}

impl<'a> Text<'a> for &'a [u8] {
    #[inline]
    fn bytes(self) -> &'a [u8] {
        self
    }
}

/// Gives `$body` the [`ByteKeys`] of an array of strings or binary, under the name `$keys`.
macro_rules! with_values {
    ($array:expr, $keys:ident => $body:expr) => {{
        use arrow_array::cast::AsArray as _;
        use arrow_schema::DataType;
        use $crate::index::byte_keys::Values;
        let array: &dyn arrow_array::Array = $array;
        macro_rules! with {
            ($typed:expr) => {{
                let $keys = Values($typed);
                $body
            }};
        }
        match array.data_type() {
            DataType::Utf8 => with!(array.as_string::<i32>()),
            DataType::LargeUtf8 => with!(array.as_string::<i64>()),
            DataType::Utf8View => with!(array.as_string_view()),
            DataType::Binary => with!(array.as_binary::<i32>()),
            DataType::LargeBinary => with!(array.as_binary::<i64>()),
            DataType::BinaryView => with!(array.as_binary_view()),
            DataType::FixedSizeBinary(_) => with!(array.as_fixed_size_binary()),
            other => unreachable!("a plan never compares this type as bytes: {other}"),
        }
    }};
}
pub(crate) use with_values;
