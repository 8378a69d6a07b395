//! Container logs in the CRI format (`TIME STREAM F|P LINE`), rotated by size.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Upstream's `containerLogMaxSize` and `containerLogMaxFiles`.
const ROTATE_BYTES: u64 = 10 << 20;
const FILES_MAX: u32 = 5;
/// Longest line written in one piece; longer ones are continued with the tag `P` (CRI).
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The log of one container; both streams write to it in the order they were read.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    rotate_bytes: u64,
}

/// What is left of a stream's last, unfinished line.
#[derive(Debug, Default)]
pub(crate) struct Partial(Vec<u8>);

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Log> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Log { path: path.to_path_buf(), file, written, rotate_bytes: ROTATE_BYTES })
    }

    /// Writes the whole lines of `partial` + `bytes`; keeps the rest for the next call.
    pub(crate) fn append(
        &mut self,
        time: &str,
        stream: &str,
        partial: &mut Partial,
        bytes: &[u8],
    ) -> io::Result<()> {
        partial.0.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(partial.0.len() + 64);
        let mut rest = partial.0.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            entry(&mut out, time, stream, 'F', &rest[..end]);
            rest = &rest[end + 1..];
        }
        while rest.len() >= LINE_BYTES_MAX {
            entry(&mut out, time, stream, 'P', &rest[..LINE_BYTES_MAX]);
            rest = &rest[LINE_BYTES_MAX..];
        }
        partial.0 = rest.to_vec();
        self.write(&out)
    }

    /// Writes what is left at the end of a stream.
    pub(crate) fn finish(
        &mut self,
        time: &str,
        stream: &str,
        partial: &mut Partial,
    ) -> io::Result<()> {
        if partial.0.is_empty() {
            return Ok(());
        }
        let mut out = Vec::new();
        entry(&mut out, time, stream, 'P', &std::mem::take(&mut partial.0));
        self.write(&out)
    }

    fn write(&mut self, out: &[u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        if self.written > 0 && self.written + out.len() as u64 > self.rotate_bytes {
            self.rotate()?;
        }
        self.file.write_all(out)?;
        self.written += out.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES_MAX - 1).rev() {
            let (from, to) = (rotated(&self.path, number), rotated(&self.path, number + 1));
            if from.exists() {
                std::fs::rename(from, to)?;
            }
        }
        std::fs::rename(&self.path, rotated(&self.path, 1))?;
        self.file = File::options().create(true).append(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

/// `PATH.1` is the youngest rotated file.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn entry(out: &mut Vec<u8>, time: &str, stream: &str, tag: char, line: &[u8]) {
    out.extend_from_slice(format!("{time} {stream} {tag} ").as_bytes());
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Log {
        Log::open(&dir.join("0.log")).unwrap()
    }

    fn text(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap_or_default()
    }

    #[test]
    fn whole_lines_are_full_and_the_rest_partial() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut partial) = (open(dir.path()), Partial::default());
        log.append("T", "stdout", &mut partial, b"one\ntw").unwrap();
        log.append("T", "stdout", &mut partial, b"o\n\nend").unwrap();
        log.finish("T", "stdout", &mut partial).unwrap();
        let expected = "T stdout F one\nT stdout F two\nT stdout F \nT stdout P end\n";
        assert_eq!(text(dir.path(), "0.log"), expected);
    }

    #[test]
    fn a_long_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut partial) = (open(dir.path()), Partial::default());
        log.append("T", "stdout", &mut partial, &[b'x'; LINE_BYTES_MAX + 3]).unwrap();
        log.append("T", "stdout", &mut partial, b"\n").unwrap();
        let tags: Vec<String> = text(dir.path(), "0.log")
            .lines()
            .map(|line| format!("{} {}", line.split(' ').nth(2).unwrap(), line.len()))
            .collect();
        assert_eq!(tags, [format!("P {}", LINE_BYTES_MAX + 11), "F 14".to_string()]);
    }

    #[test]
    fn rotation_keeps_the_youngest_files() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut partial) = (open(dir.path()), Partial::default());
        log.rotate_bytes = 20;
        for number in 0..9 {
            log.append("T", "stdout", &mut partial, format!("l{number}\n").as_bytes()).unwrap();
        }
        let kept: Vec<String> = ["0.log", "0.log.1", "0.log.2", "0.log.3", "0.log.4", "0.log.5"]
            .iter()
            .map(|name| text(dir.path(), name).replace("T stdout F ", "").replace('\n', ""))
            .collect();
        assert_eq!(kept, ["l8", "l7", "l6", "l5", "l4", ""]);
    }
}
