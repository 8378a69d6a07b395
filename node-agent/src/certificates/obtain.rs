//! From a key to its certificate: asks, waits until somebody approved and signed, writes both files.
//! What is waited for is said, once and then twice a minute.

use super::{Clock, files::Facts, files::Place, request::Wanted};
use crate::credentials;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use k8s::{Api, Events, Object, Request, Resource, Status, WatchEvent, WatchRequest};
use rcgen::KeyPair;
use serde_json::Value;
use std::{io, path::PathBuf, time::Duration};

const REQUESTS: Resource = Resource::new("certificates.k8s.io", "v1", "certificatesigningrequests");
const NODES: Resource = Resource::new("", "v1", "nodes");

/// How long a certificate is waited for; upstream's bound, which leaves people time to approve it.
const WAIT: Duration = Duration::from_secs(15 * 60);
/// After so long it is said again what is waited for.
const REMIND: Duration = Duration::from_secs(30);
/// Before a watch that ended is opened anew, and a request whose fate is unknown is sent again.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries of a request whose fate is unknown: a leader is followed by another within one of them.
const TRIES: u32 = 3;
/// Between two looks at the own Node: the first pause, doubled up to the second.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("request {name} was denied: {why}")]
    Denied { name: String, why: String },
    #[error("request {name} cannot be signed: {why}")]
    Failed { name: String, why: String },
    #[error("request {0} was deleted before it was answered")]
    Gone(String),
    #[error("no certificate within 15 minutes: {0}")]
    Late(String),
    #[error("the request was refused")]
    Refused(#[source] Status),
    #[error("what was signed is of no use: {0}")]
    Unfit(String),
    #[error("cannot make a request: {0}")]
    Request(#[from] rcgen::Error),
    #[error("cannot write {path}")]
    Disk { path: PathBuf, source: io::Error },
}

impl Error {
    /// Nothing will come of the same request; the next one is for another key.
    fn ends_the_request(&self) -> bool {
        use Error::{Denied, Failed, Gone, Unfit};
        matches!(self, Denied { .. } | Failed { .. } | Gone(_) | Unfit(_))
    }
}

/// Gets a certificate for a new key and puts both where they belong. Interrupted, it goes on with the
/// same key and the same request.
pub(super) async fn obtain(
    api: &dyn Api,
    wanted: &Wanted,
    place: &Place,
    clock: &Clock,
) -> Result<Facts, Error> {
    let disk = |source| Error::Disk { path: place.key.clone(), source };
    let mut progress = Progress { what: wanted.what(), said: String::new() };
    let asked = tokio::time::timeout(WAIT, ask(api, wanted, place, &mut progress)).await;
    let done = asked.unwrap_or(Err(Error::Late(progress.said))).and_then(|(key, cert)| {
        let facts = fit(wanted, &key, &cert, clock().as_second()).map_err(Error::Unfit)?;
        place.install(&cert).map_err(disk)?;
        Ok(facts)
    });
    if done.as_ref().is_err_and(Error::ends_the_request) {
        place.forget_next_key().map_err(disk)?;
    }
    done
}

/// The key and its certificate, both PEM.
async fn ask(
    api: &dyn Api,
    wanted: &Wanted,
    place: &Place,
    progress: &mut Progress,
) -> Result<(String, String), Error> {
    until_the_node_says(api, wanted, progress).await?;
    let key = next_key(place)?;
    let request = wanted.request(&key)?;
    let name = request.name().to_string();
    create(api, request).await?;
    let cert = issued(api, &name, progress).await?;
    Ok((key.serialize_pem(), cert))
}

/// Masters approve what the Node says of itself, and nothing else.
async fn until_the_node_says(
    api: &dyn Api,
    wanted: &Wanted,
    progress: &mut Progress,
) -> Result<(), Error> {
    let names = wanted.names();
    let mut pause = LOOK.0;
    while !names.is_empty() {
        let missing = match api.call(Request::get(NODES, "", &wanted.node)).await {
            Ok(node) => unsaid(&node, &names),
            Err(status) if is_final(&status) => return Err(Error::Refused(status)),
            Err(status) => Some(status.to_string()),
        };
        let Some(missing) = missing else { break };
        // For a moment that is so at every start.
        if pause > PAUSE {
            progress.say(format!("the Node does not say where it is yet: {missing}"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK.1);
    }
    Ok(())
}

/// Which of `names` is not among the addresses of the Node.
fn unsaid(node: &Object, names: &[String]) -> Option<String> {
    let said = node.at("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    let said: Vec<String> =
        said.filter_map(|one| Some(one["address"].as_str()?.to_ascii_lowercase())).collect();
    names.iter().find(|name| !said.contains(name)).map(|name| format!("{name} is missing"))
}

/// The one that waits already, if it can be read.
fn next_key(place: &Place) -> Result<KeyPair, Error> {
    let disk = |source| Error::Disk { path: place.key.clone(), source };
    let waiting = place.read_next_key().map_err(disk)?;
    if let Some(key) = waiting.and_then(|text| KeyPair::from_pem(&text).ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate()?;
    place.write_next_key(&key.serialize_pem()).map_err(disk)?;
    Ok(key)
}

async fn create(api: &dyn Api, request: Object) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        match api.call(Request::create(REQUESTS, request.clone())).await {
            Ok(_) => return Ok(()),
            // Asked before: by a start that was interrupted, or by a try whose answer got lost.
            Err(status) if status.is_already_exists() => return Ok(()),
            Err(status) if tries < TRIES && matches!(status.code, 503 | 504) => tries += 1,
            Err(status) => return Err(Error::Refused(status)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The certificate of the request, once it is there.
async fn issued(api: &dyn Api, name: &str, progress: &mut Progress) -> Result<String, Error> {
    loop {
        let watch = WatchRequest {
            resource: REQUESTS,
            namespace: String::new(),
            label_selector: None,
            field_selector: Some(format!("metadata.name={name}")),
            after: None,
        };
        match api.watch(watch).await {
            Ok(events) => {
                if let Some(end) = follow(events, name, progress).await {
                    return end;
                }
            }
            Err(status) if is_final(&status) => return Err(Error::Refused(status)),
            Err(status) => progress.say(format!("request {name} is out of sight: {status}")),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the request is answered; `None`: the watch ended before.
async fn follow(
    mut events: Events,
    name: &str,
    progress: &mut Progress,
) -> Option<Result<String, Error>> {
    let mut seen = false;
    loop {
        let event = match tokio::time::timeout(REMIND, events.next()).await {
            Ok(event) => event?.ok()?,
            Err(_) => {
                progress.remind();
                continue;
            }
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) if object.name() == name => {
                seen = true;
                match answer(&object) {
                    Ok(Answer::Issued(cert)) => return Some(Ok(cert)),
                    Ok(Answer::Waits(why)) => progress.say(why),
                    Err(error) => return Some(Err(error)),
                }
            }
            WatchEvent::Deleted(object) if object.name() == name => {
                return Some(Err(Error::Gone(name.into())));
            }
            WatchEvent::Bookmark { initial_events_end: true, .. } if !seen => {
                return Some(Err(Error::Gone(name.into())));
            }
            _ => {}
        }
    }
}

/// What a request has come to.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// PEM.
    Issued(String),
    /// For what, in words.
    Waits(String),
}

pub(super) fn answer(request: &Object) -> Result<Answer, Error> {
    let conditions = request.at("/status/conditions").and_then(Value::as_array);
    let condition = |kind: &str| {
        let found = conditions.into_iter().flatten().find(|one| one["type"] == kind)?;
        let text = |field: &str| found[field].as_str().filter(|text| !text.is_empty());
        Some(text("message").or(text("reason")).unwrap_or("no reason was given").to_string())
    };
    let name = request.name().to_string();
    if let Some(why) = condition("Denied") {
        return Err(Error::Denied { name, why });
    }
    if let Some(why) = condition("Failed") {
        return Err(Error::Failed { name, why });
    }
    let cert = request.str_at("/status/certificate");
    if !cert.is_empty() {
        let cert = STANDARD.decode(cert).ok().and_then(|pem| String::from_utf8(pem).ok());
        return cert.map(Answer::Issued).ok_or(Error::Unfit("it is no PEM text".into()));
    }
    if condition("Approved").is_some() {
        return Ok(Answer::Waits(format!("request {name} is approved and not signed yet")));
    }
    // Said by masters about what they leave to people.
    Ok(Answer::Waits(match condition("AutoApproval") {
        Some(why) => format!("request {name} is not approved by itself: {why}"),
        None => format!(
            "request {name} is not approved yet (people do so with `kubectl certificate approve {name}`)"
        ),
    }))
}

/// What is wrong with a certificate that was signed.
fn fit(wanted: &Wanted, key: &str, cert: &str, now: i64) -> Result<Facts, String> {
    credentials::certified(cert.as_bytes(), &[], key.as_bytes())
        .map_err(|error| format!("it is not for the key it was asked for: {error}"))?;
    let facts = Facts::of(cert.as_bytes()).ok_or("it cannot be read")?;
    match wanted.is_met_by(&facts) {
        false => Err("it is for somebody else".into()),
        true if facts.until <= now => Err("it has ended already; are the clocks right?".into()),
        true => Ok(facts),
    }
}

/// Asking again changes nothing.
fn is_final(status: &Status) -> bool {
    matches!(status.code, 401 | 403)
}

/// Tells whoever reads the log what is waited for.
struct Progress {
    what: &'static str,
    said: String,
}

impl Progress {
    fn say(&mut self, state: String) {
        if state != self.said {
            tracing::info!(what = self.what, "waiting: {state}");
            self.said = state;
        }
    }

    fn remind(&self) {
        tracing::info!(what = self.what, "still waiting: {}", self.said);
    }
}
