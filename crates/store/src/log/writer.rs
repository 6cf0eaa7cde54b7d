//! Appends groups of frames to segments.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use super::{
    frame::{FramePlace, HEADER_BYTES, SegmentHeader, encode_frame, frame_bytes},
    replay::LogEnd,
};
use crate::{
    disk::{self, OutFile},
    error::{Error, ErrorKind, Result},
};

/// A segment is not made longer than this for less than one commit.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

/// The most bytes of a segment that is made ahead of need: until it is used, it is space that nobody else has.
const SPARE_BYTES_MAX: u64 = 16 << 20;

/// A segment is made ahead of need if it has room for so many groups like the last one.
const SPARE_GROUPS_MIN: u64 = 16;

/// A buffer for a group of frames that is larger than this is given back.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Frames of so many bytes, whose commits did not ask for an fsync, are brought to the disk behind their backs.
const SYNC_BEHIND_BYTES: u64 = 2 << 20;

/// Names of files that are to become segments.
const NEW_NAME: &str = "new";
const SPARE_NAME: &str = "spare";

/// Whether this is what becomes a segment, or would have if the process had not ended.
pub(crate) fn is_begun_segment(name: &str) -> bool {
    [NEW_NAME, SPARE_NAME].contains(&name)
}

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
    /// Where groups of frames are put together, kept from one to the next.
    bytes: Vec<u8>,
    failed: bool,
    /// Bytes of frames since the last checkpoint.
    num_bytes: u64,
    /// Frames before this version are in a checkpoint.
    first_version_kept: u64,
    /// Bytes of frames that the last checkpoint has covered.
    covered_bytes: u64,
    /// Segments that were open when a checkpoint covered them.
    ended: Vec<Segment>,
    /// `None` if no segments are made ahead of need.
    spare: Option<Spare>,
}

/// The file of the next segment. To write zeros takes as long as to write frames, so a thread of its own does that while
/// the open segment fills.
#[derive(Default)]
struct Spare(Option<JoinHandle<Option<SpareFile>>>);

struct SpareFile {
    file: OutFile,
    len: u64,
}

struct Segment {
    file: Arc<OutFile>,
    /// The version of its first frame.
    first_version: u64,
    len: u64,
    /// Where the next frame goes.
    end: u64,
    synced_until: u64,
    syncing: Syncing,
}

/// An fsync of a segment that nobody waits for, by a thread of its own: of frames whose commits asked for none. So little
/// is left to do for the fsync at the segment's end, which all wait for.
#[derive(Default)]
struct Syncing {
    thread: Option<JoinHandle<Result<()>>>,
    /// Up to where frames are on their way to the disk, or there.
    until: u64,
}

/// Where an existing segment goes on.
pub(crate) struct SegmentEnd {
    pub(crate) path: PathBuf,
    pub(crate) first_version: u64,
    pub(crate) end: u64,
    /// Whether something stands behind `end` that has to be wiped first.
    pub(crate) is_torn: bool,
}

impl LogWriter {
    /// Goes on after the frames that were replayed. Wipes a torn tail.
    pub(crate) fn open(dir: PathBuf, segment_bytes_min: u64, end: &LogEnd) -> Result<Self> {
        let segment = end.last.as_ref().map(Segment::open).transpose()?;
        // Left by a process that was killed.
        disk::remove_file(&spare_path(&dir))?;
        Ok(Self {
            dir,
            segment_bytes_min,
            segment,
            chain: end.chain,
            bytes: Vec::new(),
            failed: false,
            num_bytes: end.num_bytes,
            first_version_kept: end.first_version,
            covered_bytes: 0,
            ended: Vec::new(),
            spare: None,
        })
    }

    /// Has segments made ahead of need, by a thread.
    pub(crate) fn make_ahead(&mut self) {
        self.spare = Some(Spare::default());
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
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.reserve(usize::try_from(num_bytes).unwrap_or_default());
        let mut chain = self.chain;
        for frame in frames {
            let place = FramePlace {
                offset: segment.end + bytes.len() as u64,
                chain,
                synced_until: segment.synced_until,
            };
            chain = encode_frame(place, frame.version, frame.time_us, &frame.payload, bytes);
        }
        let written = segment.write(bytes, sync);
        if bytes.capacity() > KEPT_BYTES_MAX {
            *bytes = Vec::new();
        }
        if let Err(error) = written {
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
        // time, and a third of it at most is room that nobody uses. The first of those that nobody syncs is half as long
        // as what the last checkpoint has covered: it is allocated without zeros, and costs no more for that.
        let expected = if sync { 0 } else { self.covered_bytes };
        let usual = (self.num_bytes.max(expected) / 2).clamp(
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
        // One that these frames fill is synced once.
        let is_for_sync = sync && least < len;
        let created = match self.take_spare() {
            Some(spare) if spare.len >= least => Segment::begin_spare(&self.dir, header, spare),
            Some(_) => {
                let _ = disk::remove_file(&spare_path(&self.dir));
                Segment::create(&self.dir, header, is_for_sync)
            }
            None => Segment::create(&self.dir, header, is_for_sync),
        };
        let created = created.or_else(|error| {
            // Less may still find room on a disk that is almost full.
            if least == len || self.dir.join(segment_name(first_version)).exists() {
                return Err(error);
            }
            let header = SegmentHeader {
                segment_bytes: least,
                ..header
            };
            Segment::create(&self.dir, header, false)
        });
        match created {
            Ok(segment) => {
                self.segment = Some(segment);
                // A log that has filled a segment since the last checkpoint is likely to fill this one.
                let is_busy = sync && self.num_bytes >= self.segment_bytes_min;
                let spare_bytes = (usual / 2).clamp(
                    self.segment_bytes_min,
                    self.segment_bytes_min.max(SPARE_BYTES_MAX),
                );
                if let Some(spare) = self.spare.as_mut().filter(|_| is_busy)
                    && num_bytes * SPARE_GROUPS_MIN <= spare_bytes
                {
                    spare.begin(&self.dir, spare_bytes);
                }
            }
            Err(error) => {
                // It has its name already, and whether it keeps it is unknown: no other segment may take its versions.
                self.failed |= self.dir.join(segment_name(first_version)).exists();
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_spare(&mut self) -> Option<SpareFile> {
        self.spare.as_mut()?.take()
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

    /// Ends the open segment, so that a checkpoint of all frames so far can drop it while later ones stay. Makes them
    /// durable.
    pub(crate) fn end_segment(&mut self) -> Result<()> {
        self.sync()?;
        // One without a frame covers nothing, and another would have its name.
        self.segment
            .take_if(|segment| segment.end > HEADER_BYTES as u64);
        Ok(())
    }

    /// Needs the segments no more that a checkpoint covers, those of frames before a version; `num_bytes` of frames are
    /// left. The segments are there until somebody calls [`Covered::remove`].
    pub(crate) fn clear(&mut self, first_version_kept: u64, num_bytes: u64) {
        self.first_version_kept = first_version_kept;
        let covered = self
            .segment
            .take_if(|segment| segment.first_version < first_version_kept);
        self.ended.extend(covered);
        self.covered_bytes = self.num_bytes.saturating_sub(num_bytes);
        self.num_bytes = num_bytes;
        if num_bytes < self.segment_bytes_min && self.take_spare().is_some() {
            // The log is not busy any more.
            let _ = disk::remove_file(&spare_path(&self.dir));
        }
    }

    /// The segments that checkpoints have covered.
    pub(crate) fn covered(&mut self) -> Covered {
        Covered {
            dir: self.dir.clone(),
            first_version_kept: self.first_version_kept,
            ended: std::mem::take(&mut self.ended),
        }
    }
}

/// Segments that a checkpoint has covered, to be removed while others go on writing: a file of some megabytes takes
/// milliseconds.
pub(crate) struct Covered {
    dir: PathBuf,
    first_version_kept: u64,
    /// Those that were open. A thread may still be bringing them to the disk.
    ended: Vec<Segment>,
}

impl Covered {
    /// Removes them. Failing to is no failure of the log: a segment that stays is skipped by every reader, and the next
    /// checkpoint tries again. To bring one of them to the disk is.
    pub(crate) fn remove(mut self) -> Result<()> {
        let mut ended = self.ended.iter_mut();
        let synced = ended.try_for_each(|segment| segment.syncing.end());
        let is_covered = |first: u64| first < self.first_version_kept;
        for name in disk::list_dir(&self.dir).unwrap_or_default() {
            if parse_segment_name(&name).is_some_and(is_covered) {
                let _ = disk::remove_file(&self.dir.join(name));
            }
        }
        synced
    }
}

impl Spare {
    /// Has a file made, if there is none.
    fn begin(&mut self, dir: &Path, len: u64) {
        let path = spare_path(dir);
        let make = move || {
            // What cannot be made now is made when it is needed, or the commit that needs it says what is wrong.
            disk::remove_file(&path).ok()?;
            let made = zeroed(&path, len, true).and_then(|file| file.sync().map(|()| file));
            if made.is_err() {
                let _ = disk::remove_file(&path);
            }
            let file = made.ok()?;
            Some(SpareFile { file, len })
        };
        if self.0.is_none() {
            self.0 = Builder::new()
                .name("darner-log".to_owned())
                .spawn(make)
                .ok();
        }
    }

    /// The file, if one was made. Waits for it, which takes no longer than to make another.
    fn take(&mut self) -> Option<SpareFile> {
        self.0.take()?.join().ok().flatten()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if self.take_spare().is_some() {
            // What stays is overwritten by the next.
            let _ = disk::remove_file(&spare_path(&self.dir));
        }
    }
}

/// Makes a file with all its blocks, zero.
///
/// Allocated blocks read as zeros, but the file system notes for each when it is first written to, and an fsync waits
/// for that. So the zeros are written where fsyncs are to come.
fn zeroed(path: &Path, len: u64, is_for_sync: bool) -> Result<OutFile> {
    let file = OutFile::create_new(path)?;
    file.allocate(len)?;
    if is_for_sync {
        file.write_zeros(0, len)?;
    }
    Ok(file)
}

impl Segment {
    /// Makes a segment of a file that was made ahead of need, and has the length that it has.
    fn begin_spare(dir: &Path, header: SegmentHeader, spare: SpareFile) -> Result<Self> {
        let header = SegmentHeader {
            segment_bytes: spare.len,
            ..header
        };
        Self::begin(dir, &spare_path(dir), header, Ok(spare.file))
    }

    fn create(dir: &Path, header: SegmentHeader, is_for_sync: bool) -> Result<Self> {
        let temporary = dir.join(NEW_NAME);
        disk::remove_file(&temporary)?;
        let file = zeroed(&temporary, header.segment_bytes, is_for_sync);
        Self::begin(dir, &temporary, header, file)
    }

    /// Puts the header into a file of zeros, and gives the file its name, once all of it is on disk.
    fn begin(
        dir: &Path,
        temporary: &Path,
        header: SegmentHeader,
        file: Result<OutFile>,
    ) -> Result<Self> {
        let path = dir.join(segment_name(header.first_version));
        let result = file
            .and_then(|file| file.write_at(&header.encode(), 0).map(|()| file))
            .and_then(|file| file.sync().map(|()| file))
            .and_then(|file| file.rename(&path))
            .and_then(|file| disk::sync_dir(dir).map(|()| file));
        match result {
            Ok(file) => Ok(Self {
                file: Arc::new(file),
                first_version: header.first_version,
                len: header.segment_bytes,
                end: HEADER_BYTES as u64,
                synced_until: HEADER_BYTES as u64,
                syncing: Syncing::default(),
            }),
            Err(error) => {
                // What is left of it would only waste space.
                let _ = disk::remove_file(temporary);
                Err(error)
            }
        }
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
            file: Arc::new(file),
            first_version: last.first_version,
            len,
            end: last.end,
            synced_until: last.end,
            syncing: Syncing::default(),
        })
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> Result<()> {
        self.file.write_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        if sync {
            return self.sync();
        }
        if self.end - self.syncing.until.max(self.synced_until) >= SYNC_BEHIND_BYTES {
            self.syncing.begin(&self.file, self.end)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        // First: an error of that thread is not told a second time, and would be taken for success here.
        self.syncing.end()?;
        if self.synced_until != self.end {
            self.file.sync()?;
            self.synced_until = self.end;
        }
        Ok(())
    }
}

impl Syncing {
    /// Begins to bring what was written, up to `until`, to the disk, unless an earlier round is not over yet. Fails if an
    /// earlier one has.
    fn begin(&mut self, file: &Arc<OutFile>, until: u64) -> Result<()> {
        if self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            return Ok(());
        }
        self.end()?;
        let file = Arc::clone(file);
        let sync = move || file.sync();
        // Without a thread it is all left to the fsync at the end.
        self.thread = Builder::new()
            .name("darner-log".to_owned())
            .spawn(sync)
            .ok();
        self.until = until;
        Ok(())
    }

    /// Waits for the thread and takes its answer.
    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::internal("thread that syncs the log panicked")))
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        // What a store has begun ends with it. Who wants to know what came of it has called `end`.
        let _ = self.end();
    }
}

/// Where a segment is made ahead of need.
fn spare_path(dir: &Path) -> PathBuf {
    dir.join(SPARE_NAME)
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
