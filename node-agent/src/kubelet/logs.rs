//! `/containerLogs`: a container's output from its CRI log files, as `kubectl logs` wants it.

use super::{Kubelet, Refusal};
use crate::runtime::rotated;
use axum::{
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How often a followed log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// Pieces that wait for a slow reader.
const QUEUE_MAX: usize = 16;
const ROTATED_MAX: u32 = 4;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<usize>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<usize>,
}

pub(super) async fn container_logs(
    State(kubelet): State<Kubelet>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(options): Query<Options>,
) -> Result<Response, Refusal> {
    let pod = kubelet.pod(&namespace, &name)?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let directory = kubelet.log_root.join(format!("{namespace}_{name}_{uid}")).join(&container);
    let attempts = attempts(&directory);
    let chosen = if options.previous { attempts.iter().rev().nth(1) } else { attempts.last() };
    let Some(attempt) = chosen else { return Err(no_log(&pod, &container, options.previous)) };
    let path = directory.join(format!("{attempt}.log"));
    let (queue, pieces) = mpsc::channel(QUEUE_MAX);
    let follow = options.follow && !options.previous;
    let attempt = *attempt;
    tokio::spawn(async move {
        let mut source = Source::new(path, options);
        loop {
            // Asked before reading: what it wrote before it ended is in the file by then.
            let runs = follow && kubelet.still_runs(&uid, &container, attempt).await;
            let (moved, piece) = match tokio::task::spawn_blocking(move || {
                let piece = source.read();
                (source, piece)
            })
            .await
            {
                Ok(done) => done,
                Err(_) => return,
            };
            source = moved;
            let piece: Result<Bytes, io::Error> = piece.map(Bytes::from);
            let failed = piece.is_err();
            let empty = piece.as_ref().is_ok_and(Bytes::is_empty);
            if !empty && queue.send(piece).await.is_err() {
                return;
            }
            if failed || !runs || source.is_full() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
                () = queue.closed() => return,
            }
        }
    });
    let body = Body::from_stream(ReceiverStream::new(pieces));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

impl Kubelet {
    async fn still_runs(&self, uid: &str, container: &str, attempt: u32) -> bool {
        let Ok(sandbox) = self.runtime.sandbox(uid).await else { return false };
        sandbox
            .containers
            .iter()
            .any(|one| one.name == container && one.attempt == attempt && one.state.is_running())
    }
}

/// Numbers of the log files there are, in order.
fn attempts(directory: &FilePath) -> Vec<u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Upstream's texts.
fn no_log(pod: &Pod, container: &str, previous: bool) -> Refusal {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if previous {
        let text = format!("previous terminated container {container:?} in pod {name:?} not found");
        return Refusal::bad_request(text);
    }
    let status = pod.status.as_ref();
    let all = status.iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    });
    let waiting =
        |status: &ContainerStatus| status.state.as_ref()?.waiting.as_ref()?.reason.clone();
    let reason = all.filter(|status| status.name == container).find_map(waiting);
    let reason = reason.unwrap_or_else(|| "ContainerCreating".to_string());
    let text = format!("container {container:?} in pod {name:?} is waiting to start: {reason}");
    Refusal::bad_request(text)
}

/// A log being read: what of it has been given out.
struct Source {
    path: PathBuf,
    options: Options,
    since: Option<Timestamp>,
    /// The file being read and its inode; rotation renames it away.
    open: Option<(File, u64)>,
    begun: bool,
    unfinished: Vec<u8>,
    sent_bytes: usize,
    /// The last entry was the beginning of a longer line.
    inside_line: bool,
}

impl Source {
    fn new(path: PathBuf, options: Options) -> Source {
        let ago = options.since_seconds.map(|seconds| {
            let now = Timestamp::now();
            now.checked_sub(jiff::SignedDuration::from_secs(seconds.max(0))).unwrap_or(now)
        });
        Source {
            path,
            since: ago.or(options.since_time),
            options,
            open: None,
            begun: false,
            unfinished: Vec::new(),
            sent_bytes: 0,
            inside_line: false,
        }
    }

    fn is_full(&self) -> bool {
        self.options.limit_bytes.is_some_and(|limit| self.sent_bytes >= limit)
    }

    /// What is new since the last call.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut raw = std::mem::take(&mut self.unfinished);
        if !self.begun {
            self.begun = true;
            for number in (1..=ROTATED_MAX).rev() {
                if let Ok(mut file) = File::open(rotated(&self.path, number)) {
                    file.read_to_end(&mut raw)?;
                }
            }
        }
        self.read_open(&mut raw)?;
        if self.was_rotated() {
            // The old file has been read to its end above.
            self.open = None;
            self.read_open(&mut raw)?;
        }
        let whole = raw.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.unfinished = raw.split_off(whole);
        let mut entries: Vec<Entry<'_>> = raw
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(Entry::parse)
            .filter(|entry| self.since.is_none_or(|since| entry.is_after(since)))
            .collect();
        if let Some(lines) = self.options.tail_lines.take() {
            keep_last(&mut entries, lines);
        }
        let mut out = Vec::new();
        for entry in entries {
            if self.options.timestamps && !self.inside_line {
                out.extend_from_slice(entry.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(entry.text);
            self.inside_line = entry.partial;
            if !entry.partial {
                out.push(b'\n');
            }
        }
        if let Some(limit) = self.options.limit_bytes {
            out.truncate(limit.saturating_sub(self.sent_bytes));
        }
        self.sent_bytes += out.len();
        Ok(out)
    }

    fn read_open(&mut self, raw: &mut Vec<u8>) -> io::Result<()> {
        if self.open.is_none() {
            match File::open(&self.path) {
                Ok(file) => {
                    let inode = file.metadata()?.ino();
                    self.open = Some((file, inode));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if let Some((file, _)) = &mut self.open {
            let at = file.stream_position()?;
            file.seek(SeekFrom::Start(at))?;
            file.read_to_end(raw)?;
        }
        Ok(())
    }

    fn was_rotated(&self) -> bool {
        let now = std::fs::metadata(&self.path).map(|metadata| metadata.ino());
        matches!((&self.open, now), (Some((_, inode)), Ok(now)) if *inode != now)
    }
}

/// One entry of a CRI log.
struct Entry<'a> {
    time: &'a str,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Entry<'a>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let _stream = parts.next()?;
        let partial = parts.next()? == b"P";
        Some(Entry { time, partial, text: parts.next().unwrap_or_default() })
    }

    fn is_after(&self, since: Timestamp) -> bool {
        self.time.parse::<Timestamp>().is_ok_and(|time| time >= since)
    }
}

/// The entries of the last `lines` lines; a line may have several.
fn keep_last(entries: &mut Vec<Entry<'_>>, lines: usize) {
    let mut left = lines;
    let mut from = entries.len();
    while from > 0 {
        let ends_line = !entries[from - 1].partial || from == entries.len();
        if ends_line {
            if left == 0 {
                break;
            }
            left -= 1;
        }
        from -= 1;
    }
    entries.drain(..from);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2030-01-01T00:00:01.000000000Z stdout F one\n\
                       2030-01-01T00:00:02.000000000Z stdout P tw\n\
                       2030-01-01T00:00:02.000000000Z stdout F o\n\
                       2030-01-01T00:00:03.000000000Z stderr F three\n\
                       2030-01-01T00:00:04.000000000Z std";

    fn check(options: Options) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        String::from_utf8(Source::new(path, options).read().unwrap()).unwrap()
    }

    #[test]
    fn whole_lines_and_their_options() {
        let none = Options::default();
        assert_eq!(check(none.clone()), "one\ntwo\nthree\n");
        assert_eq!(check(Options { tail_lines: Some(2), ..none.clone() }), "two\nthree\n");
        assert_eq!(check(Options { tail_lines: Some(0), ..none.clone() }), "");
        assert_eq!(check(Options { limit_bytes: Some(5), ..none.clone() }), "one\nt");
        let since = Some("2030-01-01T00:00:03Z".parse().unwrap());
        assert_eq!(check(Options { since_time: since, ..none.clone() }), "three\n");
        let text = check(Options { timestamps: true, tail_lines: Some(2), ..none });
        assert_eq!(
            text,
            "2030-01-01T00:00:02.000000000Z two\n2030-01-01T00:00:03.000000000Z three\n"
        );
    }

    #[test]
    fn following_across_a_rotation_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "T stdout F one\n").unwrap();
        let mut source = Source::new(path.clone(), Options::default());
        let mut read = || String::from_utf8(source.read().unwrap()).unwrap();
        assert_eq!(read(), "one\n");
        let append = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        };
        append("T stdout F two\n");
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        append("T stdout F three\n");
        assert_eq!(read(), "two\nthree\n");
        append("T stdout F four\n");
        assert_eq!(read(), "four\n");
    }
}
