//! Root CA publisher: ConfigMap `kube-root-ca.crt` in every namespace, with which pods verify the API
//! server.

use crate::RootCa;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{
    Change, Context, Controller, Key, Plan, Root, Wake, World, Write, kinds,
};
use std::collections::BTreeMap;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "root_ca_certificate_publisher",
    component: "root-ca-certificate-publisher",
    root: Root::Each(kinds::NAMESPACES),
    wakes: &[
        (kinds::NAMESPACES, Wake::Itself),
        (kinds::CONFIG_MAPS, Wake::Map(its_namespace)),
    ],
    plan,
    ..Controller::BASE
};

const NAME: &str = "kube-root-ca.crt";

fn its_namespace(_: &World, change: &Change) -> Vec<Key> {
    let key = change.key();
    if &*key.name == NAME { vec![Key::new("", key.namespace.clone())] } else { Vec::new() }
}

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(namespace) = world.get::<Namespace>(key) else { return plan };
    let Some(RootCa(ca)) = world.fact::<RootCa>() else { return plan };
    if namespace.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let data = BTreeMap::from([("ca.crt".to_string(), ca.clone())]);
    match world.get::<ConfigMap>(&Key::new(key.name.clone(), NAME)) {
        Some(map) => {
            let wanted = ConfigMap { data: Some(data), binary_data: None, ..map.clone() };
            plan.write(Write::patch(map, &wanted));
        }
        None => plan.write(Write::create(&ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(key.name.to_string()),
                name: Some(NAME.to_string()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        })),
    }
    plan
}
