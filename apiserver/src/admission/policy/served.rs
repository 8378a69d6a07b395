//! The kinds policies speak of, as they are served now, with the types their expressions see.

use crate::{catalog, custom, kind::Kind, kinds, view::View};
use k8s::schema::Schema;
use kcel::{Field, ObjectType, Type};
use std::sync::Arc;

/// The kind an `apiVersion` and `kind` name.
pub(super) fn by_kind(view: &dyn View, api_version: &str, kind: &str) -> Option<Kind> {
    if let Some(built_in) = catalog::by_kind(api_version, kind) {
        return Some(Kind::from(built_in));
    }
    let (group, version) = api_version.split_once('/')?;
    find(view, |def| def.group == group && def.kind == kind && def.versions.contains(&version))
}

/// The kind served as `plural`.
pub(super) fn by_plural(view: &dyn View, group: &str, version: &str, plural: &str) -> Option<Kind> {
    if let Some(built_in) = kinds::find(group, plural) {
        return built_in.versions.contains(&version).then(|| Kind::from(built_in));
    }
    find(view, |def| def.group == group && def.plural == plural && def.versions.contains(&version))
}

fn find(view: &dyn View, wanted: impl Fn(&kinds::KindDef) -> bool) -> Option<Kind> {
    let definitions = view.range(custom::SPACE, "");
    let mut kinds = definitions.iter().flat_map(|stored| custom::definition::kinds(stored));
    kinds.find(|kind| wanted(&kind.def)).map(Kind::from)
}

/// What expressions see of an object; `None`: nothing is known of it.
pub(super) fn type_of(kind: &Kind) -> Option<Type> {
    let built_in = Schema::built_in();
    let of = |name: &str| built_in.get(name).map(|id| kcel::of_schema(built_in, id));
    let Some(custom) = kind.custom() else { return of(kind.schema) };
    let ty = kcel::of_open_api(kind.kind, &custom.version().source, true)?;
    let kcel::Kind::Object(object) = &ty.kind else { return None };
    // A definition says little of metadata, and every object has all of it.
    let metadata = Field { json: "metadata".into(), ty: of("meta.v1.ObjectMeta")? };
    let mut fields = object.fields.clone();
    fields.insert("metadata".into(), metadata);
    let object = ObjectType { name: object.name.clone(), fields, open: object.open };
    Some(kcel::Kind::Object(Arc::new(object)).ty())
}
