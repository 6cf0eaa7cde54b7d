//! Large pages for large arrays that are read in no order.
//!
//! With pages of 4 KiB, nearly every load from an array of 16 MiB also misses in the table of pages that the processor
//! keeps, and looking that up takes about as long as the load. With pages of 2 MiB it does not. Linux gives them to who
//! asks. Nothing but time depends on the answer, so that it is not looked at.

/// Smaller arrays are left alone: the processor keeps the pages of so many bytes anyway.
const BYTES_MIN: usize = 4 << 20;

/// The same for what is written once from the beginning to the end: there a large page saves the system from giving
/// hundreds of small ones. Allocators put such vectors next to each other, so that a page can span some of them.
const OUTPUT_BYTES_MIN: usize = 256 << 10;

/// A vector of one value, in large pages if it is large.
pub(crate) fn vec<T: Clone>(value: T, len: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    let room = values.spare_capacity_mut();
    // Before the first write, so that it comes in large pages from the beginning.
    if size_of_val(room) >= BYTES_MIN {
        advise(room.as_ptr().cast(), size_of_val(room), libc::MADV_HUGEPAGE);
    }
    values.resize(len, value);
    values
}

/// Types of which one value has no bits that are not zero.
///
/// # Safety
/// Zeros, as many as the type has bytes, are a value.
#[expect(unsafe_code, reason = "no type says so by itself")]
pub(crate) unsafe trait Zero {}

#[expect(unsafe_code, reason = "as above")]
// SAFETY: it is a number.
unsafe impl Zero for u32 {}

#[expect(unsafe_code, reason = "as above")]
// SAFETY: it is a number.
unsafe impl Zero for i64 {}

/// As [`vec`], for the value whose bits are all zero: then memory fresh from the system need not be written.
#[expect(unsafe_code, reason = "nothing else leaves zeros as they come")]
pub(crate) fn zeros<T: Zero>(len: usize) -> Box<[T]> {
    let values = Box::<[T]>::new_zeroed_slice(len);
    if size_of_val(&*values) >= BYTES_MIN {
        advise(
            values.as_ptr().cast(),
            size_of_val(&*values),
            libc::MADV_HUGEPAGE,
        );
    }
    // SAFETY: all of them are zeros, and `T` may be that.
    unsafe { values.assume_init() }
}

/// An empty vector with room for a column of a batch, in large pages if it is large.
pub(crate) fn with_capacity<T>(len: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    let room = values.spare_capacity_mut();
    if size_of_val(room) >= OUTPUT_BYTES_MIN {
        advise(room.as_ptr().cast(), size_of_val(room), libc::MADV_HUGEPAGE);
    }
    values
}

/// Moves the bytes of an array that is there into large pages.
pub(crate) fn collapse(bytes: &[u8]) {
    if bytes.len() >= BYTES_MIN {
        advise(bytes.as_ptr(), bytes.len(), libc::MADV_COLLAPSE);
    }
}

#[expect(unsafe_code, reason = "asks the system for large pages")]
fn advise(start: *const u8, num_bytes: usize, advice: libc::c_int) {
    const PAGE_BYTES: usize = 4096;
    let skipped = start.align_offset(PAGE_BYTES).min(num_bytes);
    let whole = (num_bytes - skipped) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: the range lies in one allocation, and both pieces of advice leave what it holds as it is.
    unsafe {
        libc::madvise(start.add(skipped).cast_mut().cast(), whole, advice);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_stay() {
        let mut values = super::vec(7_u32, 3_000_000);
        values[2_999_999] = 8;
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        super::collapse(&bytes);
        assert!(values[..2_999_999].iter().all(|&value| value == 7));
        assert_eq!(bytes[bytes.len() - 4..], [8, 0, 0, 0]);
        assert!(
            bytes[..bytes.len() - 4]
                .chunks(4)
                .all(|value| value == [7, 0, 0, 0])
        );
    }
}
