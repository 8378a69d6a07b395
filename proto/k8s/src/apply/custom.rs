//! Places in objects of any kind. Those of custom kinds come straight from the structural schema, which
//! says more than the schema it is translated into for all else: what is unknown but allowed, and
//! that below.

use super::place::{BuiltIn, Form, ListKind, Place, Scalar};
use crate::{
    schema::{ListType, Schema, TypeId},
    structural::{Additional, Node, Ty},
};
use serde_json::Value;

/// A place in an object of any kind.
#[derive(Clone, Copy)]
pub struct AnyKind<'s>(At<'s>);

#[derive(Clone, Copy)]
enum At<'s> {
    BuiltIn(BuiltIn<'s>),
    /// In the metadata of a custom object, which no Go struct holds.
    Metadata(BuiltIn<'s>),
    Node(Custom<'s>),
    /// `apiVersion` and `kind`.
    Text,
    /// Where nothing is said: maps are owned field by field.
    Deduced,
    /// Where nothing is said, and everything is owned as a whole.
    Whole,
}

/// A value of a structural schema.
#[derive(Clone, Copy)]
struct Custom<'s> {
    node: &'s Node,
    /// Unknown fields are kept here or anywhere above, which upstream's apply takes for here too.
    open: bool,
    /// It has `apiVersion`, `kind` and `metadata`.
    object: bool,
}

impl<'s> AnyKind<'s> {
    /// The root of objects of a built-in type.
    pub fn built_in(schema: &'s Schema, ty: TypeId) -> AnyKind<'s> {
        AnyKind(At::BuiltIn(BuiltIn::new(schema, ty)))
    }

    /// The root of objects of a custom kind.
    pub fn custom(node: &'s Node) -> AnyKind<'s> {
        AnyKind(At::Node(Custom { node, open: node.preserve_unknown_fields, object: true }))
    }
}

impl<'s> Custom<'s> {
    fn below(self, node: &'s Node) -> AnyKind<'s> {
        let open = self.open || node.preserve_unknown_fields;
        AnyKind(At::Node(Custom { node, open, object: node.embedded_resource }))
    }

    fn form(self) -> Form<'s, AnyKind<'s>> {
        let node = self.node;
        match node.ty {
            _ if node.int_or_string => Form::Deduced,
            Ty::Any if node.atomic => Form::Whole,
            Ty::Any => Form::Deduced,
            Ty::Object => Form::Map { atomic: node.atomic },
            Ty::Array => {
                let whole = AnyKind(At::Whole);
                let element = node.items.as_deref().map_or(whole, |items| self.below(items));
                Form::List { element, kind: self.list_kind() }
            }
            Ty::Integer | Ty::Number => Form::Scalar(Scalar::Number),
            Ty::Boolean => Form::Scalar(Scalar::Bool),
            Ty::String if matches!(&*node.limits.format, "" | "byte") => Form::Scalar(Scalar::Text),
            Ty::String => Form::Scalar(Scalar::Any),
        }
    }

    fn list_kind(self) -> ListKind<'s> {
        match self.node.list_type {
            Some(ListType::Map) => ListKind::Keyed(&self.node.list_map_keys),
            Some(ListType::Set) => ListKind::Set,
            Some(ListType::Atomic) | None => ListKind::Atomic,
        }
    }

    fn field(self, name: &str) -> Option<AnyKind<'s>> {
        let node = self.node;
        if !matches!(node.ty, Ty::Object | Ty::Any) {
            return None;
        }
        match name {
            "apiVersion" | "kind" if self.object => return Some(AnyKind(At::Text)),
            "metadata" if self.object => return metadata(),
            _ => {}
        }
        if let Some(declared) = node.properties.get(name) {
            return Some(self.below(declared));
        }
        let bare = node.properties.is_empty() && !self.object;
        match &node.additional {
            Additional::Each(each) => Some(self.below(each)),
            Additional::Allowed => Some(AnyKind(At::Deduced)),
            Additional::Unsaid if self.open || bare => Some(AnyKind(At::Deduced)),
            Additional::Unsaid | Additional::Forbidden => None,
        }
    }

    fn names(self, name: &str) -> bool {
        let own = matches!(name, "apiVersion" | "kind" | "metadata");
        (own && self.object) || self.node.properties.contains_key(name)
    }
}

fn metadata<'s>() -> Option<AnyKind<'s>> {
    let schema = Schema::built_in();
    let ty = schema.get("meta.v1.ObjectMeta")?;
    Some(AnyKind(At::Metadata(BuiltIn::new(schema, ty))))
}

/// The same form around places of another kind.
fn around<'s>(form: Form<'s, BuiltIn<'s>>, at: fn(BuiltIn<'s>) -> At<'s>) -> Form<'s, AnyKind<'s>> {
    match form {
        Form::Scalar(scalar) => Form::Scalar(scalar),
        Form::List { element, kind } => Form::List { element: AnyKind(at(element)), kind },
        Form::Map { atomic } => Form::Map { atomic },
        Form::Deduced => Form::Deduced,
        Form::Whole => Form::Whole,
    }
}

impl<'s> Place<'s> for AnyKind<'s> {
    fn form(self) -> Form<'s, Self> {
        match self.0 {
            At::BuiltIn(place) => around(place.form(), At::BuiltIn),
            At::Metadata(place) => around(place.form(), At::Metadata),
            At::Node(custom) => custom.form(),
            At::Text => Form::Scalar(Scalar::Text),
            At::Deduced => Form::Deduced,
            At::Whole => Form::Whole,
        }
    }

    fn field(self, name: &str) -> Option<Self> {
        match self.0 {
            At::BuiltIn(place) => place.field(name).map(|place| AnyKind(At::BuiltIn(place))),
            At::Metadata(place) => place.field(name).map(|place| AnyKind(At::Metadata(place))),
            At::Node(custom) => custom.field(name),
            At::Text => None,
            At::Deduced | At::Whole => Some(self),
        }
    }

    fn names(self, name: &str) -> bool {
        match self.0 {
            At::BuiltIn(place) | At::Metadata(place) => place.names(name),
            At::Node(custom) => custom.names(name),
            At::Text | At::Deduced | At::Whole => false,
        }
    }

    fn implied(self, name: &str) -> Option<&'static Value> {
        match self.0 {
            At::BuiltIn(place) => place.implied(name),
            _ => None,
        }
    }

    fn default_of(self, name: &str) -> Option<&'s Value> {
        match self.0 {
            At::BuiltIn(place) | At::Metadata(place) => place.default_of(name),
            At::Node(custom) => custom.node.properties.get(name)?.default.as_ref(),
            At::Text | At::Deduced | At::Whole => None,
        }
    }

    fn may_have_changed(self) -> bool {
        !matches!(self.0, At::BuiltIn(_))
    }
}
