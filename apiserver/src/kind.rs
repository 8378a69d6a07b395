//! A kind at run time: the handle that a request holds from routing to its answer. Never looks
//! anything up by itself.

use crate::{
    custom::CustomKind,
    kinds::{Column, KindDef},
};
use jiff::Timestamp;
use k8s::{
    Object,
    apply::AnyKind,
    schema::{Schema, TypeId},
};
use serde_json::{Value, json};
use std::{fmt, ops::Deref, sync::Arc};

/// A kind as it is served now. Cheap to clone; all that any kind has is in the [`KindDef`] it derefs
/// to. Of a custom kind each version is a handle of its own, because each has its own subresources,
/// columns and selectable fields.
#[derive(Clone)]
pub struct Kind(Origin);

#[derive(Clone)]
enum Origin {
    BuiltIn(&'static KindDef),
    Custom(Arc<CustomKind>),
}

impl Kind {
    /// The type of its objects in `version`, with the schema the type is of.
    pub fn schema(&self, version: &str) -> Option<(&Schema, TypeId)> {
        match &self.0 {
            Origin::BuiltIn(kind) => built_in(kind.schema_of(version)),
            Origin::Custom(custom) => {
                let (schema, ty) = &custom.version().schema;
                Some((schema, *ty))
            }
        }
    }

    /// What the schema says of its objects in `version`, to those who merge them.
    pub(crate) fn place(&self, version: &str) -> Option<AnyKind<'_>> {
        match &self.0 {
            Origin::BuiltIn(kind) => {
                let (schema, ty) = built_in(kind.schema_of(version))?;
                Some(AnyKind::built_in(schema, ty))
            }
            Origin::Custom(custom) => Some(AnyKind::custom(&custom.version().node)),
        }
    }

    /// The type of what is stored. Of a custom kind each version is a handle of its own.
    pub fn stored_schema(&self) -> Option<(&Schema, TypeId)> {
        match &self.0 {
            Origin::BuiltIn(kind) => built_in(kind.schema),
            Origin::Custom(_) => self.schema(""),
        }
    }

    /// What a CustomResourceDefinition says of it; `None` for a built-in kind.
    pub(crate) fn custom(&self) -> Option<&CustomKind> {
        match &self.0 {
            Origin::BuiltIn(_) => None,
            Origin::Custom(custom) => Some(custom),
        }
    }

    /// The other served versions that an object of `version` can be shown in without asking anybody.
    pub(crate) fn equivalents(&self, version: &str) -> Vec<&'static str> {
        let all = match &self.0 {
            Origin::BuiltIn(kind) => kind.versions.to_vec(),
            Origin::Custom(custom) => custom.definition.alike(),
        };
        all.into_iter().filter(|other| *other != version).collect()
    }

    /// The columns of a table, in order.
    pub(crate) fn column_definitions(&self) -> Vec<Value> {
        match &self.0 {
            Origin::BuiltIn(kind) => kind.columns.iter().map(definition).collect(),
            Origin::Custom(custom) => custom.version().columns.definitions(),
        }
    }

    /// One row of it.
    pub(crate) fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        match &self.0 {
            Origin::BuiltIn(kind) => {
                kind.columns.iter().map(|column| (column.value)(object, now)).collect()
            }
            Origin::Custom(custom) => custom.version().columns.cells(object, now),
        }
    }

    /// The place of a field among [`Kind::selectable_values`]; `None` if nobody can select by it.
    pub(crate) fn selectable_at(&self, path: &str) -> Option<usize> {
        match &self.0 {
            Origin::BuiltIn(kind) => kind.selectable.iter().position(|field| field.path == path),
            Origin::Custom(custom) => custom.version().selectable_at(path),
        }
    }

    /// What an object has in the selectable fields.
    pub(crate) fn selectable_values(&self, object: &Object) -> Box<[Box<str>]> {
        match &self.0 {
            Origin::BuiltIn(kind) => {
                kind.selectable.iter().map(|field| (field.value)(object).into()).collect()
            }
            Origin::Custom(custom) => custom.version().selectable_values(object),
        }
    }

    /// Differs between any two states of a kind that show the same bytes differently.
    pub(crate) fn state(&self) -> u64 {
        self.custom().map_or(0, |custom| custom.definition.revision)
    }
}

fn built_in(name: &str) -> Option<(&'static Schema, TypeId)> {
    let schema = Schema::built_in();
    schema.get(name).map(|ty| (schema, ty))
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": "",
        "priority": column.priority,
    })
}

impl Deref for Kind {
    type Target = KindDef;

    fn deref(&self) -> &KindDef {
        match &self.0 {
            Origin::BuiltIn(kind) => kind,
            Origin::Custom(custom) => &custom.def,
        }
    }
}

impl From<&'static KindDef> for Kind {
    fn from(kind: &'static KindDef) -> Kind {
        Kind(Origin::BuiltIn(kind))
    }
}

impl From<CustomKind> for Kind {
    fn from(kind: CustomKind) -> Kind {
        Kind(Origin::Custom(Arc::new(kind)))
    }
}

/// `deployments.apps`
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.plural, self.group)
    }
}
