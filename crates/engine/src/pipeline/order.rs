//! Parallel work whose results are consumed in the order of the input.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, TryRecvError, channel},
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;

use super::control::{Control, Progress};
use crate::{Error, Result, source::Source};

/// Pieces of the input under way for each worker: one in work, one waiting, so that no worker waits for the calling thread.
pub const PIECES_PER_WORKER: usize = 2;

/// What is known of a piece when its result is consumed.
pub(crate) struct Done<T> {
    /// The name of the input that it came from.
    pub(crate) name: String,
    /// Rows of the input before it.
    pub(crate) first_row: u64,
    /// Rows that it had.
    pub(crate) num_rows: u64,
    /// How long it took to decode it.
    pub(crate) decode_time: Duration,
    pub(crate) result: T,
}

/// What a worker hands over.
struct Worked<T> {
    num_rows: u64,
    decode_time: Duration,
    result: T,
}

/// Where a piece failed: decoding names the input and the place itself.
enum Failed {
    Decode(Error),
    Work(Error),
}

/// Decodes the pieces of a source and applies `work` to their batches in parallel, and `consume` to the results in
/// the order of the source, on the calling thread.
///
/// # Errors
/// The first error in input order; a run that was stopped. What was consumed before stays consumed.
pub(crate) fn for_each_ordered<T: Send>(
    source: &mut dyn Source,
    control: &Control,
    work: impl Fn(&[RecordBatch]) -> Result<T> + Sync,
    mut consume: impl FnMut(Done<T>) -> Result<()>,
) -> Result<()> {
    let window = rayon::current_num_threads() * PIECES_PER_WORKER;
    let mut progress = Progress {
        num_bytes_total: source.num_bytes(),
        ..Progress::default()
    };
    let (sender, receiver) = channel();
    let work = &work;
    rayon::in_place_scope(|scope| {
        let mut started = 0_u64;
        let mut consumed = 0_u64;
        let mut is_at_end = false;
        let mut waiting = BTreeMap::new();
        loop {
            while !is_at_end && started - consumed < window as u64 {
                control.check()?;
                let Some(piece) = source.next_piece()? else {
                    is_at_end = true;
                    break;
                };
                let sender = sender.clone();
                let place = started;
                started += 1;
                let (name, num_bytes) = (piece.name().to_owned(), piece.num_bytes);
                scope.spawn(move |_| {
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        let started = Instant::now();
                        let batches = piece.decode().map_err(Failed::Decode)?;
                        let decode_time = started.elapsed();
                        let num_rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                        Ok(Worked {
                            num_rows: num_rows as u64,
                            result: work(&batches).map_err(Failed::Work)?,
                            decode_time,
                        })
                    }));
                    let result = result.unwrap_or_else(|_| {
                        Err(Failed::Work(Error::internal(
                            "a worker stopped with a panic",
                        )))
                    });
                    // The receiver is gone only if the run has failed already.
                    let _ = sender.send((place, name, num_bytes, result));
                });
            }
            if consumed == started {
                return Ok(());
            }
            while !waiting.contains_key(&consumed) {
                let (place, name, num_bytes, result) = receive(&receiver)?;
                waiting.insert(place, (name, num_bytes, result));
            }
            while let Some((name, num_bytes, result)) = waiting.remove(&consumed) {
                control.check()?;
                consumed += 1;
                let first_row = progress.num_rows;
                let worked = result.map_err(|failed| match failed {
                    Failed::Decode(error) => error,
                    Failed::Work(error) => {
                        error.context(format!("{name}: in the rows from {}", first_row + 1))
                    }
                })?;
                progress.num_rows += worked.num_rows;
                progress.num_bytes += num_bytes;
                progress.input.clone_from(&name);
                consume(Done {
                    name,
                    first_row,
                    num_rows: worked.num_rows,
                    decode_time: worked.decode_time,
                    result: worked.result,
                })?;
                control.report(&progress);
            }
        }
    })
}

/// Waits for a result. A worker of the pool goes on working meanwhile: it may be the only one.
fn receive<T>(receiver: &Receiver<T>) -> Result<T> {
    let gone = || Error::internal("workers are gone");
    if rayon::current_thread_index().is_none() {
        return receiver.recv().map_err(|_| gone());
    }
    loop {
        match receiver.try_recv() {
            Ok(value) => return Ok(value),
            Err(TryRecvError::Disconnected) => return Err(gone()),
            Err(TryRecvError::Empty) => {
                rayon::yield_now();
            }
        }
    }
}
