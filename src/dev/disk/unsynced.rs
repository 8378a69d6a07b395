//! What was written to a file and not synced, and lies over what is on the disk: a value, without the
//! file itself. As on a real disk, a power cut may take all of it, or leave a beginning.

use std::collections::BTreeMap;

/// A disk writes these whole or not at all: what the log of masters relies on.
const SECTOR: u64 = 512;

/// The bytes and the length that a file has and the disk does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsynced {
    /// The file's length as its users see it.
    size: u64,
    /// Beyond that nothing of what is on the disk counts: it was cut off, and reads as zeros.
    kept: u64,
    /// What was written, by offset; they neither overlap nor are empty.
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Unsynced {
    /// Nothing yet, over a file of this length.
    pub(super) fn over(size: u64) -> Unsynced {
        Unsynced { size, kept: size, pieces: BTreeMap::new() }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn write(&mut self, at: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = at + data.len() as u64;
        self.clear(at, end);
        // Appended pieces grow, or a log would be of thousands.
        let before = self.pieces.range_mut(..at).next_back();
        match before.filter(|(start, piece)| **start + piece.len() as u64 == at) {
            Some((_, piece)) => piece.extend_from_slice(data),
            None => drop(self.pieces.insert(at, data.to_vec())),
        }
        self.size = self.size.max(end);
    }

    /// Makes the file so long; what is new of it is zeros.
    pub(super) fn resize(&mut self, size: u64) {
        self.clear(size, u64::MAX);
        self.kept = self.kept.min(size);
        self.size = size;
    }

    /// Forgets what was written between two offsets.
    fn clear(&mut self, from: u64, to: u64) {
        let first = self.pieces.range(..from).next_back().map(|(start, _)| *start);
        let starts: Vec<u64> = match first {
            Some(first) => self.pieces.range(first..to).map(|(start, _)| *start).collect(),
            None => self.pieces.range(..to).map(|(start, _)| *start).collect(),
        };
        for start in starts {
            let end = start + self.pieces[&start].len() as u64;
            if end <= from {
                continue;
            }
            let Some(mut piece) = self.pieces.remove(&start) else { continue };
            if end > to {
                self.pieces.insert(to, piece.split_off((to - start) as usize));
            }
            if start < from {
                piece.truncate((from - start) as usize);
                self.pieces.insert(start, piece);
            }
        }
    }

    /// The file's content at an offset: `on_disk` is what the disk has there, as far as it goes.
    pub(super) fn read(&self, at: u64, length: usize, on_disk: &[u8]) -> Vec<u8> {
        let end = self.size.min(at.saturating_add(length as u64));
        let mut content = vec![0; end.saturating_sub(at) as usize];
        if content.is_empty() {
            return content;
        }
        let kept = (self.kept.saturating_sub(at) as usize).min(on_disk.len()).min(content.len());
        content[..kept].copy_from_slice(&on_disk[..kept]);
        let first = self.pieces.range(..=at).next_back().map_or(at, |(start, _)| *start);
        for (start, piece) in self.pieces.range(first..end) {
            let skipped = at.saturating_sub(*start).min(piece.len() as u64) as usize;
            let to = (start + skipped as u64).saturating_sub(at) as usize;
            let piece = &piece[skipped..];
            let length = piece.len().min(content.len().saturating_sub(to));
            if length > 0 {
                content[to..to + length].copy_from_slice(&piece[..length]);
            }
        }
        content
    }

    /// What the disk must do to have it all: cut the file there, write these, and make it so long.
    pub(super) fn steps(&self) -> (u64, &BTreeMap<u64, Vec<u8>>, u64) {
        (self.kept, &self.pieces, self.size)
    }

    /// How many bytes were written.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.values().map(|piece| piece.len() as u64).sum()
    }

    /// What of it is on the disk all the same when the power fails after so many bytes, in the order of
    /// offsets; `None` if nothing is. A sector is written whole or not at all.
    pub(super) fn beginning(&self, bytes: u64) -> Option<Unsynced> {
        let mut left = bytes;
        let cut = self.pieces.iter().find_map(|(start, piece)| {
            let length = piece.len() as u64;
            let cut = (left < length).then_some(start + left);
            left = left.saturating_sub(length);
            cut
        });
        let cut = cut.map_or(u64::MAX, |cut| cut - cut % SECTOR);
        let (mut pieces, mut size) = (BTreeMap::new(), self.kept);
        for (start, piece) in self.pieces.range(..cut) {
            let length = (piece.len() as u64).min(cut - start);
            size = size.max(start + length);
            pieces.insert(*start, piece[..length as usize].to_vec());
        }
        (!pieces.is_empty()).then_some(Unsynced { size, kept: self.kept, pieces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    /// Against a plain vector, with writes, resizes, reads and syncs as a seed says.
    #[test]
    fn it_is_as_a_file_is() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut disk, mut file) = (vec![7_u8; 20], vec![7_u8; 20]);
            let mut unsynced = Unsynced::over(20);
            for turn in 0..60_u8 {
                let at = random.random_range(0..40_usize);
                match random.random_range(0..10) {
                    0..6 => {
                        let data = vec![turn; random.random_range(0..12)];
                        if !data.is_empty() {
                            file.resize(file.len().max(at + data.len()), 0);
                            file[at..at + data.len()].copy_from_slice(&data);
                        }
                        unsynced.write(at as u64, &data);
                    }
                    6 => {
                        file.resize(at, 0);
                        unsynced.resize(at as u64);
                    }
                    7 => {
                        let (kept, pieces, size) = unsynced.steps();
                        disk.truncate(kept as usize);
                        for (start, piece) in pieces {
                            let (start, end) = (*start as usize, *start as usize + piece.len());
                            disk.resize(disk.len().max(end), 0);
                            disk[start..end].copy_from_slice(piece);
                        }
                        disk.resize(size as usize, 0);
                        assert_eq!(disk, file, "seed {seed}, turn {turn}");
                        unsynced = Unsynced::over(size);
                    }
                    _ => {
                        let from = at.min(disk.len());
                        let until = (at + 15).min(disk.len());
                        let read = unsynced.read(at as u64, 15, &disk[from..until]);
                        let right = &file[at.min(file.len())..(at + 15).min(file.len())];
                        assert_eq!(read, right, "seed {seed}, turn {turn}: {unsynced:?}");
                    }
                }
                assert_eq!(unsynced.size(), file.len() as u64, "seed {seed}, turn {turn}");
            }
        }
    }

    #[test]
    fn a_power_cut_may_leave_whole_sectors_of_the_beginning() {
        let mut unsynced = Unsynced::over(3);
        unsynced.write(3, &[1; 600]);
        unsynced.write(700, &[2; 1_000]);
        assert_eq!(unsynced.bytes(), 1_600);
        assert_eq!((unsynced.beginning(0), unsynced.beginning(508)), (None, None));
        let left = |bytes| unsynced.beginning(bytes).unwrap();
        assert_eq!((left(509).size(), left(509).bytes()), (512, 509));
        // The second sector has the end of the first piece and the beginning of the other.
        assert_eq!((left(700).size(), left(700).bytes()), (512, 509));
        assert_eq!((left(1_000).size(), left(1_000).bytes()), (1_024, 600 + 324));
        assert_eq!(left(1_600).size(), 1_700);
        assert_eq!(left(1_600).read(0, 9_999, b"123"), unsynced.read(0, 9_999, b"123"));
    }
}
