//! LimitRanger: the requests and limits a namespace gives to containers that name none, and the
//! least and most it takes.

use super::{
    Cx, Operation,
    resources::{List, Side, containers, list, of_container, of_pod},
};
use k8s::{Object, Status, quantity::Quantity};
use serde_json::{Map, Value};
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn ranges(cx: &Cx<'_>) -> Vec<Arc<Object>> {
    let stored = cx.view.range("limitranges", &format!("{}/", cx.namespace));
    stored.iter().map(|stored| crate::memo::object(stored)).collect()
}

fn items<'a>(range: &'a Object, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let limits = range.at("/spec/limits").and_then(Value::as_array).into_iter().flatten();
    limits.filter(move |item| item.get("type").and_then(Value::as_str) == Some(kind))
}

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    if cx.creates("", "pods") {
        ranges(cx).iter().for_each(|range| fill(range, pod));
    }
    Ok(())
}

/// Sets what the containers leave out, and says so in an annotation.
fn fill(range: &Object, pod: &mut Object) {
    let (mut requests, mut limits) = (List::new(), List::new());
    for item in items(range, "Container") {
        requests.extend(list(item.get("defaultRequest")));
        limits.extend(list(item.get("default")));
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut said = Vec::new();
    for (field, called) in [("containers", "container"), ("initContainers", "init container")] {
        for container in crate::kinds::common::children(pod.map_mut("spec"), field) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let name = name.to_string();
            for (side, defaults) in [(Side::Requests, &requests), (Side::Limits, &limits)] {
                let set = fill_side(container, side, defaults);
                let half = side.field().trim_end_matches('s');
                if !set.is_empty() {
                    said.push(format!("{} {half} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        if let Some(annotations) = crate::kinds::common::made(pod.metadata_mut(), "annotations") {
            annotations.insert(ANNOTATION.into(), text.into());
        }
    }
}

/// The names of what was set, sorted.
fn fill_side(container: &mut Map<String, Value>, side: Side, defaults: &List) -> Vec<String> {
    let absent: Vec<&String> = {
        let had = container.get("resources").and_then(|resources| resources.get(side.field()));
        defaults.keys().filter(|name| had.and_then(|had| had.get(*name)).is_none()).collect()
    };
    if absent.is_empty() {
        return Vec::new();
    }
    let half = crate::kinds::common::made(container, "resources")
        .and_then(|resources| crate::kinds::common::made(resources, side.field()));
    if let Some(half) = half {
        for name in &absent {
            half.insert((*name).clone(), defaults[*name].to_string().into());
        }
    }
    absent.into_iter().cloned().collect()
}

pub(super) fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    let resizes = cx.operation == Operation::Update
        && (cx.kind.group, cx.kind.plural, cx.subresource) == ("", "pods", "resize");
    let claim =
        cx.creates("", "persistentvolumeclaims") || cx.updates("", "persistentvolumeclaims");
    if !(cx.creates("", "pods") || resizes || claim) {
        return Ok(());
    }
    for range in ranges(cx) {
        let wrong = if claim { of_claim(&range, object) } else { of_pods(&range, object) };
        match wrong.as_slice() {
            [] => (),
            [one] => return Err(cx.forbidden(object, one)),
            several => return Err(cx.forbidden(object, format!("[{}]", several.join(", ")))),
        }
    }
    Ok(())
}

fn of_claim(range: &Object, claim: &Object) -> Vec<String> {
    let requests = list(claim.at("/spec/resources/requests"));
    let mut wrong = Vec::new();
    for item in items(range, "PersistentVolumeClaim") {
        let asked =
            Asked { of: "PersistentVolumeClaim", requests: &requests, limits: &List::new() };
        wrong.extend(asked.each(item, "min", Asked::min));
        wrong.extend(asked.each(item, "max", Asked::max_request));
    }
    wrong
}

fn of_pods(range: &Object, pod: &Object) -> Vec<String> {
    let mut wrong = Vec::new();
    for item in items(range, "Container") {
        for container in ["containers", "initContainers"].iter().flat_map(|f| containers(pod, f)) {
            let requests = of_container(container, Side::Requests);
            let limits = of_container(container, Side::Limits);
            wrong.extend(Asked { of: "Container", requests: &requests, limits: &limits }.all(item));
        }
    }
    for item in items(range, "Pod") {
        let (requests, limits) = (of_pod(pod, Side::Requests), of_pod(pod, Side::Limits));
        wrong.extend(Asked { of: "Pod", requests: &requests, limits: &limits }.all(item));
    }
    wrong
}

/// What a container, a pod or a claim asks for, against one limit at a time; the texts are
/// upstream's.
struct Asked<'a> {
    of: &'static str,
    requests: &'a List,
    limits: &'a List,
}

impl Asked<'_> {
    fn all(&self, item: &Value) -> Vec<String> {
        let mut wrong = self.each(item, "min", Self::min);
        wrong.extend(self.each(item, "max", Self::max));
        wrong.extend(self.each(item, "maxLimitRequestRatio", Self::ratio));
        wrong
    }

    fn each(
        &self,
        item: &Value,
        field: &str,
        rule: impl Fn(&Self, &str, Quantity) -> Option<String>,
    ) -> Vec<String> {
        let bounds = list(item.get(field));
        bounds.iter().filter_map(|(name, bound)| rule(self, name, *bound)).collect()
    }

    fn min(&self, name: &str, least: Quantity) -> Option<String> {
        let head = format!("minimum {name} usage per {} is {least}", self.of);
        match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < least => {
                Some(format!("{head}, but request is {request}"))
            }
            (_, Some(limit)) if *limit < least => Some(format!("{head}, but limit is {limit}")),
            _ => None,
        }
    }

    fn max(&self, name: &str, most: Quantity) -> Option<String> {
        let head = format!("maximum {name} usage per {} is {most}", self.of);
        match (self.requests.get(name), self.limits.get(name)) {
            (_, None) => Some(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => Some(format!("{head}, but limit is {limit}")),
            (Some(request), _) if *request > most => {
                Some(format!("{head}, but request is {request}"))
            }
            _ => None,
        }
    }

    /// Of a claim, which has no limits.
    fn max_request(&self, name: &str, most: Quantity) -> Option<String> {
        let head = format!("maximum {name} usage per {} is {most}", self.of);
        match self.requests.get(name) {
            None => Some(format!("{head}.  No request is specified")),
            Some(request) if *request > most => Some(format!("{head}, but request is {request}")),
            _ => None,
        }
    }

    fn ratio(&self, name: &str, most: Quantity) -> Option<String> {
        let head = format!("{name} max limit to request ratio per {} is {most}", self.of);
        let some = |amount: Option<&Quantity>| amount.copied().filter(|amount| !amount.is_zero());
        let Some(request) = some(self.requests.get(name)) else {
            return Some(format!("{head}, but no request is specified or request is 0"));
        };
        let Some(limit) = some(self.limits.get(name)) else {
            return Some(format!("{head}, but no limit is specified or limit is 0"));
        };
        let (limit, request) = (limit.milli_value() as f64, request.milli_value() as f64);
        let ratio = limit / request;
        (ratio * 1000.0 > most.milli_value() as f64)
            .then(|| format!("{head}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Asked as Request, active_namespace};
    use super::*;
    use crate::authz::testing::World;
    use serde_json::json;

    fn world(limits: Value) -> World {
        let mut world = active_namespace("default");
        world.put(
            "limitranges",
            json!({
                "metadata": { "name": "limits", "namespace": "default" },
                "spec": { "limits": limits },
            }),
        );
        world
    }

    fn pod(containers: Value) -> Value {
        json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "containers": containers },
        })
    }

    fn create(world: &World, plural: &str, object: Value) -> Result<Object, String> {
        let asked = Request::new(world, Operation::Create, ("", plural));
        asked.decide(object).0.map_err(|status| status.message)
    }

    #[test]
    fn containers_get_what_they_leave_out_and_are_told() {
        let world = world(json!([{
            "type": "Container",
            "default": { "cpu": "500m", "memory": "500Mi" },
            "defaultRequest": { "cpu": "100m", "memory": "200Mi" },
        }]));
        let resources = json!({ "requests": { "cpu": "300m" } });
        let pod = create(
            &world,
            "pods",
            pod(json!([{ "name": "a" }, { "name": "b", "resources": resources }])),
        )
        .expect("admitted");
        insta::assert_json_snapshot!(pod.at("/spec/containers"));
        insta::assert_snapshot!(pod.annotation(ANNOTATION).unwrap_or_default(), @"LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; memory request for container b; cpu, memory limit for container b");
    }

    #[test]
    fn refusals_are_upstreams() {
        let world = world(json!([
            {
                "type": "Container", "min": { "cpu": "50m" }, "max": { "cpu": "1" },
                "maxLimitRequestRatio": { "cpu": "2" },
            },
            { "type": "Pod", "max": { "memory": "1Gi" } },
            {
                "type": "PersistentVolumeClaim",
                "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" },
            },
        ]));
        let container = |request: &str, limit: &str| {
            let resources = json!({
                "requests": { "cpu": request },
                "limits": { "cpu": limit, "memory": "600Mi" },
            });
            json!({ "name": "c", "resources": resources })
        };
        let claim = |storage: &str| {
            json!({
                "metadata": { "name": "data", "namespace": "default" },
                "spec": { "resources": { "requests": { "storage": storage } } },
            })
        };
        let ask = |plural: &str, object: Value| match create(&world, plural, object) {
            Ok(_) => "admitted".to_string(),
            Err(why) => why,
        };
        let answers = [
            ask("pods", pod(json!([container("100m", "200m")]))),
            ask("pods", pod(json!([container("10m", "20m")]))),
            ask("pods", pod(json!([container("100m", "300m")]))),
            ask("pods", pod(json!([container("1", "2")]))),
            ask("pods", pod(json!([container("1", "1"), container("1", "1")]))),
            ask("pods", pod(json!([{ "name": "c" }]))),
            ask("persistentvolumeclaims", claim("1500Mi")),
            ask("persistentvolumeclaims", claim("1Mi")),
            ask("persistentvolumeclaims", claim("3Gi")),
        ];
        insta::assert_snapshot!(answers.join("\n"));
    }
}
