//! The ConfigMaps, Secrets and Services that a pod refers to, read when they are needed.

use super::tokens::{self, Tokens};
use k8s::{Api, Object, Request, Resource, Status};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, Secret, Service, Volume};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

const CONFIG_MAPS: Resource = Resource::new("", "v1", "configmaps");
const SECRETS: Resource = Resource::new("", "v1", "secrets");
const SERVICES: Resource = Resource::new("", "v1", "services");

/// Names of what is referred to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) services: bool,
    pub(crate) tokens: BTreeSet<tokens::Wanted>,
}

/// What was found under those names; `None` where there is no such object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
    /// Of the pod's namespace and, last, `kubernetes` of the namespace `default`.
    pub(crate) services: Vec<Service>,
    /// Of the pod's service account.
    pub(crate) tokens: tokens::Found,
}

impl Needs {
    pub(crate) fn of_environment(container: &Container) -> Needs {
        let mut needs = Needs { services: true, ..Needs::default() };
        for from in container.env_from.iter().flatten() {
            needs.config_maps.extend(from.config_map_ref.iter().map(|map| map.name.clone()));
            needs.secrets.extend(from.secret_ref.iter().map(|secret| secret.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            needs.config_maps.extend(from.config_map_key_ref.iter().map(|key| key.name.clone()));
            needs.secrets.extend(from.secret_key_ref.iter().map(|key| key.name.clone()));
        }
        needs
    }

    pub(crate) fn of_volumes(volumes: &[Volume]) -> Needs {
        let mut needs = Needs::default();
        for volume in volumes {
            needs.config_maps.extend(volume.config_map.iter().map(|map| map.name.clone()));
            let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.clone());
            needs.secrets.extend(secret);
            let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter());
            for source in projected.flatten() {
                needs.config_maps.extend(source.config_map.iter().map(|map| map.name.clone()));
                needs.secrets.extend(source.secret.iter().map(|secret| secret.name.clone()));
                needs.tokens.extend(source.service_account_token.iter().map(|token| {
                    tokens::Wanted::new(token.audience.as_ref(), token.expiration_seconds)
                }));
            }
        }
        needs
    }

    pub(crate) fn of_pull_secrets(spec: &PodSpec) -> Needs {
        let names = spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone());
        Needs { secrets: names.collect(), ..Needs::default() }
    }
}

/// Objects remembered for the time when no master answers.
const REMEMBERED_MAX: usize = 10_000;
/// In every pod, and the same for years: not read again for each of them all the time.
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_AGE_MAX: Duration = Duration::from_secs(300);
/// A master that answers does so sooner.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Resource, namespace and name.
type Name = (String, String, String);
/// When it was read; `None` where there was no such object.
type Read = (Instant, Option<Object>);

/// Reads from the API; where no master answers, what was read last: a container must be able to
/// start again without masters.
pub(crate) struct Library {
    api: Arc<dyn Api>,
    read: Mutex<BTreeMap<Name, Read>>,
    tokens: Tokens,
}

impl Library {
    pub(crate) fn new(api: Arc<dyn Api>) -> Library {
        Library { tokens: Tokens::new(api.clone()), api, read: Mutex::default() }
    }

    /// All that the volumes of `pod` are made of.
    pub(crate) async fn of_volumes(&self, pod: &Pod) -> Result<Sources, String> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
        let needs = Needs::of_volumes(volumes.unwrap_or_default());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut sources = self.read(&needs, namespace).await?;
        sources.tokens = self.tokens.of(pod, &needs.tokens).await?;
        Ok(sources)
    }

    pub(crate) async fn read(&self, needs: &Needs, namespace: &str) -> Result<Sources, String> {
        let mut sources = Sources::default();
        for name in &needs.config_maps {
            let found = self.get(CONFIG_MAPS, namespace, name).await?;
            sources.config_maps.insert(name.clone(), found.map(parse).transpose()?);
        }
        for name in &needs.secrets {
            let found = self.get(SECRETS, namespace, name).await?;
            sources.secrets.insert(name.clone(), found.map(parse).transpose()?);
        }
        if needs.services {
            sources.services = self.services(namespace).await?;
        }
        Ok(sources)
    }

    async fn get(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, String> {
        let key = (resource.plural.to_string(), namespace.to_string(), name.to_string());
        if name == ROOT_CA {
            let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, Some(found))) = read.get(&key)
                && at.elapsed() < ROOT_CA_AGE_MAX
            {
                return Ok(Some(found.clone()));
            }
        }
        let request = if name.is_empty() {
            Request::list(resource, namespace)
        } else {
            Request::get(resource, namespace, name)
        };
        let answer = tokio::time::timeout(READ_TIMEOUT, self.api.call(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::timeout("no master answered in time")));
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match answer {
            Ok(object) => Some(object),
            Err(status) if status.is_not_found() => None,
            Err(status) => {
                let known = read.get(&key).filter(|_| status.is_retryable());
                return known.map(|(_, found)| found.clone()).ok_or_else(|| status.to_string());
            }
        };
        if read.len() >= REMEMBERED_MAX && !read.contains_key(&key) {
            read.pop_first();
        }
        read.insert(key, (Instant::now(), found.clone()));
        Ok(found)
    }

    async fn services(&self, namespace: &str) -> Result<Vec<Service>, String> {
        let list = self.get(SERVICES, namespace, "").await?.unwrap_or_default();
        let items = list.at("/items").and_then(serde_json::Value::as_array).cloned();
        let items = items.unwrap_or_default().into_iter();
        let mut services: Vec<Service> =
            items.filter_map(|item| serde_json::from_value(item).ok()).collect();
        if namespace != "default" {
            let master = self.get(SERVICES, "default", "kubernetes").await?;
            services.extend(master.map(parse).transpose()?);
        }
        Ok(services)
    }
}

fn parse<T: serde::de::DeserializeOwned>(object: Object) -> Result<T, String> {
    serde_json::from_value(object.into_value()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;
    use k8s::{Events, WatchRequest};
    use serde_json::json;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Answers with one ConfigMap, or not at all.
    struct Master(AtomicBool);

    impl Api for Master {
        fn call(&self, _: Request) -> BoxFuture<'_, Result<Object, Status>> {
            let answer = if self.0.load(Ordering::Relaxed) {
                let value = json!({"metadata": {"name": "conf"}, "data": {"a": "1"}});
                Ok(Object::from_value(value).unwrap())
            } else {
                Err(Status::unavailable("no master", 1))
            };
            Box::pin(futures::future::ready(answer))
        }

        fn watch(&self, _: WatchRequest) -> BoxFuture<'_, Result<Events, Status>> {
            Box::pin(futures::future::ready(Err(Status::unavailable("no master", 1))))
        }
    }

    #[tokio::test]
    async fn what_was_read_is_known_without_masters() {
        let master = Arc::new(Master(AtomicBool::new(true)));
        let library = Library::new(master.clone());
        let needs = Needs { config_maps: ["conf".to_string()].into(), ..Needs::default() };
        let first = library.read(&needs, "default").await.unwrap();
        master.0.store(false, Ordering::Relaxed);
        assert_eq!(library.read(&needs, "default").await, Ok(first));
        assert_eq!(library.read(&needs, "other").await, Err("no master".to_string()));
    }
}
