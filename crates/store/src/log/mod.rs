//! The commit log: what makes a commit durable before Tonbo has written a byte.
//!
//! ```text
//! log/000000000000002a.log        a segment; its name is the version of its first frame
//!   0    segment header  64 bytes "DRNRLOG1" format first_version length chain ... crc
//!   64   frame           64-byte header | payload | end mark | zeros to the next multiple of 64
//!   ...  frame
//!   ...  zeros           to the segment's length: the file is allocated before it is used
//! ```
//!
//! In a busy log the next segment is made while this one fills: `log/spare`, a file of zeros.
//!
//! One frame is one commit. Committers that wait at the same time are written as one *group* with one fsync.
//!
//! **Torn or damaged?** A crash may leave the last group torn: any of its 512-byte sectors may be missing, and a
//! missing sector reads as zeros, because the segment was allocated (and so zero) before. Such a tail was never
//! acknowledged and is cut off. Damage to an acknowledged frame must be an error instead. The two are told apart by
//! what each header records:
//!
//! - how many all-zero sectors its payload has: more of them than that means that some were not written; a bad
//!   checksum without that is damage. The end mark does the same for a tail that is cut inside a sector;
//! - `synced_until`: the offset that was known to be on disk when the frame was written. A bad frame below the
//!   `synced_until` of any later frame was acknowledged, so it is damage, whatever it looks like;
//! - `chain`: the header checksum of the frame before, so that frames of an older life of the file cannot be
//!   mistaken for a continuation.
//!
//! Assumptions about the disk: 512-byte sectors are written whole or not at all; fsync means what it says.

mod frame;
mod replay;
mod writer;

pub(crate) use self::{
    replay::{LogEnd, ReplayedFrame, read_log},
    writer::{LogWriter, NewFrame, is_begun_segment},
};
