//! Moves batches from a source through the joins into a sink.
//!
//! The calling thread takes pieces from the source and gives finished ones to the sink, both in order; workers of the
//! rayon pool decode and join in between. The number of pieces under way is bounded, so memory is too.

mod control;
mod enrich;
mod order;
mod report;

pub(crate) use self::order::for_each_ordered;
pub use self::{
    control::{Control, Progress},
    enrich::{BatchMap, Enrichment, Sinks},
    order::PIECES_PER_WORKER,
    report::{EnrichReport, JoinReport, Profile},
};
