//! Service account: every namespace has a `default` one.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{
    Change, Context, Controller, Key, Plan, Root, Wake, World, Write, kinds,
};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "serviceaccount",
    component: "serviceaccount-controller",
    root: Root::Each(kinds::NAMESPACES),
    wakes: &[
        (kinds::NAMESPACES, Wake::Itself),
        (kinds::SERVICE_ACCOUNTS, Wake::Map(its_namespace)),
    ],
    plan,
    ..Controller::BASE
};

const NAME: &str = "default";

fn its_namespace(_: &World, change: &Change) -> Vec<Key> {
    let key = change.key();
    if &*key.name == NAME { vec![Key::new("", key.namespace.clone())] } else { Vec::new() }
}

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(namespace) = world.get::<Namespace>(key) else { return plan };
    let account = world.entry(&kinds::SERVICE_ACCOUNTS, &Key::new(key.name.clone(), NAME));
    if account.is_none() && namespace.metadata.deletion_timestamp.is_none() {
        plan.write(Write::create(&ServiceAccount {
            metadata: ObjectMeta {
                namespace: Some(key.name.to_string()),
                name: Some(NAME.to_string()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use crate::testing::plan;
    use crate::{root_ca, service_account};

    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: dev}\n";

    #[test]
    fn a_namespace_gets_its_account_and_its_certificate_once() {
        let text = plan(service_account::CONTROLLER, NAMESPACE, "", "dev");
        assert!(text.starts_with("create serviceaccounts dev/default "), "{text}");
        let text = plan(root_ca::CONTROLLER, NAMESPACE, "", "dev");
        assert!(text.starts_with("create configmaps dev/kube-root-ca.crt "), "{text}");
        assert!(text.contains("\"ca.crt\":\"CERTIFICATE\""), "{text}");
        let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: dev}\n";
        let world = NAMESPACE.to_string() + account;
        assert_eq!(plan(service_account::CONTROLLER, &world, "", "dev"), "nothing\n");
    }

    #[test]
    fn a_changed_certificate_is_put_right() {
        let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-root-ca.crt, namespace: dev}\ndata: {ca.crt: other}\n";
        let text = plan(root_ca::CONTROLLER, &(NAMESPACE.to_string() + map), "", "dev");
        assert!(text.starts_with("patch configmaps dev/kube-root-ca.crt"), "{text}");
        let right = map.replace("other", "CERTIFICATE");
        assert_eq!(plan(root_ca::CONTROLLER, &(NAMESPACE.to_string() + &right), "", "dev"), "nothing\n");
    }

    #[test]
    fn a_namespace_that_is_going_gets_nothing() {
        let going = NAMESPACE.replace("dev}", "dev, deletionTimestamp: 2026-01-01T00:00:00Z}");
        assert_eq!(plan(service_account::CONTROLLER, &going, "", "dev"), "nothing\n");
        assert_eq!(plan(root_ca::CONTROLLER, &going, "", "dev"), "nothing\n");
    }
}
