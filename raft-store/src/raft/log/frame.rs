//! A frame of a segment: what one write of the log puts on disk, whole or not at all.
//!
//! ```text
//! tag u32 │ length u32 │ durable u64 │ checksum u32 │ 0 u32 │ body, filled up to 32 bytes
//! ```
//! All numbers are big-endian. The tag covers the rest of the header, the checksum the body; both cover
//! the segment's number and the offset, so that a frame counts only where it was written.

/// In front of the body.
pub(super) const HEADER: usize = 24;
/// Frames begin at multiples of this: a header lies in one sector.
pub(super) const ALIGN: usize = 32;
/// Behind the body: never taken for a sector that was not written.
const FILLER: u8 = 0xff;
/// A disk writes these whole or not at all.
const SECTOR: usize = 512;

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What is at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Frame {
        body: &'a [u8],
        /// Everything in the segment before this offset was on disk when the frame was made.
        durable: u64,
        /// Where the next one begins.
        next: usize,
    },
    /// Nothing, or a frame of which a part never reached the disk.
    End,
    /// What was written there once is not what is there now.
    Damaged,
}

/// Makes a frame of `frame`, whose first `HEADER` bytes are free and whose rest is the body.
pub(super) fn seal(frame: &mut Vec<u8>, place: Place, durable: u64) {
    let length = (frame.len() - HEADER) as u32;
    frame.resize(frame.len().next_multiple_of(ALIGN), FILLER);
    let sum = checksum(place, &frame[HEADER..]);
    frame[4..8].copy_from_slice(&length.to_be_bytes());
    frame[8..16].copy_from_slice(&durable.to_be_bytes());
    frame[16..20].copy_from_slice(&sum.to_be_bytes());
    frame[20..24].fill(0);
    let tag = checksum(place, &frame[4..HEADER]);
    frame[..4].copy_from_slice(&tag.to_be_bytes());
}

/// Of bytes that lie there.
fn checksum(place: Place, bytes: &[u8]) -> u32 {
    let of_place = crc32c::crc32c(&place.segment.to_be_bytes());
    let of_place = crc32c::crc32c_append(of_place, &place.offset.to_be_bytes());
    crc32c::crc32c_append(of_place, bytes)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|n| bytes[at + n])
}

/// What is at `place` in its segment, of which `bytes` are all that there is.
pub(super) fn at(bytes: &[u8], place: Place) -> Found<'_> {
    let start = place.offset as usize;
    let Some(header) = bytes.get(start..start + HEADER) else {
        // A header is not written in parts.
        let rest = bytes.get(start..).unwrap_or_default();
        return if rest.iter().all(|byte| *byte == 0) { Found::End } else { Found::Damaged };
    };
    if header.iter().all(|byte| *byte == 0) {
        return Found::End;
    }
    if u32::from_be_bytes(number(header, 0)) != checksum(place, &header[4..]) {
        return Found::Damaged;
    }
    let length = u32::from_be_bytes(number(header, 4)) as usize;
    let next = (start + HEADER + length).next_multiple_of(ALIGN);
    let whole = bytes.get(start..next);
    let sum = u32::from_be_bytes(number(header, 16));
    if let Some(whole) = whole.filter(|whole| checksum(place, &whole[HEADER..]) == sum) {
        let durable = u64::from_be_bytes(number(header, 8));
        return Found::Frame { body: &whole[HEADER..HEADER + length], durable, next };
    }
    match is_torn(bytes, start, next) {
        true => Found::End,
        false => Found::Damaged,
    }
}

/// Whether a sector of the frame never reached the disk: it is as it was before, all zeros, or beyond
/// the end of the file. The first one is there: the header is.
fn is_torn(bytes: &[u8], start: usize, end: usize) -> bool {
    let second = start - start % SECTOR + SECTOR;
    let mut sectors = (second..end).step_by(SECTOR).map(|from| (from, (from + SECTOR).min(end)));
    sectors.any(|(from, to)| match bytes.get(from..to) {
        None => true,
        Some(sector) => sector.iter().all(|byte| *byte == 0),
    })
}

/// Whether some frame behind `end` proves that what was at `end` had been on disk: then it is lost.
pub(super) fn is_missed(bytes: &[u8], segment: u64, end: usize) -> bool {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (end..used).step_by(ALIGN).any(|offset| {
        let place = Place { segment, offset: offset as u64 };
        matches!(at(bytes, place), Found::Frame { durable, .. } if durable > end as u64)
    })
}

/// The beginning of a frame whose rest never reached the disk.
#[cfg(test)]
pub(crate) fn torn(segment: u64, offset: u64) -> Vec<u8> {
    let mut frame = vec![7; HEADER + 4 * SECTOR];
    seal(&mut frame, Place { segment, offset }, 0);
    frame.truncate(SECTOR);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(place: Place, durable: u64, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER];
        frame.extend_from_slice(body);
        seal(&mut frame, place, durable);
        frame
    }

    fn segment(place: Place, frame: &[u8], behind: usize) -> Vec<u8> {
        let mut bytes = vec![0; place.offset as usize];
        bytes.extend_from_slice(frame);
        bytes.resize(bytes.len() + behind, 0);
        bytes
    }

    proptest! {
        /// Any bit changed anywhere in a frame is noticed, and no frame counts elsewhere.
        #[test]
        fn damage_is_noticed(
            body in prop::collection::vec(1_u8.., 1..1500), slot in 0_u64..40, bit: usize,
        ) {
            let place = Place { segment: 7, offset: slot * ALIGN as u64 };
            let frame = sealed(place, 5, &body);
            let mut bytes = segment(place, &frame, 64);
            let next = place.offset as usize + frame.len();
            prop_assert_eq!(at(&bytes, place), Found::Frame { body: &body, durable: 5, next });
            prop_assert_eq!(at(&bytes, Place { segment: 8, ..place }), Found::Damaged);
            let at_bit = place.offset as usize * 8 + bit % (frame.len() * 8);
            bytes[at_bit / 8] ^= 1 << (at_bit % 8);
            prop_assert_eq!(at(&bytes, place), Found::Damaged);
        }

        /// A frame of which a sector is missing is an end, not damage.
        #[test]
        fn a_torn_frame_is_an_end(
            body in prop::collection::vec(1_u8.., 1100..3000), slot in 0_u64..40, nth: usize,
        ) {
            let place = Place { segment: 7, offset: slot * ALIGN as u64 };
            let mut bytes = segment(place, &sealed(place, 0, &body), 64);
            let first = place.offset as usize / SECTOR;
            let last = (place.offset as usize + HEADER + body.len() - 1) / SECTOR;
            let torn = first + nth % (last - first + 1);
            let from = (torn * SECTOR).max(place.offset as usize);
            let to = ((torn + 1) * SECTOR).min(bytes.len());
            bytes[from..to].fill(0);
            prop_assert_eq!(at(&bytes, place), Found::End);
            let cut = bytes[..from.max(place.offset as usize + HEADER)].to_vec();
            prop_assert_eq!(at(&cut, place), Found::End);
        }
    }

    #[test]
    fn what_a_later_frame_knew_to_be_on_disk_is_missed() {
        let place = |offset| Place { segment: 1, offset };
        let mut bytes = segment(place(0), &sealed(place(0), 0, b"first"), 0);
        let end = bytes.len();
        bytes.extend(sealed(place(end as u64), 0, b"second"));
        let third = bytes.len() as u64;
        for (durable, missed) in [(0, false), (end as u64, false), (third, true)] {
            let mut bytes = bytes.clone();
            bytes.extend(sealed(place(third), durable, b"third"));
            bytes[end..third as usize].fill(0);
            assert_eq!(at(&bytes, place(end as u64)), Found::End);
            assert_eq!(is_missed(&bytes, 1, end), missed, "{durable}");
        }
    }
}
