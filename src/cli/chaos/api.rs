//! One client of a run: asks one master, and goes on with the next when that one fails. It never
//! repeats a request by itself, and what had no clear answer is unknown, never failed.

use super::{metrics::Metrics, objects};
use crate::cli::client::{Connection, Target};
use ::chaos::{
    history::{Guard, Told, What},
    lease,
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
        (watchers, informers): (usize, usize),
    ) -> Shared {
        let (stop, started) = (CancellationToken::new(), Instant::now());
        let record = Mutex::new(Record::with_informers(watchers, informers));
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

    /// Where what a workload writes is.
    fn path_of(&self, workload: Kind) -> String {
        match workload {
            Kind::Lease => {
                format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
            }
            Kind::Binding => format!("/api/v1/namespaces/{}/pods", self.namespace),
            Kind::RollingUpdate => {
                format!("/apis/apps/v1/namespaces/{}/deployments", self.namespace)
            }
            _ => self.path(),
        }
    }
}

/// A write to be made.
pub(super) struct Write<'a> {
    pub(super) key: &'a str,
    /// `None`: it is to be deleted.
    pub(super) value: Option<String>,
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

    /// Nanoseconds since the start of the run.
    pub(super) fn now(&self) -> u64 {
        self.shared.now()
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
        let (method, path, body) = self.request(&write);
        let deletes = method == Method::DELETE;
        let what = (write.key, write.value, write.guard);
        let number = self.shared.record().write(self.workload, self.number, called, what);
        let told = judge(self.ask(method, &path, body).await, deletes);
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

    fn request(&self, write: &Write<'_>) -> (Method, String, Vec<u8>) {
        let all = self.shared.path_of(self.workload);
        let one = format!("{all}/{}", write.key);
        let Some(value) = &write.value else { return (Method::DELETE, one, Vec::new()) };
        let mut object = match self.workload {
            Kind::Lease => json!({"spec": spec_of_lease(lease::holder(value))}),
            Kind::Binding => objects::pod(),
            Kind::RollingUpdate if write.guard == Guard::Absent => {
                objects::deployment(write.key, value)
            }
            Kind::RollingUpdate => {
                return (Method::PATCH, one, objects::change(value).to_string().into_bytes());
            }
            _ => json!({"data": {"value": value}}),
        };
        object["metadata"] =
            json!({"name": write.key, "labels": {LABEL: self.workload.to_string()}});
        if let Guard::At(revision) = write.guard {
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
        }
        let (method, path) = match write.guard {
            Guard::Absent => (Method::POST, all),
            _ => (Method::PUT, one),
        };
        (method, path, object.to_string().into_bytes())
    }

    /// Who holds the lease, and as of which revision.
    pub(super) async fn lease(&mut self) -> Option<(Option<u64>, u64)> {
        let path = format!("{}/{}", self.shared.path_of(Kind::Lease), lease::LEASE);
        let (called, answer) = self.get(&path).await?;
        let read = match answer {
            Some((200, object)) => revision(&object).map(|at| (object, at)).ok_or(Outcome::Unknown),
            // It was made before the run: who does not see it sees what was before.
            Some((404, _)) => Ok((Value::Null, 0)),
            Some((400..500, _)) => Err(Outcome::Refused),
            _ => Err(Outcome::Unknown),
        };
        let what = read.as_ref().map_err(|outcome| *outcome).map(|(_, revision)| What::Read {
            prefix: lease::LEASE.to_owned(),
            revision: *revision,
            found: Vec::new(),
            linearizable: true,
        });
        self.has_read(called, what);
        let (object, revision) = read.ok()?;
        let holder = object["spec"]["holderIdentity"].as_str();
        Some((holder.and_then(|holder| holder.parse().ok()), revision))
    }

    /// Lists everything of the run, page by page if `limit` is not 0, with `resourceVersion` as said
    /// (empty: as new as can be); items and revision.
    pub(super) async fn list_all(&mut self, version: &str, limit: usize) -> Option<Found> {
        let path = format!("{}?labelSelector={LABEL}", self.shared.path());
        let (mut page, mut items, mut begun) = (String::new(), Vec::new(), None);
        let read = loop {
            let of_page = match page.as_str() {
                "" if version.is_empty() => String::new(),
                "" => format!("&resourceVersion={version}"),
                next => format!("&continue={next}"),
            };
            let (called, answer) = self.get(&format!("{path}&limit={limit}{of_page}")).await?;
            begun.get_or_insert(called);
            match &answer {
                Some((200, list)) => match found(list) {
                    Some((found, revision)) => {
                        items.extend(found);
                        page = list["metadata"]["continue"].as_str().unwrap_or("").to_owned();
                        if page.is_empty() {
                            break Ok((items, revision));
                        }
                    }
                    None => break Err(Outcome::Unknown),
                },
                Some((400..500, _)) => break Err(Outcome::Refused),
                _ => break Err(Outcome::Unknown),
            }
        };
        let what = read.clone().map(|(found, revision)| What::Read {
            prefix: String::new(),
            revision,
            found,
            linearizable: version.is_empty(),
        });
        self.has_read(begun?, what);
        read.ok()
    }

    /// One of what its workload writes, by name: the answer as [`Client::ask`] has it; `None` if the
    /// load stopped first. No check looks at it.
    pub(super) async fn look(&mut self, key: &str) -> Option<Option<(u16, Value)>> {
        let path = format!("{}/{key}", self.shared.path_of(self.workload));
        let (called, answer) = self.get(&path).await?;
        let read = match &answer {
            Some((200 | 404, _)) => Ok(What::Read {
                prefix: key.to_owned(),
                revision: 0,
                found: Vec::new(),
                linearizable: false,
            }),
            Some((400..500, _)) => Err(Outcome::Refused),
            _ => Err(Outcome::Unknown),
        };
        self.has_read(called, read);
        Some(answer)
    }

    /// When it was asked, and the answer as [`Client::ask`] has it; `None` if the load stopped first.
    async fn get(&mut self, path: &str) -> Option<(u64, Option<(u16, Value)>)> {
        let called = self.shared.now();
        if !self.connect().await {
            return None;
        }
        Some((called, self.ask(Method::GET, path, Vec::new()).await))
    }

    fn has_read(&self, called: u64, what: Result<What, Outcome>) {
        let now = self.shared.now();
        let outcome = what.as_ref().err().copied().unwrap_or(Outcome::Acknowledged);
        self.shared.metrics.answered(self.workload, "read", outcome, now - called);
        self.shared.record().read(self.workload, self.number, (called, now), what);
    }

    /// Lists what a workload has written, linearizably: `(name, value, revision)`, and records it.
    pub(super) async fn list(&mut self, of: Kind) -> Option<Vec<(String, String, u64)>> {
        let path = format!("{}?labelSelector={LABEL}%3D{of}", self.shared.path());
        let (called, answer) = self.get(&path).await?;
        let read = match &answer {
            Some((200, list)) => found(list).ok_or(Outcome::Unknown),
            Some((400..500, _)) => Err(Outcome::Refused),
            _ => Err(Outcome::Unknown),
        };
        let what = read.clone().map(|(found, revision)| What::Read {
            prefix: of.to_string(),
            revision,
            found,
            linearizable: true,
        });
        self.has_read(called, what);
        read.ok().map(|(found, _)| found)
    }
}

/// As client-go writes it: held by nobody, it names nobody and is over soon.
fn spec_of_lease(holder: Option<u64>) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    match holder {
        Some(holder) => json!({
            "holderIdentity": holder.to_string(),
            "leaseDurationSeconds": lease::LENGTH.as_secs(),
            "renewTime": now,
        }),
        None => json!({"leaseDurationSeconds": 1, "renewTime": now}),
    }
}

/// What an answer to a write means: a client's error and "too many requests" say that nothing was done,
/// a server's error says nothing.
/// An acknowledged deletion names no revision.
fn judge(answer: Option<(u16, Value)>, deletes: bool) -> Told {
    match answer {
        Some((200, _)) if deletes => Told::Done(None),
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
pub(super) type Found = (Vec<(String, String, u64)>, u64);
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
        let judge = |answer| super::judge(answer, false);
        assert_eq!(judge(Some((201, object))), Told::Done(Some(12)));
        for refused in [404, 409, 422, 429] {
            assert_eq!(judge(Some((refused, Value::Null))), Told::Refused);
        }
        for unknown in [500, 503, 504] {
            assert_eq!(judge(Some((unknown, Value::Null))), Told::Unknown);
        }
        assert_eq!(judge(Some((200, Value::Null))), Told::Unknown, "an answer cut off");
        assert_eq!(judge(None), Told::Unknown);
        let deleted = |code| super::judge(Some((code, json!({"status": "Success"}))), true);
        assert_eq!((deleted(200), deleted(404)), (Told::Done(None), Told::Refused));
        assert_eq!(deleted(503), Told::Unknown);
    }

    #[test]
    fn a_list_is_read_as_of_its_revision() {
        let list = json!({"metadata": {"resourceVersion": "9"}, "items": [
            {"metadata": {"name": "register-0", "resourceVersion": "7"}, "data": {"value": "a"}}]});
        assert_eq!(found(&list), Some((vec![("register-0".into(), "a".into(), 7)], 9)));
        assert_eq!(found(&json!({"items": []})), None);
    }
}
