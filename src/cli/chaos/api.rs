//! One client of a run: asks one master, and goes on with the next when that one fails. It never
//! repeats a request by itself, and what had no clear answer is unknown, never failed.

use super::metrics::Metrics;
use crate::cli::client::{Connection, Target};
use ::chaos::{
    history::{Guard, Told, What},
    record::{Outcome, Record},
    scenario::Kind,
};
use http::Method;
use serde_json::{Value, json};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// A request that has no answer by then may be done or not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A master that does not take the connection by then is not there.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two tries to connect, so that a cluster without masters is not hammered.
pub(super) const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// The label of everything that a run writes; its value is the workload.
pub(super) const LABEL: &str = "coxswain.io/chaos";

/// What all parts of a run share.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) namespace: String,
    pub(super) metrics: Metrics,
    /// The load stops.
    pub(super) stop: CancellationToken,
    pub(super) seed: u64,
    started: Instant,
    record: Mutex<Record>,
}

impl Shared {
    pub(super) fn new(
        target: Target,
        namespace: String,
        metrics: Metrics,
        seed: u64,
        watchers: usize,
    ) -> Shared {
        let (stop, started) = (CancellationToken::new(), Instant::now());
        let record = Mutex::new(Record::new(watchers));
        Shared { target, namespace, metrics, stop, seed, started, record }
    }

    /// Nanoseconds since the start of the run.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Held for moments only.
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }
}

/// A write to be made.
pub(super) struct Write<'a> {
    pub(super) key: &'a str,
    pub(super) value: String,
    pub(super) guard: Guard,
}

pub(super) struct Client<'a> {
    pub(super) shared: &'a Shared,
    workload: Kind,
    number: u64,
    server: usize,
    connection: Option<Connection>,
    /// While this is not cancelled it goes on.
    stop: CancellationToken,
}

impl<'a> Client<'a> {
    /// Client `number` of the whole run; it begins with the master of that number.
    pub(super) fn new(shared: &'a Shared, workload: Kind, number: u64) -> Client<'a> {
        let stop = shared.stop.clone();
        Client { shared, workload, number, server: number as usize, connection: None, stop }
    }

    /// One that goes on when the load has stopped, as long as its caller waits.
    pub(super) fn patient(shared: &'a Shared, workload: Kind, number: u64) -> Client<'a> {
        Client { stop: CancellationToken::new(), ..Client::new(shared, workload, number) }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next master from now on.
    fn move_on(&mut self) {
        self.connection = None;
        self.server += 1;
    }

    /// Until there is a connection to some master; `false` if the load stops first.
    async fn connect(&mut self) -> bool {
        while self.connection.is_none() {
            let servers = &self.shared.target.servers;
            let server = &servers[self.server % servers.len()];
            let open = Connection::open(server, self.shared.target.tls.clone());
            match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
                Ok(Ok(connection)) => self.connection = Some(connection),
                Ok(Err(_)) | Err(_) => {
                    self.move_on();
                    tokio::select! {
                        () = tokio::time::sleep(CONNECT_PAUSE) => {}
                        () = self.stop.cancelled() => return false,
                    }
                }
            }
        }
        true
    }

    /// The answer's code and body; `None`: no answer, which says nothing of what was done.
    async fn ask(&mut self, method: Method, path: &str, body: Vec<u8>) -> Option<(u16, Value)> {
        let connection = self.connection.as_mut()?;
        let asked = connection.call(method, path, body);
        let answer = match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Ok((code, body))) => Some((code, serde_json::from_slice(&body).unwrap_or_default())),
            Ok(Err(_)) | Err(_) => None,
        };
        if answer.as_ref().is_none_or(|(code, _)| *code >= 500 || *code == 429) {
            self.move_on();
        }
        answer
    }

    /// Writes once and records what came of it; `None` if the load stopped before it was asked.
    pub(super) async fn write(&mut self, write: Write<'_>) -> Option<Told> {
        let called = self.shared.now();
        if !self.connect().await {
            return None;
        }
        let object = config_map(self.workload, &write);
        let (method, path) = match write.guard {
            Guard::Absent => (Method::POST, self.shared.path()),
            _ => (Method::PUT, format!("{}/{}", self.shared.path(), write.key)),
        };
        let what = (write.key, write.value, write.guard);
        let number = self.shared.record().write(self.workload, self.number, called, what);
        let told = judge(self.ask(method, &path, object.to_string().into_bytes()).await);
        let now = self.shared.now();
        self.shared.record().told(number, now, told.clone());
        let outcome = match told {
            Told::Done(_) => Outcome::Acknowledged,
            Told::Refused => Outcome::Refused,
            Told::Unknown => Outcome::Unknown,
        };
        self.shared.metrics.answered(self.workload, "write", outcome, now - called);
        Some(told)
    }

    /// Lists what a workload has written, linearizably: `(name, value, revision)`, and records it.
    pub(super) async fn list(&mut self, of: Kind) -> Option<Vec<(String, String, u64)>> {
        let called = self.shared.now();
        if !self.connect().await {
            return None;
        }
        let path = format!("{}?labelSelector={LABEL}%3D{of}", self.shared.path());
        let answer = self.ask(Method::GET, &path, Vec::new()).await;
        let read = match &answer {
            Some((200, list)) => found(list).ok_or(Outcome::Unknown),
            Some((400..500, _)) => Err(Outcome::Refused),
            _ => Err(Outcome::Unknown),
        };
        let now = self.shared.now();
        let outcome = read.as_ref().err().copied().unwrap_or(Outcome::Acknowledged);
        self.shared.metrics.answered(self.workload, "read", outcome, now - called);
        let what = read.clone().map(|(found, revision)| What::Read {
            prefix: of.to_string(),
            revision,
            found,
            linearizable: true,
        });
        self.shared.record().read(self.workload, self.number, (called, now), what);
        read.ok().map(|(found, _)| found)
    }
}

fn config_map(workload: Kind, write: &Write<'_>) -> Value {
    let mut object = json!({
        "metadata": {"name": write.key, "labels": {LABEL: workload.to_string()}},
        "data": {"value": write.value},
    });
    if let Guard::At(revision) = write.guard {
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
    }
    object
}

/// What an answer to a write means: a client's error and "too many requests" say that nothing was done,
/// a server's error says nothing.
fn judge(answer: Option<(u16, Value)>) -> Told {
    match answer {
        Some((200 | 201, object)) => {
            revision(&object).map_or(Told::Unknown, |it| Told::Done(Some(it)))
        }
        Some((400..500, _)) => Told::Refused,
        _ => Told::Unknown,
    }
}

pub(super) fn revision(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Items and revision of a list; `None` if it is no list of ours.
type Found = (Vec<(String, String, u64)>, u64);
fn found(list: &Value) -> Option<Found> {
    let item = |item: &Value| {
        let name = item["metadata"]["name"].as_str()?.to_owned();
        Some((name, item["data"]["value"].as_str()?.to_owned(), revision(item)?))
    };
    let items: Option<Vec<_>> = list["items"].as_array()?.iter().map(item).collect();
    Some((items?, revision(list)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_no_is_a_refusal() {
        let object = json!({"metadata": {"resourceVersion": "12"}});
        assert_eq!(judge(Some((201, object))), Told::Done(Some(12)));
        for refused in [404, 409, 422, 429] {
            assert_eq!(judge(Some((refused, Value::Null))), Told::Refused);
        }
        for unknown in [500, 503, 504] {
            assert_eq!(judge(Some((unknown, Value::Null))), Told::Unknown);
        }
        assert_eq!(judge(Some((200, Value::Null))), Told::Unknown, "an answer cut off");
        assert_eq!(judge(None), Told::Unknown);
    }

    #[test]
    fn a_list_is_read_as_of_its_revision() {
        let list = json!({"metadata": {"resourceVersion": "9"}, "items": [
            {"metadata": {"name": "register-0", "resourceVersion": "7"}, "data": {"value": "a"}}]});
        assert_eq!(found(&list), Some((vec![("register-0".into(), "a".into(), 7)], 9)));
        assert_eq!(found(&json!({"items": []})), None);
    }
}
