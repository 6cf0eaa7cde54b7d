//! The border at which a panic of a foreign decoder becomes an error.
//!
//! The readers of Arrow and Parquet panic on some malformed files (an index out of range, a length
//! that overflows, an `unimplemented!`). Such a file is bad data, not a defect of the program that
//! reads it, so all decoding of foreign bytes runs inside [`guarded`].
//! A panic is all that this can catch: sizes that would abort the process are checked beforehand, by
//! each reader.

use crate::{Error, Result};
use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    /// How many guarded sections this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

static HOOK: Once = Once::new();

/// Runs `work`; a panic in it becomes an error of kind [`ErrorKind::Data`](crate::ErrorKind::Data).
///
/// The panic's message goes into the error, not to standard error: a hook that stays silent within
/// guarded sections is put before the process's own hook, once.
/// Unwind safety is asserted: whatever `work` had mutated must not be used after an error. Every
/// source keeps to that by failing for good.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A thread that is being torn down has no flag any more, and no guarded section either.
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                previous(info);
            }
        }));
    });
    let _section = Section::enter();
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(payload) => Err(Error::data(format!(
            "malformed data, the decoder gave up: reason=`{}`",
            panic_text(&*payload)
        ))),
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else {
        "unknown"
    }
}

/// Counts the thread into a guarded section until dropped.
struct Section;

impl Section {
    fn enter() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn panic_becomes_a_data_error_with_its_message() {
        let index = 7;
        let error = guarded(|| -> Result<()> { panic!("index {index}") }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains("index 7"), "{error}");
    }

    #[test]
    fn results_pass_through_and_sections_nest() {
        let value = guarded(|| {
            let inner = guarded(|| -> Result<u8> { panic!("inner") });
            assert!(inner.is_err());
            Ok(5)
        });
        assert_eq!(value.unwrap(), 5);
        assert_eq!(DEPTH.get(), 0);
    }
}
