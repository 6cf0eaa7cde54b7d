//! The bytes of segment headers and frames. See the picture in `log/mod.rs`.

/// All headers have this size and every frame starts at a multiple of it, so no header spans two sectors.
pub(crate) const HEADER_BYTES: usize = 64;
const SECTOR_BYTES: usize = 512;
const SEGMENT_MAGIC: &[u8; 8] = b"DRNRLOG1";
const FRAME_MAGIC: &[u8; 4] = b"FRM1";
/// Behind each payload. No byte of it is zero, so that a missing one is seen.
const END_MARK: &[u8; 8] = b"ENDFRAME";

/// What a segment file says of itself.
///
/// ```text
/// 0..8 magic  8..16 first_version  16..24 segment_bytes  24..28 chain  28..60 zero  60..64 crc32c(0..60)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) first_version: u64,
    pub(crate) segment_bytes: u64,
    /// The chain value that the first frame carries.
    pub(crate) chain: u32,
}

/// What a frame says of itself.
///
/// ```text
/// 0..4 magic  4..8 chain  8..16 version  16..24 time  24..32 payload_bytes  32..36 payload_crc
/// 36..40 num_zero_sectors  40..48 synced_until  48..60 zero  60..64 crc32c(0..60)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) chain: u32,
    pub(crate) version: u64,
    pub(crate) time_us: i64,
    pub(crate) payload_bytes: u64,
    pub(crate) payload_crc: u32,
    pub(crate) num_zero_sectors: u32,
    pub(crate) synced_until: u64,
    /// The header's own checksum: the next frame's chain value.
    pub(crate) crc: u32,
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut array = [0; 4];
    array.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(array)
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(array)
}

fn seal(mut bytes: [u8; HEADER_BYTES]) -> ([u8; HEADER_BYTES], u32) {
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    (bytes, crc)
}

/// The header's bytes if its magic and checksum are right.
fn open_header<'a>(bytes: &'a [u8], magic: &[u8]) -> Option<&'a [u8; HEADER_BYTES]> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    (header.starts_with(magic) && crc32c::crc32c(&header[..60]) == u32_at(header, 60))
        .then_some(header)
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..16].copy_from_slice(&self.first_version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.chain.to_le_bytes());
        seal(bytes).0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = open_header(bytes, SEGMENT_MAGIC)?;
        Some(Self {
            first_version: u64_at(header, 8),
            segment_bytes: u64_at(header, 16),
            chain: u32_at(header, 24),
        })
    }
}

impl FrameHeader {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = open_header(bytes, FRAME_MAGIC)?;
        Some(Self {
            chain: u32_at(header, 4),
            version: u64_at(header, 8),
            #[expect(
                clippy::cast_possible_wrap,
                reason = "the bits of an i64 come back as one"
            )]
            time_us: u64_at(header, 16) as i64,
            payload_bytes: u64_at(header, 24),
            payload_crc: u32_at(header, 32),
            num_zero_sectors: u32_at(header, 36),
            synced_until: u64_at(header, 40),
            crc: u32_at(header, 60),
        })
    }
}

/// Bytes that a frame with this payload takes in a segment.
pub(crate) fn frame_bytes(payload_bytes: u64) -> u64 {
    (HEADER_BYTES as u64 + payload_bytes + END_MARK.len() as u64)
        .next_multiple_of(HEADER_BYTES as u64)
}

/// Where a frame stands in its segment and in the chain of frames.
#[derive(Clone, Copy)]
pub(crate) struct FramePlace {
    pub(crate) offset: u64,
    pub(crate) chain: u32,
    pub(crate) synced_until: u64,
}

/// Appends the bytes of a frame to `out` and returns the header's checksum, the next frame's chain value.
pub(crate) fn encode_frame(
    place: FramePlace,
    version: u64,
    time_us: i64,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> u32 {
    let num_zero_sectors = count_zero_sectors(place.offset, payload);
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(FRAME_MAGIC);
    header[4..8].copy_from_slice(&place.chain.to_le_bytes());
    header[8..16].copy_from_slice(&version.to_le_bytes());
    header[16..24].copy_from_slice(&time_us.to_le_bytes());
    header[24..32].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    header[32..36].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    header[36..40].copy_from_slice(&num_zero_sectors.to_le_bytes());
    header[40..48].copy_from_slice(&place.synced_until.to_le_bytes());
    let (header, crc) = seal(header);
    let start = out.len();
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.extend_from_slice(END_MARK);
    out.resize(
        start + (out.len() - start).next_multiple_of(HEADER_BYTES),
        0,
    );
    crc
}

/// The number of whole, all-zero sectors of the file inside the payload of a frame at `frame_offset`.
fn count_zero_sectors(frame_offset: u64, payload: &[u8]) -> u32 {
    let sector = SECTOR_BYTES as u64;
    let payload_offset = frame_offset + HEADER_BYTES as u64;
    let skip = payload_offset.next_multiple_of(sector) - payload_offset;
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let sectors = payload
        .get(skip..)
        .unwrap_or_default()
        .chunks_exact(SECTOR_BYTES);
    let count = sectors.filter(|sector| is_zero(sector)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Chunks without an early exit inside become wide instructions; whole segments are checked with this.
    bytes
        .chunks(64)
        .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// What stands at one offset of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// A whole frame.
    Frame {
        header: FrameHeader,
        payload: &'a [u8],
    },
    /// Nothing but zeros from here on.
    End,
    /// What an interrupted write may leave behind.
    Torn,
    /// What no interrupted write leaves behind.
    Damaged(&'static str),
}

/// Looks at the frame that should start at `offset`, a multiple of 64.
pub(crate) fn parse_frame(segment: &[u8], offset: usize) -> Parsed<'_> {
    let rest = segment.get(offset..).unwrap_or_default();
    if rest.len() < HEADER_BYTES || is_zero(rest) {
        return Parsed::End;
    }
    let (head, body) = rest.split_at(HEADER_BYTES);
    let Some(header) = FrameHeader::decode(head) else {
        // A lost sector takes the whole header; a write cut inside the header leaves nothing behind it.
        if is_zero(head) || is_zero(body) {
            return Parsed::Torn;
        }
        return Parsed::Damaged("frame header has a wrong checksum");
    };
    let Some((payload, mark)) = usize::try_from(header.payload_bytes)
        .ok()
        .and_then(|len| body.split_at_checked(len))
        .and_then(|(payload, after)| Some((payload, after.get(..END_MARK.len())?)))
    else {
        return Parsed::Damaged("frame is longer than its segment");
    };
    if crc32c::crc32c(payload) == header.payload_crc && mark == END_MARK {
        return Parsed::Frame { header, payload };
    }
    let lost_sectors = count_zero_sectors(offset as u64, payload) > header.num_zero_sectors;
    if lost_sectors || mark.contains(&0) {
        return Parsed::Torn;
    }
    Parsed::Damaged("frame has a wrong checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> FramePlace {
        FramePlace {
            offset: 0,
            chain: 5,
            synced_until: 0,
        }
    }

    fn segment(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(place(), 9, -4, payload, &mut bytes);
        assert_eq!(bytes.len() as u64, frame_bytes(payload.len() as u64));
        bytes.resize(bytes.len() + 640, 0);
        bytes
    }

    fn payload() -> Vec<u8> {
        // Sectors of zeros on purpose: they must not be taken for missing ones.
        let byte = |at: usize| {
            if (at / 700).is_multiple_of(2) {
                0
            } else {
                1 + u8::try_from(at % 250).unwrap()
            }
        };
        (0..4000).map(byte).collect()
    }

    #[test]
    fn a_whole_frame_comes_back() {
        let payload = payload();
        let bytes = segment(&payload);
        let Parsed::Frame {
            header,
            payload: found,
        } = parse_frame(&bytes, 0)
        else {
            panic!()
        };
        assert_eq!((header.version, header.time_us, header.chain), (9, -4, 5));
        assert_eq!(found, payload);
        let next = usize::try_from(frame_bytes(payload.len() as u64)).unwrap();
        assert_eq!(parse_frame(&bytes, next), Parsed::End);
    }

    #[test]
    fn every_cut_is_torn() {
        let payload = payload();
        let whole = segment(&payload);
        let frame_end = HEADER_BYTES + payload.len() + END_MARK.len();
        for cut in 1..frame_end {
            let mut bytes = whole.clone();
            bytes[cut..].fill(0);
            assert_eq!(parse_frame(&bytes, 0), Parsed::Torn, "cut at {cut}");
        }
    }

    #[test]
    fn every_lost_sector_is_torn_wherever_the_frame_ends() {
        for len in 2000..2000 + SECTOR_BYTES {
            let payload = &payload()[..len];
            let whole = segment(payload);
            let frame_end = HEADER_BYTES + len + END_MARK.len();
            for start in (0..frame_end).step_by(SECTOR_BYTES) {
                let mut bytes = whole.clone();
                let lost = &mut bytes[start..start + SECTOR_BYTES];
                let was_zero = is_zero(lost);
                lost.fill(0);
                let parsed = parse_frame(&bytes, 0);
                if was_zero {
                    assert!(
                        matches!(parsed, Parsed::Frame { .. }),
                        "{len} bytes, sector at {start}"
                    );
                } else {
                    assert_eq!(parsed, Parsed::Torn, "{len} bytes, sector at {start}");
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let whole = segment(&payload());
        let frame_end = HEADER_BYTES + payload().len() + END_MARK.len();
        for bit in 0..frame_end * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(parse_frame(&bytes, 0), Parsed::Damaged(_)),
                "bit {bit}"
            );
        }
    }
}
