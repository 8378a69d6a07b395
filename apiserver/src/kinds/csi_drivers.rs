//! CSIDrivers: what a volume driver can do.

use super::{
    Column, KindDef,
    common::{print, set_default, set_text},
};
use k8s::Object;
use serde_json::{Value, json};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    plural: "csidrivers",
    namespaced: false,
    schema: "storage.v1.CSIDriver",
    columns: &[
        Column::NAME,
        Column::boolean("AttachRequired", |o, _| print::boolean(o, "/spec/attachRequired").into()),
        Column::boolean("PodInfoOnMount", |o, _| print::boolean(o, "/spec/podInfoOnMount").into()),
        Column::boolean("StorageCapacity", |o, _| {
            print::boolean(o, "/spec/storageCapacity").into()
        }),
        Column::text("TokenRequests", |o, _| token_audiences(o)),
        Column::boolean("RequiresRepublish", |o, _| {
            print::boolean(o, "/spec/requiresRepublish").into()
        }),
        Column::text("Modes", |o, _| modes(o)),
        Column::AGE,
    ],
    unconditional_update: false,
    default,
    ..KindDef::BASE
};

fn token_audiences(object: &Object) -> Value {
    match print::list(object, "/spec/tokenRequests") {
        [] => "<unset>".into(),
        list => print::join_field(list, "audience").into(),
    }
}

fn modes(object: &Object) -> Value {
    let modes = print::list(object, "/spec/volumeLifecycleModes");
    let modes: Vec<&str> = modes.iter().filter_map(Value::as_str).collect();
    if modes.is_empty() { "<none>".into() } else { modes.join(",").into() }
}

fn default(driver: &mut Object) {
    let spec = driver.map_mut("spec");
    set_default(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set_default(spec, field, false);
    }
    set_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    set_default(spec, "volumeLifecycleModes", json!(["Persistent"]));
}
