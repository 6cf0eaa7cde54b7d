//! Reads the log back: every whole frame, and where it goes on.

use std::path::Path;

use super::{
    frame::{FrameHeader, HEADER_BYTES, Parsed, SegmentHeader, frame_bytes, parse_frame},
    writer::{SegmentEnd, parse_segment_name},
};
use crate::{
    disk,
    error::{Error, Result},
};

/// A commit that was found in the log.
pub(crate) struct ReplayedFrame {
    pub(crate) version: u64,
    pub(crate) time_us: i64,
    pub(crate) payload: Vec<u8>,
}

/// Where the log goes on.
#[derive(Default)]
pub(crate) struct LogEnd {
    /// Frames before this version are in a checkpoint.
    pub(crate) first_version: u64,
    pub(crate) chain: u32,
    pub(crate) last: Option<SegmentEnd>,
    /// Bytes of all frames read.
    pub(crate) num_bytes: u64,
}

/// Calls `visit` for every frame from `first_version` on, in order.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data), naming the file and the offset, for damage to a frame that was
/// acknowledged, a missing segment, or a frame out of order.
pub(crate) fn read_log(
    dir: &Path,
    first_version: u64,
    mut visit: impl FnMut(ReplayedFrame) -> Result<()>,
) -> Result<LogEnd> {
    let mut segments: Vec<(u64, String)> = disk::list_dir(dir)?
        .into_iter()
        .filter_map(|name| parse_segment_name(&name).map(|first| (first, name)))
        .filter(|(first, _)| *first >= first_version)
        .collect();
    segments.sort();
    let mut end = LogEnd {
        first_version,
        ..LogEnd::default()
    };
    let mut next_version = first_version;
    for (i, (named_version, name)) in segments.iter().enumerate() {
        let path = dir.join(name);
        let bytes = disk::read_file(&path)?;
        let damaged = |offset: usize, what: &str| {
            Error::data(format!(
                "{what}: file=`{}` offset=`{offset}`",
                path.display()
            ))
        };
        let header = SegmentHeader::decode(&bytes)
            .ok_or_else(|| damaged(0, "log segment has a damaged header"))?;
        if header.segment_bytes != bytes.len() as u64 {
            return Err(damaged(bytes.len(), "log segment has a wrong length"));
        }
        if header.first_version != *named_version || header.first_version != next_version {
            return Err(damaged(
                0,
                "log segment is out of order or one before it is missing",
            ));
        }
        if i > 0 && header.chain != end.chain {
            return Err(damaged(
                0,
                "log segment does not continue the one before it",
            ));
        }
        end.chain = header.chain;
        let mut offset = HEADER_BYTES;
        let is_torn = loop {
            match parse_frame(&bytes, offset) {
                Parsed::Frame { header, payload } => {
                    if header.version != next_version || header.chain != end.chain {
                        return Err(damaged(offset, "log frame is out of order"));
                    }
                    visit(ReplayedFrame {
                        version: header.version,
                        time_us: header.time_us,
                        payload: payload.to_vec(),
                    })
                    .map_err(|error| error.context(path.display()))?;
                    next_version += 1;
                    end.chain = header.crc;
                    // The frame lies inside the segment, so its size fits.
                    let len = frame_bytes(header.payload_bytes);
                    end.num_bytes += len;
                    offset += usize::try_from(len).unwrap_or(usize::MAX);
                }
                Parsed::End => break false,
                Parsed::Torn => break true,
                Parsed::Damaged(what) => return Err(damaged(offset, what)),
            }
        };
        if is_torn && (i + 1 < segments.len() || acknowledged_later(&bytes, offset)) {
            return Err(damaged(
                offset,
                "a part of an acknowledged log frame is missing",
            ));
        }
        end.last = Some(SegmentEnd {
            path,
            first_version: *named_version,
            end: offset as u64,
            is_torn,
        });
    }
    Ok(end)
}

/// Whether any frame behind `offset` was written after the bytes at `offset` were known to be on disk.
fn acknowledged_later(segment: &[u8], offset: usize) -> bool {
    (offset..segment.len())
        .step_by(HEADER_BYTES)
        .filter_map(|at| FrameHeader::decode(&segment[at..]))
        .any(|header| header.synced_until > offset as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{LogWriter, NewFrame};

    fn frame(version: u64, payload: &[u8]) -> NewFrame {
        NewFrame {
            version,
            time_us: 1,
            payload: payload.to_vec(),
        }
    }

    type Frames = Vec<(u64, Vec<u8>)>;

    fn replay(dir: &Path) -> Result<(Frames, LogEnd)> {
        let mut frames = Vec::new();
        let end = read_log(dir, 1, |frame| {
            frames.push((frame.version, frame.payload));
            Ok(())
        })?;
        Ok((frames, end))
    }

    fn writer(dir: &Path, end: &LogEnd) -> LogWriter {
        LogWriter::open(dir.to_owned(), 4096, end).unwrap()
    }

    /// Five frames in two groups over two segments.
    fn sample(dir: &Path) {
        let mut log = writer(dir, &LogEnd::default());
        log.append(&[frame(1, b"one"), frame(2, &[7; 1500])], true)
            .unwrap();
        log.append(&[frame(3, &[8; 1000])], true).unwrap();
        log.append(&[frame(4, &[9; 2000]), frame(5, b"five")], true)
            .unwrap();
    }

    #[test]
    fn frames_come_back_over_segments_and_reopenings() {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path());
        assert_eq!(disk::list_dir(dir.path()).unwrap().len(), 2);
        let (frames, end) = replay(dir.path()).unwrap();
        assert_eq!(
            frames.iter().map(|f| f.0).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5]
        );
        assert_eq!(frames[1].1, [7; 1500]);
        let mut log = writer(dir.path(), &end);
        log.append(&[frame(6, b"six")], true).unwrap();
        assert_eq!(replay(dir.path()).unwrap().0.len(), 6);
    }

    #[test]
    fn a_torn_last_group_is_cut_and_its_place_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path());
        let path = dir.path().join("0000000000000004.log");
        let whole = std::fs::read(&path).unwrap();
        // Cut anywhere in the second segment's only group: some of its frames are there, each of them whole.
        for cut in (HEADER_BYTES..HEADER_BYTES + 2300).step_by(37) {
            let mut bytes = whole.clone();
            bytes[cut..].fill(0);
            std::fs::write(&path, &bytes).unwrap();
            let (frames, end) = replay(dir.path()).unwrap();
            assert!((3..=5).contains(&frames.len()), "cut at {cut}");
            let next = frames.len() as u64 + 1;
            writer(dir.path(), &end)
                .append(&[frame(next, b"again")], true)
                .unwrap();
            let (frames, _) = replay(dir.path()).unwrap();
            assert_eq!(
                frames.last().unwrap(),
                &(next, b"again".to_vec()),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_hole_below_an_acknowledged_frame_is_an_error_with_its_offset() {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path());
        let path = dir.path().join("0000000000000001.log");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[512..1024].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let error = replay(dir.path()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Data);
        assert!(error.message().contains("offset=`192`"), "{error}");
        assert!(error.message().contains("0000000000000001.log"), "{error}");
    }

    #[test]
    fn a_shorter_segment_or_a_missing_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path());
        let path = dir.path().join("0000000000000004.log");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(replay(dir.path()).is_err());
        std::fs::write(&path, &whole).unwrap();
        std::fs::remove_file(dir.path().join("0000000000000001.log")).unwrap();
        assert!(replay(dir.path()).is_err());
    }
}
