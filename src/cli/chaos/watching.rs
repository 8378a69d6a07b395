//! The clients that watch: each follows everything the run writes, from master to master, and never
//! lists again.

use super::api::{CONNECT_PAUSE, CONNECT_TIMEOUT, LABEL, Shared, revision};
use crate::cli::client::Connection;
use ::chaos::{Violation, history::Event, record::shown, watched::Seen};
use anyhow::Result;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Everything is asked of another master after that, also while all is well.
const MOVE_AFTER: Duration = Duration::from_secs(5);
/// So long without any change, the master may be gone: the load writes all the time.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Starts the watchers: number N begins at master N, with what is newer than `from`. They go on until
/// the tasks are ended.
pub(super) fn start(shared: &Arc<Shared>, count: usize, from: u64, tasks: &mut JoinSet<()>) {
    for number in 0..count {
        let shared = shared.clone();
        shared.record().watchers[number].push(Seen::From(from));
        tasks.spawn(async move { follow(&shared, number).await });
    }
}

async fn follow(shared: &Shared, number: usize) {
    let servers = &shared.target.servers;
    for turn in number.. {
        let after = shown(&shared.record().watchers[number]);
        let take = &mut |seen| shared.record().watchers[number].push(seen);
        let server = &servers[turn % servers.len()];
        let (path, begun) = (shared.path(), Some(Seen::From(after)));
        match watch(shared, server, (&path, after, begun), MOVE_AFTER, read, take).await {
            Ok(Ended::GoOn) => {}
            Ok(Ended::Lost(why)) => {
                let what = format!("watcher {} lost its place: {why}", number + 1);
                shared.record().broken.push(Violation::new("watches", what));
                return;
            }
            Err(error) => tracing::debug!(%error, number, "a watch ended"),
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

pub(super) enum Ended {
    GoOn,
    /// The master says that what comes next is no longer there.
    Lost(String),
}

/// One watch on one master of what is newer than `after`, for so long; or until it falls silent. It
/// takes `begun` first, once the master shows anything.
pub(super) async fn watch<T>(
    shared: &Shared,
    server: &str,
    (path, after, begun): (&str, u64, Option<T>),
    lasts: Duration,
    read: fn(&str, &Value) -> Shown<T>,
    take: &mut (dyn FnMut(T) + Send),
) -> Result<Ended> {
    let open = Connection::open(server, shared.target.tls.clone());
    let mut connection = tokio::time::timeout(CONNECT_TIMEOUT, open).await??;
    let path = format!(
        "{path}?watch=1&allowWatchBookmarks=true&labelSelector={}&resourceVersion={after}",
        LABEL.replace('/', "%2F")
    );
    let asked = connection.send(Method::GET, &path, Vec::new());
    let (code, mut stream) = tokio::time::timeout(SILENCE_MAX, asked).await??;
    match code {
        200 => begun.into_iter().for_each(&mut *take),
        410 => return Ok(Ended::Lost(format!("{server}: 410 after revision {after}"))),
        _ => anyhow::bail!("{server}: HTTP {code}"),
    }
    let (begun, mut buffer) = (Instant::now(), Vec::new());
    while begun.elapsed() < lasts {
        let frame = tokio::time::timeout(SILENCE_MAX, stream.frame()).await?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match event(&serde_json::from_slice(&line)?, read) {
                Shown::Seen(seen) => take(seen),
                Shown::Gone(why) => return Ok(Ended::Lost(format!("{server}: {why}"))),
                Shown::Odd(why) => anyhow::bail!("{server}: {why}"),
            }
        }
    }
    Ok(Ended::GoOn)
}

#[derive(Debug, PartialEq)]
pub(super) enum Shown<T> {
    Seen(T),
    Gone(String),
    Odd(String),
}

fn event<T>(event: &Value, read: fn(&str, &Value) -> Shown<T>) -> Shown<T> {
    let (kind, object) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
    if kind == "ERROR" {
        let message = object["message"].as_str().unwrap_or_default().to_owned();
        return if object["code"] == 410 { Shown::Gone(message) } else { Shown::Odd(message) };
    }
    read(kind, object)
}

/// An event of a ConfigMap.
pub(super) fn read(kind: &str, object: &Value) -> Shown<Seen> {
    let (Some(revision), key) = (revision(object), object["metadata"]["name"].as_str()) else {
        return Shown::Odd(format!("no revision: {object}"));
    };
    let value = object["data"]["value"].as_str().map(str::to_owned);
    let event = |value| {
        let key = key.unwrap_or_default().to_owned();
        Shown::Seen(Seen::Event(Event { revision, place: 0, key, value, term: 0 }))
    };
    match kind {
        "ADDED" | "MODIFIED" => event(value),
        "DELETED" => event(None),
        "BOOKMARK" => Shown::Seen(Seen::UpTo(revision)),
        other => Shown::Odd(format!("an event of type {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_read_as_the_checks_want_them() {
        let object = json!({"metadata": {"name": "counter", "resourceVersion": "7"},
                            "data": {"value": "1 2-3"}});
        let told = |kind: &str| event(&json!({"type": kind, "object": object}), read);
        let shown = |value: Option<&str>| {
            let (key, value) = ("counter".into(), value.map(str::to_owned));
            Shown::Seen(Seen::Event(Event { revision: 7, place: 0, key, value, term: 0 }))
        };
        assert_eq!(told("MODIFIED"), shown(Some("1 2-3")));
        assert_eq!(told("DELETED"), shown(None));
        assert_eq!(told("BOOKMARK"), Shown::Seen(Seen::UpTo(7)));
        assert!(matches!(told("RENAMED"), Shown::Odd(_)));
        let error = |code: u16| event(&json!({"type": "ERROR", "object": {"code": code}}), read);
        assert!(matches!(error(410), Shown::Gone(_)));
        assert!(matches!(error(500), Shown::Odd(_)));
    }
}
