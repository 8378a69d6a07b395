//! The API inside the process: the same pipeline, authorization and admission, without HTTP and
//! without parsing twice.

use crate::{
    authz::Attributes,
    identity::Identity,
    kind::Kind,
    pipeline::{
        Body, Call, Core, manage, verb_name,
        watch::{WatchCall, typed},
    },
};
use futures::{StreamExt, future::BoxFuture};
use k8s::{Api, Events, Object, Options, Request, Resource, Status, WatchRequest};
use std::sync::Arc;

/// An identity's view of this server.
pub(crate) struct Client {
    pub(crate) core: Arc<Core>,
    pub(crate) identity: Arc<Identity>,
}

fn unknown(resource: &Resource) -> Status {
    let why = "the server could not find the requested resource";
    Status::new(404, "NotFound", format!("{why}: {resource}"))
}

impl Client {
    fn authorize(
        &self,
        verb: &str,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        field_selector: Option<&str>,
    ) -> Result<(), Status> {
        self.core.authorize(&Attributes {
            user: &self.identity,
            verb,
            group: &resource.group,
            version: &resource.version,
            resource: &resource.plural,
            subresource,
            namespace,
            name,
            field_selector: field_selector.unwrap_or_default(),
            path: "",
        })
    }

    fn kind(&self, resource: &Resource) -> Result<Kind, Status> {
        let kind = self.core.catalogs.find(&resource.group, &resource.version, &resource.plural);
        kind.ok_or_else(|| unknown(resource))
    }

    async fn answer(&self, request: Request) -> Result<Object, Status> {
        let Request { verb, resource, namespace, name, subresource, body, mut options, fence } =
            request;
        let kind = self.kind(&resource)?;
        let selector = options.field_selector.as_deref();
        self.authorize(verb_name(verb), &resource, &namespace, &name, &subresource, selector)?;
        let version = resource.version.to_string();
        let manager = || manage::manager_of_user(&self.identity.user).to_string();
        options.field_manager.get_or_insert_with(manager);
        let call = Call {
            kind: kind.clone(),
            version: version.clone(),
            verb,
            namespace,
            name,
            subresource: subresource.into_owned(),
            body: body.map_or(Body::None, Body::Value),
            options,
            fence,
            identity: self.identity.clone(),
            notes: Default::default(),
        };
        Ok(self.core.call(call).await?.into_object(&kind, &version))
    }

    async fn events(&self, request: WatchRequest) -> Result<Events, Status> {
        let WatchRequest { resource, namespace, label_selector, field_selector, after } = request;
        let kind = self.kind(&resource)?;
        self.authorize("watch", &resource, &namespace, "", "", field_selector.as_deref())?;
        // "0": what is here. A cache warms up on any member, leader or not, quorum or not.
        let revision = after.map_or_else(|| "0".to_string(), |after| after.to_string());
        let feed = self
            .core
            .watch(WatchCall {
                kind,
                version: resource.version.to_string(),
                namespace,
                options: Options {
                    label_selector,
                    field_selector,
                    resource_version: Some(revision),
                    resource_version_match: after.is_none().then(|| "NotOlderThan".to_string()),
                    ..Options::default()
                },
                send_initial_events: after.is_none().then_some(true),
                bookmarks: true,
                timeout: None,
            })
            .await?;
        let batches = futures::stream::unfold(feed, |mut feed| async move {
            let next = feed.next().await?;
            Some((next, feed))
        });
        let events = batches.flat_map(|batch| {
            futures::stream::iter(match batch {
                Ok(events) => events.into_iter().map(|event| Ok(typed(event))).collect(),
                Err(status) => vec![Err(status)],
            })
        });
        Ok(events.boxed())
    }
}

impl Api for Client {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Object, Status>> {
        Box::pin(self.answer(request))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Events, Status>> {
        Box::pin(self.events(request))
    }
}
