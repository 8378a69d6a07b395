//! A kind at run time: the handle that a request holds from routing to its answer. Never looks
//! anything up by itself.

use crate::kinds::KindDef;
use k8s::schema::{Schema, TypeId};
use std::{fmt, ops::Deref};

/// A kind as it is served now. Cheap to clone; all that is the same for every version is in the
/// [`KindDef`] it derefs to.
#[derive(Clone)]
pub struct Kind(&'static KindDef);

impl Kind {
    /// The type of its objects in `version`, with the schema the type is of.
    pub fn schema(&self, _version: &str) -> Option<(&Schema, TypeId)> {
        let schema = Schema::built_in();
        schema.get(self.0.schema).map(|ty| (schema, ty))
    }
}

impl Deref for Kind {
    type Target = KindDef;

    fn deref(&self) -> &KindDef {
        self.0
    }
}

impl From<&'static KindDef> for Kind {
    fn from(kind: &'static KindDef) -> Kind {
        Kind(kind)
    }
}

/// `deployments.apps`
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.plural, self.group)
    }
}
