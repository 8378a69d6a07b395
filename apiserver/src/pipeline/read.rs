//! Get and list: at which revision, which objects, which page.

use super::{Call, Core, Reply, Selection, What};
use crate::{encode, errors, kind::Kind, kinds::KindDef, memo};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s::{FieldError, Object, Options, Rare, Revision, Status};
use raft_store::{Error, Page, Stored};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How long a read waits for a revision this member has not applied (upstream's `blockTimeout`).
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// A page of a collection, all at one revision.
pub(crate) struct List {
    pub(crate) items: Vec<Arc<Stored>>,
    pub(crate) revision: Revision,
    /// `metadata.continue`.
    pub(crate) next: Option<String>,
    pub(crate) remaining: Option<u64>,
}

impl List {
    pub(crate) fn into_object(self, kind: &KindDef, version: &str) -> Object {
        let metadata = encode::list_metadata(self.revision, self.next.as_deref(), self.remaining);
        let item = |stored: &Arc<Stored>| {
            let mut object = memo::parse(stored);
            // One space may be that of kinds of two groups.
            encode::stamp(&mut object, kind, version);
            object.into_value()
        };
        let items: Vec<Value> = self.items.iter().map(item).collect();
        let mut object = Object::default();
        object.0.insert("kind".into(), kind.list_kind().into());
        let api_version = encode::api_version(kind.group, version);
        object.0.insert("apiVersion".into(), api_version.into());
        object.0.insert("metadata".into(), metadata);
        object.0.insert("items".into(), items.into());
        object
    }
}

/// What `resourceVersion` and its match ask of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Everything acknowledged before the request.
    Latest,
    /// Whatever is here.
    Any,
    NotOlderThan(Revision),
    Exactly(Revision),
}

/// The inside of a `continue` token, the same on every master (upstream's `continueToken`).
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// Below zero: whatever is there now, once what was listed first has been compacted away.
    rv: i64,
    /// The path after which to go on.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Core {
    pub(crate) async fn get(&self, call: &Call) -> Result<Reply, Status> {
        match revision_asked(call.options.resource_version.as_deref())? {
            None => self.barrier().await?,
            Some(Revision(0)) => {}
            Some(revision) => self.wait_for(revision).await?,
        }
        let stored = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let stored = self.served(&call.kind, stored).await?;
        Ok(Reply::new(What::Stored(self.heartbeats.shown(stored))))
    }

    /// A stored version as `kind` shows it.
    pub(super) async fn served(
        &self,
        kind: &Kind,
        stored: Arc<Stored>,
    ) -> Result<Arc<Stored>, Status> {
        let mut served = self.converter.served(kind, vec![stored]).await?;
        served.pop().ok_or_else(|| Status::internal("a conversion lost its object"))
    }

    pub(super) async fn list(&self, call: &Call) -> Result<Reply, Status> {
        Ok(Reply::new(What::List(self.page(call).await?)))
    }

    /// Waits until `revision` is applied here; the 504 upstream sends if it does not come.
    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<(), Status> {
        let wanted = raft_store::Revision(revision.0);
        match self.store.wait_for(wanted, FRESHNESS_WAIT).await {
            Ok(()) => Ok(()),
            Err(Error::Unavailable { .. } | Error::Future { .. }) => {
                let current = encode::revision(self.store.revision());
                Err(Status::too_large_resource_version(revision, current))
            }
            Err(error) => Err(errors::status(error)),
        }
    }

    pub(super) async fn page(&self, call: &Call) -> Result<List, Status> {
        let options = &call.options;
        validate_list_options(options)?;
        let selection = Selection::new(&call.kind, options)?;
        let prefix = prefix(&call.kind, &call.namespace);
        let token = options.continue_token.as_deref().filter(|token| !token.is_empty());
        let (at, mut after) = match token.map(read_token).transpose()? {
            Some(token) => match u64::try_from(token.rv) {
                Ok(revision) => (At::Exactly(Revision(revision)), Some(token.start)),
                Err(_) => (At::Latest, Some(token.start)),
            },
            None => (at(options)?, None),
        };
        let limit = options.limit.filter(|limit| *limit > 0).map(|limit| limit as usize);
        let mut at = self.reach(at, token.is_some()).await?;
        let mut items: Vec<Arc<Stored>> = Vec::new();
        loop {
            let want = limit.map(|limit| limit - items.len());
            let page = self.read(&call.kind, &prefix, after.as_deref(), want, at).await;
            let page = page.map_err(|error| gone(error, after.as_deref()))?;
            // Every further page is of the same state as the first.
            at = At::Exactly(encode::revision(page.revision));
            let last = page.items.last().map(|stored| stored.key.path.to_string());
            let read = self.converter.served(&call.kind, page.items).await?;
            let read = read.into_iter().map(|stored| self.heartbeats.shown(stored));
            items.extend(read.filter(|stored| selection.matches(stored)));
            let full = limit.is_some_and(|limit| items.len() >= limit);
            if page.remaining == 0 || full {
                let revision = encode::revision(page.revision);
                let more = page.remaining > 0;
                let next = last.filter(|_| more).map(|start| write_token(revision, start));
                if next.is_some() {
                    self.page_tokens.given(page.revision);
                }
                let counted = more && selection.is_everything();
                let remaining = counted.then_some(page.remaining);
                return Ok(List { items, revision, next, remaining });
            }
            after = last;
        }
    }

    /// Waits until this member can answer for `at`.
    async fn reach(&self, at: At, continued: bool) -> Result<At, Status> {
        match at {
            At::Latest => self.barrier().await?,
            At::Any => {}
            At::NotOlderThan(revision) => self.wait_for(revision).await?,
            At::Exactly(revision) => self
                .wait_for(revision)
                .await
                .map_err(|status| if continued { bad_token() } else { status })?,
        }
        Ok(at)
    }

    async fn read(
        &self,
        kind: &KindDef,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
        at: At,
    ) -> Result<Page, Error> {
        let space = kind.space();
        match at {
            At::Exactly(revision) => {
                let at = raft_store::Revision(revision.0);
                self.store.range_at(&space, prefix, after, limit, at).await
            }
            _ => Ok(self.store.range(&space, prefix, after, limit)),
        }
    }
}

/// What the paths of a collection begin with.
pub(crate) fn prefix(kind: &KindDef, namespace: &str) -> String {
    if kind.namespaced && !namespace.is_empty() { format!("{namespace}/") } else { String::new() }
}

/// `None` for absent or empty.
pub(crate) fn revision_asked(text: Option<&str>) -> Result<Option<Revision>, Status> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            list_options_invalid(&[FieldError::invalid("resourceVersion", text.into(), why)])
        }),
    }
}

/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>
fn at(options: &Options) -> Result<At, Status> {
    let revision = revision_asked(options.resource_version.as_deref())?;
    let paged = options.limit.is_some_and(|limit| limit > 0);
    Ok(match (revision, options.resource_version_match.as_deref().unwrap_or_default()) {
        (None, _) => At::Latest,
        (Some(Revision(0)), _) => At::Any,
        (Some(revision), "Exact") => At::Exactly(revision),
        (Some(revision), "") if paged => At::Exactly(revision),
        (Some(revision), _) => At::NotOlderThan(revision),
    })
}

/// Upstream's `ValidateListOptions` for a list.
fn validate_list_options(options: &Options) -> Result<(), Status> {
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if given(&options.continue_token)
        && given(&options.resource_version)
        && options.resource_version.as_deref() != Some("0")
    {
        let why = "specifying resource version is not allowed when using continue";
        return Err(Status::bad_request(why));
    }
    let Some(asked) = options.resource_version_match.as_deref().filter(|text| !text.is_empty())
    else {
        return Ok(());
    };
    let field = "resourceVersionMatch";
    let mut errors = Vec::new();
    let mut forbid = |why: &str| errors.push(FieldError::forbidden(field, why));
    if !given(&options.resource_version) {
        forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if given(&options.continue_token) {
        forbid("resourceVersionMatch is forbidden when continue is provided");
    }
    if asked == "Exact" && options.resource_version.as_deref() == Some("0") {
        forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    if !matches!(asked, "Exact" | "NotOlderThan") {
        let supported = ["Exact", "NotOlderThan", ""];
        errors.push(FieldError::not_supported(field, asked.into(), &supported));
    }
    if errors.is_empty() { Ok(()) } else { Err(list_options_invalid(&errors)) }
}

pub(crate) fn list_options_invalid(errors: &[FieldError]) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", errors)
}

fn write_token(revision: Revision, start: String) -> String {
    encode_token(i64::try_from(revision.0).unwrap_or(i64::MAX), start)
}

fn encode_token(rv: i64, start: String) -> String {
    let token = json!(Token { v: TOKEN_VERSION.into(), rv, start });
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn read_token(text: &str) -> Result<Token, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad_token())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| bad_token())?;
    if token.v == TOKEN_VERSION && token.rv != 0 { Ok(token) } else { Err(bad_token()) }
}

fn bad_token() -> Status {
    Status::bad_request("continue key is not valid: invalid continue token")
}

/// `after`: where a list that was begun would have gone on.
fn gone(error: Error, after: Option<&str>) -> Status {
    match (error, after) {
        (Error::Compacted { .. }, Some(after)) => {
            let mut status = Status::expired(
                "The provided continue parameter is too old to display a consistent list result. \
                 You can start a new list without the continue parameter, or use the continue token \
                 in this response to retrieve the remainder of the results. Continuing with the \
                 provided token results in an inconsistent list - objects that were created, \
                 modified, or deleted between the time the first chunk was returned and now may show \
                 up in the list.",
            );
            let continue_token = encode_token(-1, after.to_string());
            status.rare = Some(Box::new(Rare { continue_token, ..Rare::default() }));
            status
        }
        (Error::Compacted { .. }, None) => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        (error, _) => errors::status(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_written() {
        let token = write_token(Revision(7), "default/a".into());
        let read = read_token(&token).expect("own token");
        assert_eq!((read.rv, read.start.as_str()), (7, "default/a"));
        assert_eq!(read_token("nonsense").map_err(|status| status.code), Err(400));
    }

    #[test]
    fn the_revision_asked_for_follows_upstreams_table() {
        let ask = |revision: &str, matching: &str, limit: u64| {
            let options = Options {
                resource_version: Some(revision.into()),
                resource_version_match: Some(matching.into()),
                limit: Some(limit),
                ..Options::default()
            };
            at(&options).expect("valid")
        };
        assert_eq!(ask("", "", 0), At::Latest);
        assert_eq!(ask("0", "", 5), At::Any);
        assert_eq!(ask("9", "", 0), At::NotOlderThan(Revision(9)));
        assert_eq!(ask("9", "", 5), At::Exactly(Revision(9)));
        assert_eq!(ask("9", "NotOlderThan", 5), At::NotOlderThan(Revision(9)));
        assert_eq!(ask("9", "Exact", 0), At::Exactly(Revision(9)));
    }
}
