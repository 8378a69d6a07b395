//! What hangs below an object besides its status, and the kinds that are only asked, never kept.

pub(crate) mod binding;
pub(crate) mod connect;
pub(crate) mod eviction;
pub(crate) mod finalize;
pub(crate) mod pod_parts;
pub(crate) mod proxy;
pub(crate) mod review;
pub(crate) mod scale;
pub(crate) mod stream;
pub(crate) mod token;

use crate::pipeline::{Call, Core, Reply};
use k8s::{Status, Verb};

/// Answers a call of a subresource other than `status` and `scale`.
pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    match (call.kind.plural, call.subresource.as_str(), call.verb) {
        ("pods", "binding", Verb::Create) => binding::call(core, call).await,
        ("pods", "eviction", Verb::Create) => eviction::call(core, call).await,
        ("certificatesigningrequests", "approval", Verb::Get) => core.get(&call).await,
        ("certificatesigningrequests", "approval", _) => core.update_status(call).await,
        ("serviceaccounts", "token", Verb::Create) => token::call(core, call).await,
        ("namespaces", "finalize", Verb::Update) => finalize::call(core, call).await,
        ("pods", "ephemeralcontainers" | "resize", Verb::Get) => core.get(&call).await,
        ("pods", "ephemeralcontainers" | "resize", _) => pod_parts::call(core, call).await,
        (plural, subresource, _) => {
            Err(Status::not_implemented(format!("{plural}/{subresource} is not implemented yet")))
        }
    }
}
