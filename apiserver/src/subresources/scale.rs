//! `scale`: the number of replicas of any kind that has one, as `autoscaling/v1 Scale`.

use crate::{
    catalog, encode,
    kinds::{KindDef, Subresource},
    memo,
    pipeline::{self, Call, Core, Old, Reply, Type, Wanted, What, meta},
};
use k8s::{
    Object, PatchType, Status, Verb,
    apply::{BuiltIn, Managers, OneVersion, Scope, Write},
    selector::LabelSelector,
};
use serde_json::{Value, json};

/// Where a kind keeps what a `Scale` shows, as JSON pointers.
struct Paths {
    spec_replicas: &'static str,
    status_replicas: &'static str,
    selector: &'static str,
}

fn paths(kind: &KindDef) -> Result<Paths, Status> {
    match catalog::subresource(kind, "scale") {
        Some(Subresource::Scale { spec_replicas, status_replicas, selector }) => {
            Ok(Paths { spec_replicas, status_replicas, selector })
        }
        _ => Err(Status::internal("a kind without scale was asked for its scale")),
    }
}

fn scale_type() -> Type<'static> {
    Type { schema: "autoscaling.v1.Scale", api_version: "autoscaling/v1".into(), kind: "Scale" }
}

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let paths = paths(&call.kind)?;
    if call.verb == Verb::Get {
        let reply = core.get(&call).await?;
        if let (What::Stored(stored), true) = (&reply.what, call.kind.is_custom())
            && memo::object(stored).at(paths.spec_replicas).is_none()
        {
            let path = paths.spec_replicas.replace('/', ".");
            return Err(Status::internal(format!(
                "the spec replicas field {path:?} does not exist"
            )));
        }
        return Ok(show(reply, &paths));
    }
    let change = |old: &Old<'_>| {
        let (scale, managers) = changed(core, &call, old, &paths)?;
        let replicas = check(&call, &scale)?;
        let mut new = Object::clone(old);
        set(&mut new, paths.spec_replicas, replicas.into());
        managers.put(&mut new);
        let named = scale.revision().filter(|revision| Some(*revision) != old.revision());
        Ok(Wanted { new, expected: named.filter(|revision| revision.0 != 0) })
    };
    let reply = core.modify(&call, &change).await?;
    Ok(show(reply, &paths))
}

/// The scale as the call wants it, and the managers of the whole object after that.
fn changed(
    core: &Core,
    call: &Call,
    old: &Old<'_>,
    paths: &Paths,
) -> Result<(Object, Managers), Status> {
    let names: Vec<&str> = paths.spec_replicas.trim_start_matches('/').split('/').collect();
    let (all, before) = (old.managers(), of(old, paths));
    let mut shown = all.in_scale(&names);
    let (now, ty) = (meta::now(), core.schema.get("autoscaling.v1.Scale"));
    let ty = ty.ok_or_else(|| Status::internal("no type autoscaling.v1.Scale in the schema"))?;
    let writer = Write {
        place: BuiltIn::new(core.schema, ty),
        api_version: "autoscaling/v1",
        kind: "Scale",
        subresource: &call.subresource,
        manager: call.options.field_manager.as_deref().unwrap_or_default(),
        scope: Scope::MAIN,
        now: &now,
        versions: &OneVersion,
    };
    let validation = call.options.field_validation.as_deref();
    let scale = match (&call.body, call.verb) {
        (_, Verb::Patch(PatchType::Apply)) => {
            let (config, _) = pipeline::configuration(call)?;
            let applied = writer.apply(shown, &before, &config, call.options.force);
            let applied = applied.map_err(|error| error.status())?;
            shown = applied.managers;
            let body = pipeline::Body::Value(applied.object.into_value());
            core.decode(&scale_type(), &body, None)?.0
        }
        (pipeline::Body::Value(patch), Verb::Patch(kind)) => {
            let document = before.clone().into_value();
            let (schema, name) = (core.schema, "autoscaling.v1.Scale");
            let new = pipeline::apply_patch(schema, name, kind, document, patch)?;
            core.decode_patched(&scale_type(), kind, &new, patch, validation)?.0
        }
        (body, _) => core.decode(&scale_type(), body, validation)?.0,
    };
    if call.verb != Verb::Patch(PatchType::Apply) {
        shown = writer.update(shown, None, &before, &scale);
    }
    let api_version = encode::api_version(call.kind.group, &call.version);
    Ok((scale, all.with_scale(shown, &names, &api_version)))
}

/// The number of replicas, if the scale makes sense.
fn check(call: &Call, scale: &Object) -> Result<i64, Status> {
    if !scale.name().is_empty() && scale.name() != call.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            scale.name(),
            call.name
        )));
    }
    let replicas = scale.int_at("/spec/replicas").unwrap_or(0);
    if replicas >= 0 {
        return Ok(replicas);
    }
    let why = "must be greater than or equal to 0";
    let error = k8s::FieldError::invalid("spec.replicas", replicas.into(), why);
    Err(Status::invalid("autoscaling", "Scale", &call.name, &[error]))
}

/// An object as its `Scale` shows it; as it is where its kind has none.
pub(crate) fn shown(kind: &KindDef, object: &Object) -> Object {
    paths(kind).map_or_else(|_| object.clone(), |paths| of(object, &paths))
}

/// Sets the number of replicas of an object whose kind has a scale.
pub(crate) fn set_replicas(
    kind: &KindDef,
    object: &mut Object,
    replicas: Value,
) -> Result<(), Status> {
    set(object, paths(kind)?.spec_replicas, replicas);
    Ok(())
}

fn show(reply: Reply, paths: &Paths) -> Reply {
    let object = match reply.what {
        What::Stored(stored) => of(&memo::object(&stored), paths),
        What::Object(object) => of(&object, paths),
        other => return Reply { what: other, ..reply },
    };
    Reply { what: What::Other(object), ..reply }
}

fn of(object: &Object, paths: &Paths) -> Object {
    let metadata: serde_json::Map<String, Value> =
        ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
            .into_iter()
            .filter_map(|field| Some((field.to_string(), object.metadata()?.get(field)?.clone())))
            .collect();
    let replicas = |pointer: &str| object.int_at(pointer).unwrap_or(0);
    let mut status = json!({ "replicas": replicas(paths.status_replicas) });
    let selector = selector(object.at(paths.selector));
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": replicas(paths.spec_replicas) },
        "status": status,
    });
    Object::from_value(scale).expect("an object literal")
}

/// As text: of a `LabelSelector`, of a plain map, or what is text already.
fn selector(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(map)) if map.values().all(Value::is_string) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            pairs.join(",")
        }
        Some(value) => LabelSelector::from_value(value)
            .map(|selector| selector.to_string())
            .unwrap_or_default(),
        None => String::new(),
    }
}

fn set(object: &mut Object, pointer: &str, value: Value) {
    let mut steps: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
    let Some(field) = steps.pop() else { return };
    let mut at = &mut object.0;
    for step in steps {
        let next = at.entry(step).or_insert(Value::Null);
        if !next.is_object() {
            *next = json!({});
        }
        match next {
            Value::Object(next) => at = next,
            _ => return,
        }
    }
    at.insert(field.into(), value);
}
