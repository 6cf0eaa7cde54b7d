//! Appends groups of frames to segments.

use std::path::{Path, PathBuf};

use super::frame::{FramePlace, HEADER_BYTES, SegmentHeader, encode_frame, frame_bytes};
use crate::{
    disk::{self, OutFile},
    error::{Error, ErrorKind, Result},
};

/// A segment is not made longer than this for less than one commit.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

/// One commit on its way into the log.
pub(crate) struct NewFrame {
    pub(crate) version: u64,
    pub(crate) time_us: i64,
    pub(crate) payload: Vec<u8>,
}

/// The open end of the log. After a failed write or fsync it refuses all that follows.
pub(crate) struct LogWriter {
    dir: PathBuf,
    segment_bytes_min: u64,
    segment: Option<Segment>,
    /// The chain value of the next frame.
    chain: u32,
    failed: bool,
    /// Bytes of frames since the last checkpoint.
    num_bytes: u64,
}

struct Segment {
    file: OutFile,
    len: u64,
    /// Where the next frame goes.
    end: u64,
    synced_until: u64,
}

/// Where an existing segment goes on.
pub(crate) struct SegmentEnd {
    pub(crate) path: PathBuf,
    pub(crate) end: u64,
    /// Whether something stands behind `end` that has to be wiped first.
    pub(crate) is_torn: bool,
}

impl LogWriter {
    /// Goes on after the frames that were replayed. Wipes a torn tail.
    pub(crate) fn open(
        dir: PathBuf,
        segment_bytes_min: u64,
        chain: u32,
        last: Option<&SegmentEnd>,
        num_bytes: u64,
    ) -> Result<Self> {
        let segment = last.map(Segment::open).transpose()?;
        Ok(Self {
            dir,
            segment_bytes_min,
            segment,
            chain,
            failed: false,
            num_bytes,
        })
    }

    /// Bytes of frames since the last checkpoint.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.num_bytes
    }

    /// Whether a write or an fsync has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Writes one group of frames, and makes it durable if `sync`.
    ///
    /// # Errors
    /// Before anything was written (no room for a new segment): the log is as it was. Later: the log has
    /// failed, and whether the frames are found by the next open is unknown (each is whole or not there).
    pub(crate) fn append(&mut self, frames: &[NewFrame], sync: bool) -> Result<()> {
        if self.failed {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "store takes no more writes because a write to its log failed; open it again",
            ));
        }
        let Some(first) = frames.first() else {
            return Ok(());
        };
        let num_bytes = frames
            .iter()
            .map(|f| frame_bytes(f.payload.len() as u64))
            .sum::<u64>();
        self.make_room(first.version, num_bytes, sync)?;
        // `make_room` has just put a segment there.
        let Some(segment) = &mut self.segment else {
            return Err(Error::internal("log has no segment"));
        };
        let mut bytes = Vec::with_capacity(usize::try_from(num_bytes).unwrap_or_default());
        let mut chain = self.chain;
        for frame in frames {
            let place = FramePlace {
                offset: segment.end + bytes.len() as u64,
                chain,
                synced_until: segment.synced_until,
            };
            chain = encode_frame(
                place,
                frame.version,
                frame.time_us,
                &frame.payload,
                &mut bytes,
            );
        }
        if let Err(error) = segment.write(&bytes, sync) {
            self.failed = true;
            return Err(error);
        }
        self.chain = chain;
        self.num_bytes += num_bytes;
        Ok(())
    }

    /// Makes sure that the open segment has room for `num_bytes`, starting a new one if need be.
    fn make_room(&mut self, first_version: u64, num_bytes: u64, sync: bool) -> Result<()> {
        if let Some(segment) = &mut self.segment {
            if segment.len - segment.end >= num_bytes {
                return Ok(());
            }
            // A torn tail is looked for in the last segment only, so all before it must be on disk.
            if let Err(error) = segment.sync() {
                self.failed = true;
                return Err(error);
            }
        }
        // Half as long as all before it, so that a busy log does not begin a segment, which takes three fsyncs, all the
        // time, and a third of it at most is room that nobody uses.
        let usual = (self.num_bytes / 2).clamp(
            self.segment_bytes_min,
            self.segment_bytes_min.max(SEGMENT_BYTES_MAX),
        );
        let least = HEADER_BYTES as u64 + num_bytes;
        let len = usual.max(least);
        let header = SegmentHeader {
            first_version,
            segment_bytes: len,
            chain: self.chain,
        };
        let created = Segment::create(&self.dir, header, sync).or_else(|error| {
            // Less may still find room on a disk that is almost full.
            if least == len || self.dir.join(segment_name(first_version)).exists() {
                return Err(error);
            }
            let header = SegmentHeader {
                segment_bytes: least,
                ..header
            };
            Segment::create(&self.dir, header, sync)
        });
        match created {
            Ok(segment) => self.segment = Some(segment),
            Err(error) => {
                // It has its name already, and whether it keeps it is unknown: no other segment may take its versions.
                self.failed |= self.dir.join(segment_name(first_version)).exists();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes all frames so far durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if let Some(segment) = &mut self.segment
            && let Err(error) = segment.sync()
        {
            self.failed = true;
            return Err(error);
        }
        Ok(())
    }

    /// Drops all segments: a checkpoint covers them. Failing to remove one is no failure of the log.
    pub(crate) fn clear(&mut self, first_version_kept: u64) {
        self.segment = None;
        self.num_bytes = 0;
        for name in disk::list_dir(&self.dir).unwrap_or_default() {
            if parse_segment_name(&name).is_some_and(|first| first < first_version_kept) {
                // A segment that stays is skipped by every reader, and the next checkpoint tries again.
                let _ = disk::remove_file(&self.dir.join(name));
            }
        }
    }
}

impl Segment {
    fn create(dir: &Path, header: SegmentHeader, is_for_sync: bool) -> Result<Self> {
        let temporary = dir.join("new");
        let path = dir.join(segment_name(header.first_version));
        disk::remove_file(&temporary)?;
        let result = Self::allocate(&temporary, header, is_for_sync)
            .and_then(|file| file.rename(&path))
            .and_then(|file| disk::sync_dir(dir).map(|()| file));
        match result {
            Ok(file) => Ok(Self {
                file,
                len: header.segment_bytes,
                end: HEADER_BYTES as u64,
                synced_until: HEADER_BYTES as u64,
            }),
            Err(error) => {
                // What is left of it would only waste space.
                let _ = disk::remove_file(&temporary);
                Err(error)
            }
        }
    }

    /// Makes the file with all its blocks, zero but for the header, and on disk.
    ///
    /// Allocated blocks read as zeros, but the file system notes for each when it is first written to, and an fsync waits
    /// for that. So the zeros are written where fsyncs are to come.
    fn allocate(path: &Path, header: SegmentHeader, is_for_sync: bool) -> Result<OutFile> {
        let file = OutFile::create_new(path)?;
        file.allocate(header.segment_bytes)?;
        if is_for_sync {
            file.write_zeros(0, header.segment_bytes)?;
        }
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        Ok(file)
    }

    fn open(last: &SegmentEnd) -> Result<Self> {
        let file = OutFile::open(&last.path)?;
        let len = file.len()?;
        if last.is_torn {
            file.write_zeros(last.end, len)?;
        }
        // Frames of a process that was killed before its fsync become acknowledged by being read: make them durable.
        file.sync()?;
        Ok(Self {
            file,
            len,
            end: last.end,
            synced_until: last.end,
        })
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> Result<()> {
        self.file.write_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        if sync { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<()> {
        if self.synced_until != self.end {
            self.file.sync()?;
            self.synced_until = self.end;
        }
        Ok(())
    }
}

/// The file name of the segment whose first frame has this version.
fn segment_name(first_version: u64) -> String {
    format!("{first_version:016x}.log")
}

/// The version in a segment's file name, or `None` if it is no segment.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name
        .strip_suffix(".log")
        .filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
