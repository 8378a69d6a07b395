//! `/livez`, `/readyz`, `/healthz` with named checks, `/metrics`, and the members of the cluster.

use crate::{
    pipeline::Core,
    server::{Body, bytes, json},
};
use http::{Response, StatusCode};
use serde_json::json as value;
use std::time::Duration;

/// How long the quorum check waits; a probe asks every few seconds.
const QUORUM_WAIT: Duration = Duration::from_secs(2);

/// One named check; `Err` says what is wrong.
struct Check {
    name: &'static str,
    outcome: Result<(), String>,
}

/// The answer to `path`, if it is one of these.
pub(crate) async fn answer(core: &Core, path: &str, query: &str) -> Option<Response<Body>> {
    let (endpoint, only) = match path.trim_start_matches('/').split_once('/') {
        Some((endpoint, only)) => (endpoint, Some(only)),
        None => (path.trim_start_matches('/'), None),
    };
    let checks = match (endpoint, path) {
        ("livez", _) => vec![ping()],
        ("readyz" | "healthz", _) => vec![ping(), quorum(core).await],
        (_, "/metrics") => {
            return Some(bytes(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                core.metrics.text(core),
            ));
        }
        (_, "/coxswain/members") => return Some(json(&members(core))),
        _ => return None,
    };
    let checks: Vec<Check> =
        checks.into_iter().filter(|check| only.is_none_or(|only| only == check.name)).collect();
    if checks.is_empty() {
        return None;
    }
    let verbose = query.split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    Some(report(endpoint, &checks, verbose))
}

fn ping() -> Check {
    Check { name: "ping", outcome: Ok(()) }
}

/// Ready means: reads and writes would be answered.
async fn quorum(core: &Core) -> Check {
    let outcome = match tokio::time::timeout(QUORUM_WAIT, core.store.barrier()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no quorum answered in time".to_string()),
    };
    Check { name: "quorum", outcome }
}

/// Upstream's text: one line per check when asked or when something is wrong.
fn report(endpoint: &str, checks: &[Check], verbose: bool) -> Response<Body> {
    let healthy = checks.iter().all(|check| check.outcome.is_ok());
    if healthy && !verbose {
        return bytes(StatusCode::OK, "text/plain; charset=utf-8", "ok");
    }
    let mut text = String::new();
    for check in checks {
        let line = match &check.outcome {
            Ok(()) => format!("[+]{} ok\n", check.name),
            Err(why) => format!("[-]{} failed: {why}\n", check.name),
        };
        text.push_str(&line);
    }
    let (code, end) = match healthy {
        true => (StatusCode::OK, "passed"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
    };
    text.push_str(&format!("{endpoint} check {end}\n"));
    bytes(code, "text/plain; charset=utf-8", text)
}

/// What this master knows of each; of itself also its process id. `appliedRevision` is null for one
/// that was not heard from lately.
fn members(core: &Core) -> serde_json::Value {
    let own = core.store.member();
    let members = core.store.members().into_iter().map(|member| {
        let this = member.id == own;
        value!({
            "id": member.id.0,
            "name": member.name,
            "peerAddress": member.peer_address,
            "apiAddress": member.api_address,
            "leader": member.leader,
            "voter": member.voter,
            "term": member.term.0,
            "appliedRevision": member.applied.map(|revision| revision.0),
            "reachable": member.reachable,
            "self": this,
            "pid": this.then(std::process::id),
        })
    });
    members.collect()
}
