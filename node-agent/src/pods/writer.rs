//! Writes one pod's status to the API: always the newest, only what changed, again and again until
//! it is taken.

use k8s::{Api, PatchType, Request, Resource, Status};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const PODS: Resource = Resource::new("", "v1", "pods");

/// Pauses after a failed write: doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Owns the status of one pod.
pub(crate) struct StatusWriter {
    target: Target,
    wanted: watch::Sender<Option<Value>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Target {
    api: Arc<dyn Api>,
    namespace: String,
    name: String,
    uid: String,
}

impl StatusWriter {
    pub(crate) fn new(api: Arc<dyn Api>, pod: &Pod) -> StatusWriter {
        let meta = pod.metadata.clone();
        let target = Target {
            api,
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
        };
        let (wanted, changes) = watch::channel(None);
        let task = tokio::spawn(keep(target.clone(), changes));
        StatusWriter { target, wanted, _task: AbortOnDropHandle::new(task) }
    }

    /// Returns at once; the write happens behind.
    pub(crate) fn send(&self, status: PodStatus) {
        let value = patch(&self.target.uid, status);
        self.wanted.send_if_modified(|wanted| {
            let new = wanted.as_ref() != Some(&value);
            if new {
                *wanted = Some(value);
            }
            new
        });
    }

    /// Writes the last status, if there is one, then deletes the object; until both are done or it
    /// is gone.
    pub(crate) fn finish(
        &self,
        status: Option<PodStatus>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let target = self.target.clone();
        let last = status.map(|status| patch(&target.uid, status));
        async move {
            let mut retry = RETRY_FIRST;
            while let Err(status) = target.end(last.as_ref()).await {
                tracing::debug!(pod = target.name, %status, "not deleted yet");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_LONGEST);
            }
        }
    }
}

/// A merge patch: lists replaced whole, cleared fields null.
fn patch(uid: &str, status: PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        for name in ["reason", "message", "podIP", "podIPs"] {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    json!({"metadata": {"uid": uid}, "status": value})
}

async fn keep(target: Target, mut changes: watch::Receiver<Option<Value>>) {
    let mut retry = RETRY_FIRST;
    while changes.changed().await.is_ok() {
        loop {
            let Some(value) = changes.borrow_and_update().clone() else { break };
            match target.patch(&value).await {
                Ok(()) => {
                    retry = RETRY_FIRST;
                    break;
                }
                Err(status) if status.is_not_found() => break,
                Err(status) => {
                    tracing::warn!(pod = target.name, %status, "status not written");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_LONGEST);
                }
            }
        }
    }
}

impl Target {
    async fn patch(&self, value: &Value) -> Result<(), Status> {
        let kind = PatchType::Merge;
        let request = Request::patch(PODS, &self.namespace, &self.name, kind, value.clone());
        self.api.call(request.subresource("status")).await.map(drop)
    }

    async fn end(&self, last: Option<&Value>) -> Result<(), Status> {
        if let Some(last) = last
            && let Err(status) = self.patch(last).await
            && status.is_retryable()
        {
            return Err(status);
        }
        // A status that was refused keeps nobody from going.
        let mut request = Request::delete(PODS, &self.namespace, &self.name);
        request.options.grace_period_seconds = Some(0);
        request.options.precondition_uid = Some(self.uid.clone());
        match self.api.call(request).await {
            Ok(_) => Ok(()),
            // Another pod has the name by now.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => Err(status),
        }
    }
}
