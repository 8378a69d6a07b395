//! `namespaces/finalize`: only `spec.finalizers` changes; without any, the deletion completes.

use crate::pipeline::{Call, Core, Old, Reply, Type, Wanted};
use k8s::{Object, Status};

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted = Type::of(&call.kind, &call.version);
    let validation = call.options.field_validation.as_deref();
    let (sent, warnings) = core.decode(&wanted, &call.body, validation)?;
    let change = |old: &Old<'_>| {
        let mut new = Object::clone(old);
        let finalizers = sent.at("/spec/finalizers").cloned();
        match finalizers.filter(|list| list.as_array().is_some_and(|list| !list.is_empty())) {
            Some(finalizers) => new.map_mut("spec").insert("finalizers".into(), finalizers),
            None => new.map_mut("spec").remove("finalizers"),
        };
        let expected = sent.revision().filter(|revision| revision.0 != 0);
        Ok(Wanted { new, expected })
    };
    let reply = core.modify(&call, &change).await?;
    Ok(Reply { warnings, ..reply })
}
