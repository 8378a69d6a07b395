//! A new data key for Secrets at rest, and everything sealed anew with it: what
//! `coxswain secrets rotate-key` asks for, step by step so that it can show how far it is.

use crate::{
    errors,
    keyring::{KEYS, Keyring},
    pipeline::Core,
    server::{self, Body},
};
use http::{Method, Response, StatusCode};
use k8s::Status;
use raft_store::{Error, Guard, Op, Revision, Term, Txn};
use serde_json::json;

/// Makes a new data key; answers its number.
pub(crate) const ROTATE: &str = "/coxswain/secrets/rotate-key";
/// Seals the next versions anew; answers how many are left.
pub(crate) const RESEAL: &str = "/coxswain/secrets/reseal";
/// Versions sealed anew by one request: less than a second's work.
const BATCH: usize = 200;

/// The answer to a request for one of the two; `None` for other paths.
pub(crate) async fn answer(
    core: &Core,
    method: &Method,
    path: &str,
) -> Option<Result<Response<Body>, Status>> {
    if !matches!(path, ROTATE | RESEAL) || *method != Method::POST {
        return None;
    }
    let Some(keyring) = &core.config.keyring else {
        let why = "secrets are not encrypted at rest: this master has no keyring";
        return Some(Err(Status::new(409, "Conflict", why)));
    };
    let done = match path {
        ROTATE => rotate(core, keyring).await.map(|key| json!({ "key": key })),
        _ => reseal(core, keyring).await.map(|left| json!({ "left": left })),
    };
    Some(done.map(|value| server::bytes(StatusCode::OK, "application/json", value.to_string())))
}

/// Sees to it that there is a data key before there is anything to seal.
pub(crate) async fn ensure(core: &Core, term: Term) -> Result<(), Status> {
    let Some(keyring) = &core.config.keyring else { return Ok(()) };
    if !core.view.range(KEYS, "").is_empty() {
        return Ok(());
    }
    make(core, keyring, 1, Some(term)).await
}

async fn rotate(core: &Core, keyring: &Keyring) -> Result<u32, Status> {
    core.barrier().await?;
    let number = keyring.current().unwrap_or(0) + 1;
    make(core, keyring, number, None).await?;
    Ok(number)
}

async fn make(
    core: &Core,
    keyring: &Keyring,
    number: u32,
    fence: Option<Term>,
) -> Result<(), Status> {
    let put = Op::Put(keyring.new_data_key(number));
    let txn = Txn { fence, ..Txn::one(Keyring::key_of(number), Guard::Absent, put) };
    match core.store.txn(txn).await {
        // Made by somebody else in the same moment: as good.
        Ok(_) | Err(Error::GuardFailed { .. }) => Ok(()),
        Err(error) => Err(errors::status(error)),
    }
}

/// How many versions are older than the newest key, after some of them were written again.
async fn reseal(core: &Core, keyring: &Keyring) -> Result<usize, Status> {
    core.barrier().await?;
    let keys = core.view.range(KEYS, "");
    let newest = keys.last().map_or(Revision(0), |stored| stored.revision);
    let spaces = keyring.spaces().iter();
    let all = spaces.flat_map(|space| core.view.range(space, ""));
    let old: Vec<_> = all.filter(|stored| stored.revision < newest).collect();
    for stored in old.iter().take(BATCH) {
        // The same body: it is the log and the disk that have it sealed anew.
        let put = Op::Put(stored.body.clone());
        let txn = Txn::one(stored.key.clone(), Guard::At(stored.revision), put);
        match core.store.txn(txn).await {
            // Changed or gone meanwhile, and so not older than the key any more.
            Ok(_) | Err(Error::GuardFailed { .. }) => {}
            Err(error) => return Err(errors::status(error)),
        }
    }
    Ok(old.len().saturating_sub(BATCH))
}
