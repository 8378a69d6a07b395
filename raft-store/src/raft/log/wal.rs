//! Finds the first damaged record in RocksDB's write-ahead files, for the message with which a
//! member refuses to start. It reads only and repairs nothing.
//!
//! Format: RocksDB wiki, "Write Ahead Log File Format": blocks of 32 KiB; records of checksum,
//! length, type and payload that never cross a block.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

/// Where the first damaged record begins, if there is one.
pub(crate) fn first_damage(dir: &Path) -> io::Result<Option<(PathBuf, u64)>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    for path in files {
        if let Some(offset) = damage(&fs::read(&path)?) {
            return Ok(Some((path, offset)));
        }
    }
    Ok(None)
}

fn damage(file: &[u8]) -> Option<u64> {
    for (n, block) in file.chunks(BLOCK).enumerate() {
        let mut at = 0;
        while block.len() - at >= HEADER {
            let header = &block[at..at + HEADER];
            let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            if header.iter().all(|byte| *byte == 0) {
                break; // never written
            }
            let end = at + HEADER + length;
            let offset = Some((n * BLOCK + at) as u64);
            if end > block.len() || mask(crc32c::crc32c(&block[at + 6..end])) != stored {
                return offset;
            }
            at = end;
        }
    }
    None
}

/// RocksDB stores checksums rotated, since its files hold checksums of checksums.
fn mask(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}
