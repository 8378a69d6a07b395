//! The file of the audit log: one thread writes it and rotates it.

use prometheus::{IntCounter, Registry};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};
use tokio::sync::mpsc;

/// Lines that wait to be written: a few megabytes of metadata (upstream's batch buffer).
const LINES_QUEUED_MAX: usize = 10_000;

/// Where the log goes and when its file is changed (kube-apiserver's --audit-log-* flags).
#[derive(Clone, Debug)]
pub struct LogFile {
    /// `-` is standard output.
    pub path: PathBuf,
    /// The file is changed before it grows beyond this.
    pub bytes_max: u64,
    /// Older files kept; 0 keeps all.
    pub backups_max: usize,
    /// Older files are removed after this; 0 never.
    pub backup_age_max: Duration,
}

/// The queue in front of the file.
pub(super) struct Lines {
    queue: mpsc::Sender<Vec<u8>>,
    written: IntCounter,
    lost: IntCounter,
}

impl Lines {
    pub(super) fn open(file: LogFile, registry: &Registry) -> io::Result<Lines> {
        let (queue, mut lines) = mpsc::channel::<Vec<u8>>(LINES_QUEUED_MAX);
        let mut writer = Writer::open(file)?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).map_err(io::Error::other)?;
            registry.register(Box::new(counter.clone())).map_err(io::Error::other)?;
            io::Result::Ok(counter)
        };
        let written = counter("apiserver_audit_event_total", "Entries of the audit log.")?;
        let lost =
            counter("apiserver_audit_error_total", "Entries of the audit log that were lost.")?;
        let failed = lost.clone();
        // Ends with the last sender.
        thread::Builder::new().name("audit-log".into()).spawn(move || {
            while let Some(line) = lines.blocking_recv() {
                if let Err(error) = writer.write(&line) {
                    failed.inc();
                    tracing::error!(%error, "the audit log cannot be written");
                }
            }
        })?;
        Ok(Lines { queue, written, lost })
    }

    pub(super) async fn put(&self, line: Vec<u8>) {
        match self.queue.send(line).await {
            Ok(()) => self.written.inc(),
            Err(_) => self.lost.inc(),
        }
    }

    pub(super) fn put_now(&self, line: Vec<u8>) {
        match self.queue.try_send(line) {
            Ok(()) => self.written.inc(),
            Err(_) => self.lost.inc(),
        }
    }
}

struct Writer {
    settings: LogFile,
    /// `None`: standard output.
    file: Option<File>,
    bytes: u64,
}

impl Writer {
    fn open(settings: LogFile) -> io::Result<Writer> {
        if settings.path == Path::new("-") {
            return Ok(Writer { settings, file: None, bytes: 0 });
        }
        if let Some(directory) = settings.path.parent().filter(|it| !it.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let file = open(&settings.path)?;
        let bytes = file.metadata()?.len();
        Ok(Writer { settings, file: Some(file), bytes })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return io::stdout().lock().write_all(line) };
        let length = line.len() as u64;
        if self.bytes > 0 && self.bytes + length > self.settings.bytes_max {
            let stamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.9f").to_string();
            fs::rename(&self.settings.path, backup(&self.settings.path, &stamp))?;
            *file = open(&self.settings.path)?;
            self.bytes = 0;
            self.settings.remove_old()?;
        }
        file.write_all(line)?;
        self.bytes += length;
        Ok(())
    }
}

/// Only its owner reads who did what.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// `audit-TIME.log` beside `audit.log`.
fn backup(path: &Path, stamp: &str) -> PathBuf {
    let part =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (part(path.file_stem()), part(path.extension()));
    let dot = if extension.is_empty() { "" } else { "." };
    path.with_file_name(format!("{stem}-{stamp}{dot}{extension}"))
}

impl LogFile {
    fn remove_old(&self) -> io::Result<()> {
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned() + "-";
        let mut backups = Vec::new();
        for entry in fs::read_dir(directory.unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(&stem) && path.extension() == self.path.extension() {
                backups.push(path);
            }
        }
        // Their names sort as they are old.
        backups.sort();
        let too_many = match self.backups_max {
            0 => 0,
            most => backups.len().saturating_sub(most),
        };
        let now = SystemTime::now();
        for (index, path) in backups.iter().enumerate() {
            let age = fs::metadata(path)?.modified()?;
            let age = now.duration_since(age).unwrap_or_default();
            let too_old = !self.backup_age_max.is_zero() && age > self.backup_age_max;
            if index < too_many || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_changed_before_it_grows_too_long() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = LogFile {
            path: directory.path().join("audit.log"),
            bytes_max: 10,
            backups_max: 2,
            backup_age_max: Duration::ZERO,
        };
        let mut writer = Writer::open(settings.clone()).expect("opened");
        for number in 0..5 {
            writer.write(format!("line {number}\n").as_bytes()).expect("written");
        }
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(fs::read_to_string(&settings.path).expect("read"), "line 4\n");
        let newest = directory.path().join(&names[1]);
        assert_eq!(fs::read_to_string(newest).expect("read"), "line 3\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(&settings.path).expect("metadata").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}
