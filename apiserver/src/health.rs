//! `/livez`, `/readyz`, `/healthz` with named checks, `/metrics`, and the members of the cluster.

use crate::{
    pipeline::Core,
    server::{Body, bytes, json},
};
use http::{Response, StatusCode};
use serde_json::json as value;
use std::{sync::atomic::Ordering, time::Duration};

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
    let mut checks = match (endpoint, path) {
        // A master without a quorum is alive: starting it again would help nobody. Its store is open;
        // were it not, this process would have ended.
        ("livez", _) => checks(core, None),
        ("healthz", _) => checks(core, Some(quorum(core).await)),
        ("readyz", _) => {
            let outcome = quorum(core).await;
            let mut checks = checks(core, Some(outcome.clone()));
            checks.push(Check { name: "informer-sync", outcome });
            checks.push(shutdown(core));
            checks
        }
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
    if let Some(only) = only {
        let at = checks.iter().position(|check| check.name == only)?;
        return Some(one(&checks.swap_remove(at)));
    }
    Some(report(endpoint, &checks, query))
}

/// A check by itself says why it failed: its path is open to fewer people.
fn one(check: &Check) -> Response<Body> {
    match &check.outcome {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(why) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
        }
    }
}

fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", text.into());
    let nosniff = http::HeaderValue::from_static("nosniff");
    response.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Upstream's checks in its order. `etcd` is the store: open, and with a quorum where that is asked.
fn checks(core: &Core, quorum: Option<Result<(), String>>) -> Vec<Check> {
    let check = |name, outcome| Check { name, outcome };
    let store = quorum.clone().unwrap_or(Ok(()));
    let mut checks = vec![check("ping", Ok(())), check("log", Ok(())), check("etcd", store)];
    checks.extend(quorum.map(|outcome| check("quorum", outcome)));
    checks.extend(core.boot.steps(core).map(|(name, done)| {
        let outcome = if done { Ok(()) } else { Err("not finished".to_string()) };
        check(name, outcome)
    }));
    checks
}

/// Ready means: reads and writes would be answered.
async fn quorum(core: &Core) -> Result<(), String> {
    match tokio::time::timeout(QUORUM_WAIT, core.store.barrier()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no quorum answered in time".to_string()),
    }
}

/// Upstream's name: clients are to go elsewhere before this process ends.
fn shutdown(core: &Core) -> Check {
    let stopping = core.stopping.load(Ordering::Relaxed);
    let outcome = if stopping { Err("process is shutting down".to_string()) } else { Ok(()) };
    Check { name: "shutdown", outcome }
}

/// Upstream's text: one line per check when asked or when something is wrong.
fn report(endpoint: &str, checks: &[Check], query: &str) -> Response<Body> {
    let pairs = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let verbose = pairs().any(|(key, _)| key == "verbose");
    let mut excluded: Vec<&str> =
        pairs().filter(|(key, _)| *key == "exclude").map(|(_, check)| check).collect();
    let asked = excluded.clone();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for check in checks {
        let line = match &check.outcome {
            _ if asked.contains(&check.name) => {
                excluded.retain(|name| *name != check.name);
                format!("[+]{} excluded: ok\n", check.name)
            }
            Ok(()) => format!("[+]{} ok\n", check.name),
            Err(why) => {
                failed.push(format!("{}: {why}", check.name));
                // Anybody may ask.
                format!("[-]{} failed: reason withheld\n", check.name)
            }
        };
        lines.push_str(&line);
    }
    if !excluded.is_empty() {
        excluded.sort_unstable();
        excluded.dedup();
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {names}\n"
        ));
    }
    match (failed.is_empty(), verbose) {
        (false, _) => {
            tracing::info!(endpoint, failed = failed.join("; "), "not healthy");
            let failed = format!("{lines}{endpoint} check failed\n");
            text(StatusCode::INTERNAL_SERVER_ERROR, failed)
        }
        (true, true) => text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (true, false) => text(StatusCode::OK, "ok"),
    }
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
