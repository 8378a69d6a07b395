//! The ConfigMaps, Secrets and Services that a pod refers to, read when they are needed.

use k8s::{Api, Request, Resource};
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Secret, Service, Volume};
use std::collections::{BTreeMap, BTreeSet};

const CONFIG_MAPS: Resource = Resource::new("", "v1", "configmaps");
const SECRETS: Resource = Resource::new("", "v1", "secrets");
const SERVICES: Resource = Resource::new("", "v1", "services");

/// Names of what is referred to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) services: bool,
}

/// What was found under those names; `None` where there is no such object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
    /// Of the pod's namespace and, last, `kubernetes` of the namespace `default`.
    pub(crate) services: Vec<Service>,
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
            }
        }
        needs
    }

    pub(crate) fn of_pull_secrets(spec: &PodSpec) -> Needs {
        let names = spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone());
        Needs { secrets: names.collect(), ..Needs::default() }
    }

    pub(crate) async fn read(&self, api: &dyn Api, namespace: &str) -> Result<Sources, String> {
        let mut sources = Sources::default();
        for name in &self.config_maps {
            sources.config_maps.insert(name.clone(), get(api, CONFIG_MAPS, namespace, name).await?);
        }
        for name in &self.secrets {
            sources.secrets.insert(name.clone(), get(api, SECRETS, namespace, name).await?);
        }
        if self.services {
            sources.services = services(api, namespace).await?;
        }
        Ok(sources)
    }
}

async fn get<T: serde::de::DeserializeOwned>(
    api: &dyn Api,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<T>, String> {
    match api.call(Request::get(resource, namespace, name)).await {
        Ok(object) => {
            let parsed = serde_json::from_value(object.into_value());
            parsed.map(Some).map_err(|error| error.to_string())
        }
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status.to_string()),
    }
}

async fn services(api: &dyn Api, namespace: &str) -> Result<Vec<Service>, String> {
    let list = api.call(Request::list(SERVICES, namespace)).await;
    let list = list.map_err(|status| status.to_string())?;
    let items = list.at("/items").and_then(serde_json::Value::as_array).cloned();
    let items = items.unwrap_or_default().into_iter();
    let mut services: Vec<Service> =
        items.filter_map(|item| serde_json::from_value(item).ok()).collect();
    if namespace != "default" {
        services.extend(get::<Service>(api, SERVICES, "default", "kubernetes").await?);
    }
    Ok(services)
}
