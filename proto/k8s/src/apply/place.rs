//! What the schema says of one place in an object, as apply sees it: is it owned as a whole, field by
//! field, or entry by entry. Built-in types answer from the fact table; custom resources bring their
//! own [`Place`].

use crate::schema::{Element, Field, ListType, Schema, Shape, TypeId};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// What a scalar may be, for refusing an applied configuration that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Text,
    Number,
    Bool,
    /// Any of these.
    Any,
}

/// How two writers share a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind<'s> {
    Atomic,
    Set,
    /// Entries are told apart by these fields.
    Keyed(&'s [Box<str>]),
}

/// What may stand at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'s, P> {
    Scalar(Scalar),
    List {
        element: P,
        kind: ListKind<'s>,
    },
    /// A map or a struct; `atomic`: owned as a whole.
    Map {
        atomic: bool,
    },
    /// Anything: a map is owned field by field, all else as a whole.
    Deduced,
    /// Anything, owned as a whole.
    Whole,
}

/// A place in a schema.
pub trait Place<'s>: Copy {
    fn form(self) -> Form<'s, Self>;

    /// The place of a field of a struct or of any entry of a map; `None` if there can be none.
    fn field(self, name: &str) -> Option<Self>;

    /// True if `name` is a field of a struct here and not an entry of a map.
    fn names(self, name: &str) -> bool;

    /// What upstream sees in a field that is absent here although its struct is there: Go has no
    /// absence for some.
    fn implied(self, name: &str) -> Option<&'static Value>;

    /// The default of a field of this struct, for keys of lists.
    fn default_of(self, name: &str) -> Option<&'s Value>;

    /// True if this schema may have been another when the managed fields of an object were written.
    fn may_have_changed(self) -> bool;
}

/// A place in a built-in type.
#[derive(Clone, Copy)]
pub struct BuiltIn<'s> {
    schema: &'s Schema,
    at: At<'s>,
}

#[derive(Clone, Copy)]
enum At<'s> {
    Struct(TypeId),
    Field(&'s Field),
    /// An entry of the list or map in the field.
    Entry(&'s Field),
    /// Below something whose form the schema does not know.
    Deduced,
}

impl<'s> BuiltIn<'s> {
    /// The root of objects of this type.
    pub fn new(schema: &'s Schema, ty: TypeId) -> BuiltIn<'s> {
        BuiltIn { schema, at: At::Struct(ty) }
    }

    /// The struct at this place.
    fn structure(self) -> Option<TypeId> {
        match self.at {
            At::Struct(ty) => Some(ty),
            At::Field(field) if field.shape == Shape::One => field.message(),
            At::Entry(field) => field.message(),
            _ => None,
        }
    }

    fn at(self, at: At<'s>) -> BuiltIn<'s> {
        BuiltIn { at, ..self }
    }

    fn element(self, field: &'s Field, atomic: bool) -> Form<'s, Self> {
        match field.element {
            Element::String | Element::Bytes => Form::Scalar(Scalar::Text),
            Element::Bool => Form::Scalar(Scalar::Bool),
            Element::Int32 | Element::Int64 | Element::Float64 => Form::Scalar(Scalar::Number),
            Element::Time
            | Element::MicroTime
            | Element::Duration
            | Element::IntOrString
            | Element::Quantity => Form::Scalar(Scalar::Any),
            Element::RawExtension | Element::StringList => Form::Whole,
            Element::Message(id) => {
                let ty = self.schema.ty(id);
                if ty.properties().is_empty() && !atomic {
                    return Form::Deduced;
                }
                Form::Map { atomic: atomic || (ty.atomic && !field.granular) }
            }
            _ => Form::Deduced,
        }
    }
}

impl<'s> Place<'s> for BuiltIn<'s> {
    fn form(self) -> Form<'s, Self> {
        match self.at {
            At::Struct(ty) => Form::Map { atomic: self.schema.ty(ty).atomic },
            At::Field(field) => match field.shape {
                Shape::One => self.element(field, field.atomic),
                Shape::List => {
                    Form::List { element: self.at(At::Entry(field)), kind: list_kind(field) }
                }
                Shape::Map => Form::Map { atomic: field.atomic },
            },
            At::Entry(field) => self.element(field, false),
            At::Deduced => Form::Deduced,
        }
    }

    fn field(self, name: &str) -> Option<Self> {
        if let Some(ty) = self.structure() {
            let ty = self.schema.ty(ty);
            return match ty.field(name) {
                Some(field) => Some(self.at(At::Field(field))),
                None if ty.properties().is_empty() => Some(self.at(At::Deduced)),
                // `apiVersion` and `kind` are in no table.
                None if ty.has_type_meta() && matches!(name, "apiVersion" | "kind") => {
                    Some(self.at(At::Deduced))
                }
                None => None,
            };
        }
        match self.at {
            At::Field(field) if field.shape == Shape::Map => Some(self.at(At::Entry(field))),
            _ => matches!(self.form(), Form::Deduced | Form::Whole).then(|| self.at(At::Deduced)),
        }
    }

    fn names(self, name: &str) -> bool {
        self.structure().is_some_and(|ty| self.schema.ty(ty).field(name).is_some())
    }

    fn implied(self, name: &str) -> Option<&'static Value> {
        static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
        static ZERO: LazyLock<Value> = LazyLock::new(|| 0.into());
        static TEXT: LazyLock<Value> = LazyLock::new(|| "".into());
        let field = self.schema.ty(self.structure()?).field(name)?;
        if field.pointer {
            return None;
        }
        if field.omit_zero {
            // Manifests that tools print say `creationTimestamp: null`, which means nothing.
            return (field.element == Element::Time).then_some(&Value::Null);
        }
        match (field.shape, field.element) {
            (Shape::One, Element::Message(_)) => Some(&EMPTY),
            _ if field.omit_empty => None,
            (Shape::One, Element::String) => Some(&TEXT),
            (Shape::One, Element::Bool) => Some(&Value::Bool(false)),
            (Shape::One, Element::Int32 | Element::Int64 | Element::Float64) => Some(&ZERO),
            (Shape::One, Element::IntOrString) => Some(&ZERO),
            _ => Some(&Value::Null),
        }
    }

    fn default_of(self, name: &str) -> Option<&'s Value> {
        self.schema.ty(self.structure()?).field(name)?.default.as_ref()
    }

    fn may_have_changed(self) -> bool {
        false
    }
}

/// Lists that say nothing for apply but are merged by strategic merge patch are shared the same way.
fn list_kind(field: &Field) -> ListKind<'_> {
    match (field.list_type, &field.patch_merge_key) {
        (Some(ListType::Map), _) => ListKind::Keyed(&field.list_map_keys),
        (Some(ListType::Set), _) => ListKind::Set,
        (Some(ListType::Atomic), _) => ListKind::Atomic,
        (None, Some(key)) if field.patch.merge => ListKind::Keyed(std::slice::from_ref(key)),
        (None, None) if field.patch.merge => ListKind::Set,
        (None, _) => ListKind::Atomic,
    }
}

/// How the value at a place is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk<'s, P> {
    /// As a whole.
    Leaf,
    Fields,
    Entries(P, ListKind<'s>),
}

/// By the form of the place and, where that leaves it open, by the value.
pub(super) fn walk_of<'s, P: Place<'s>>(place: P, value: &Value) -> Walk<'s, P> {
    match (place.form(), value) {
        (Form::Map { atomic: false } | Form::Deduced, Value::Object(_) | Value::Null) => {
            Walk::Fields
        }
        (Form::List { element, kind }, Value::Array(_) | Value::Null)
            if kind != ListKind::Atomic =>
        {
            Walk::Entries(element, kind)
        }
        _ => Walk::Leaf,
    }
}

/// The entries of a map; those of `null` and of anything else are none.
pub(super) fn fields_of(value: &Value) -> &Map<String, Value> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

pub(super) fn entries_of(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `null`, `{}`, `[]`: as good as nothing where fields or entries are owned one by one.
pub(super) fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// The step to an entry of a list that is shared; `Err` says why it has none.
pub(super) fn step_of<'s, P: Place<'s>>(
    element: P,
    kind: ListKind<'s>,
    entry: &Value,
) -> Result<String, String> {
    let ListKind::Keyed(keys) = kind else {
        return match entry {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".into())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".into())
            }
            scalar => Ok(super::step::value(scalar)),
        };
    };
    let Value::Object(fields) = entry else {
        let what = if entry.is_null() { "a null element" } else { "non-map elements" };
        return Err(format!("associative list with keys may not have {what}"));
    };
    let value = |key: &'s str| Some((key, fields.get(key).or_else(|| element.default_of(key))?));
    let pairs: Vec<_> = keys.iter().filter_map(|key| value(key)).collect();
    if pairs.is_empty() && !keys.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|key| crate::text::go_quote(key)).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't \
             have default values for any key fields)",
            quoted.join(" ")
        ));
    }
    Ok(super::step::keys(pairs))
}
