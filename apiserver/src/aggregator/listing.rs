//! What discovery shows of groups that are not in the catalog: those of other servers, as they last
//! answered, and the metrics this server makes from its nodes.

use super::{Aggregator, local, metrics_api, remotes};
use crate::pipeline::Core;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// One version of a group as its server lists it.
struct Listed {
    version: String,
    list: Arc<Value>,
    fresh: bool,
}

fn listed(core: &Core) -> BTreeMap<String, Vec<Listed>> {
    let mut groups: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    let aggregator: &Aggregator = &core.aggregator;
    for (_, remote) in remotes(core) {
        let Some(seen) = aggregator.get(&remote.object) else { continue };
        let Some(list) = seen.list else { continue };
        let fresh = seen.trouble.is_none();
        let one = Listed { version: remote.version.clone(), list, fresh };
        groups.entry(remote.group.clone()).or_default().push(one);
    }
    if !local::is_remote(core, metrics_api::GROUP, metrics_api::VERSION) {
        let list = Arc::new(metrics_api::resource_list());
        let one = Listed { version: metrics_api::VERSION.into(), list, fresh: true };
        groups.entry(metrics_api::GROUP.into()).or_default().push(one);
    }
    groups
}

/// The groups as items of an `APIGroupDiscoveryList`; groups in `served` are the catalog's.
pub(crate) fn discovery_items(core: &Core, served: &dyn Fn(&str) -> bool) -> Vec<Value> {
    let groups = listed(core).into_iter().filter(|(group, _)| !served(group));
    let item = |(group, versions): (String, Vec<Listed>)| {
        let versions: Vec<Value> = versions
            .iter()
            .map(|one| {
                json!({
                    "version": one.version,
                    "freshness": if one.fresh { "Current" } else { "Stale" },
                    "resources": aggregated(&one.list, &group, &one.version),
                })
            })
            .collect();
        json!({ "metadata": { "name": group, "creationTimestamp": null }, "versions": versions })
    };
    groups.map(item).collect()
}

/// The groups as `APIGroup`s without kind and version, or only the one called `name`.
pub(crate) fn discovery_group(core: &Core, name: Option<&str>) -> Vec<Value> {
    let is_meant = |group: &String| name.is_none_or(|name| name == group);
    let groups = listed(core).into_iter().filter(|(group, _)| is_meant(group));
    let group = |(group, versions): (String, Vec<Listed>)| {
        let versions: Vec<Value> = versions
            .iter()
            .map(|one| {
                let version = &one.version;
                json!({ "groupVersion": format!("{group}/{version}"), "version": version })
            })
            .collect();
        json!({ "name": group, "versions": versions, "preferredVersion": versions[0] })
    };
    groups.map(group).collect()
}

/// The `APIResourceList` of a group and version that this server makes outside of its catalog.
pub(crate) fn resource_list(group: &str, version: &str) -> Option<Value> {
    let ours = (group, version) == (metrics_api::GROUP, metrics_api::VERSION);
    ours.then(metrics_api::resource_list)
}

/// `apis/GROUP/VERSION` of every other server that answers, for the index of `/openapi/v3`; the
/// document is asked of that server.
pub(crate) fn openapi_paths(core: &Core) -> Vec<String> {
    let answering = remotes(core).into_iter().filter(|(_, remote)| {
        core.aggregator.get(&remote.object).is_some_and(|seen| seen.trouble.is_none())
    });
    answering.map(|(_, remote)| format!("apis/{}/{}", remote.group, remote.version)).collect()
}

/// The resources of an `APIResourceList` as KEP-3352 arranges them: subresources below their
/// resources.
fn aggregated(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let mut resources: Vec<Value> = Vec::new();
    let kind = |entry: &Value| {
        let or = |field: &str, default: &str| {
            let own = entry[field].as_str().filter(|own| !own.is_empty());
            own.unwrap_or(default).to_string()
        };
        let (group, version) = (or("group", group), or("version", version));
        json!({ "group": group, "version": version, "kind": entry["kind"] })
    };
    for entry in list["resources"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or_default();
        match name.split_once('/') {
            None => {
                let namespaced = entry["namespaced"].as_bool().unwrap_or_default();
                let mut resource = json!({
                    "resource": name,
                    "responseKind": kind(entry),
                    "scope": if namespaced { "Namespaced" } else { "Cluster" },
                    "singularResource": entry["singularName"],
                    "verbs": entry["verbs"],
                });
                for field in ["shortNames", "categories"] {
                    if entry[field].is_array() {
                        resource[field] = entry[field].clone();
                    }
                }
                resources.push(resource);
            }
            Some((parent, subresource)) => {
                let below = json!({
                    "subresource": subresource,
                    "responseKind": kind(entry),
                    "verbs": entry["verbs"],
                });
                let parent = resources.iter_mut().find(|one| one["resource"] == parent);
                let Some(parent) = parent else { continue };
                match parent["subresources"].as_array_mut() {
                    Some(all) => all.push(below),
                    None => parent["subresources"] = json!([below]),
                }
            }
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresources_go_below_their_resources() {
        let list = json!({ "resources": [
            { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
              "verbs": ["get"], "shortNames": ["fl"] },
            { "name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["get"] },
        ]});
        let resources = aggregated(&list, "wardle.example.com", "v1alpha1");
        assert_eq!(resources.len(), 1);
        assert_eq!(resources[0]["scope"], "Namespaced");
        assert_eq!(resources[0]["shortNames"], json!(["fl"]));
        assert_eq!(resources[0]["responseKind"]["group"], "wardle.example.com");
        assert_eq!(resources[0]["subresources"][0]["subresource"], "status");
    }
}
