//! Memory that is about to be read, asked for ahead.

/// Memory as processors read it.
pub(crate) const LINE_BYTES: usize = 64;

/// Asks the processor to bring the memory of a value near, and does not wait for it. What is not there has no effect.
///
/// A load in its place would be waited for: later instructions end after it, and a processor has room for some hundred
/// that have not ended.
#[inline]
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "an instruction that the language has no name for"
)]
pub(crate) fn prefetch<T>(value: Option<&T>) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    if let Some(value) = value {
        // SAFETY: it changes nothing and reads nothing that the program could see. Every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
    }
}

/// Elsewhere nothing is asked for, and a look waits for its memory.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch<T>(_value: Option<&T>) {}

/// Bytes of what is read from the beginning to the end that are asked for ahead: a page.
///
/// Processors foresee loads that are in order, but not past the end of a page. That is enough where each load is of one
/// size, and little is done between them.
pub(crate) const AHEAD_BYTES: usize = 4096;
