//! What an expression may be: types, how they are written in messages, and which fits which. A type
//! may carry how many elements its values have at most, which only the cost estimate reads.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

/// A type of CEL. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Type {
    pub kind: Kind,
    /// Bytes of a string, elements of a list or map: the most there can be; `None`: nobody says.
    pub max: Option<u64>,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// Anything; checked when it is evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<ListType>),
    /// Key and value.
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// The type of a type.
    TypeOf(Arc<Type>),
    Object(Arc<ObjectType>),
    /// A type of a library, known by its name only: `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A parameter of a function's signature, or one that is not known yet.
    Param(u32),
    /// Already reported; fits everything.
    Error,
}

#[derive(Clone, Debug)]
pub struct ListType {
    pub element: Type,
    pub identity: Identity,
}

/// `x-kubernetes-list-type`: when two lists are equal, and what their sum is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    #[default]
    Atomic,
    /// Each element once, in no order.
    Set,
    /// Objects known by these fields (JSON names), in no order.
    Map(Vec<Box<str>>),
}

/// An object with declared fields.
#[derive(Debug, Default)]
pub struct ObjectType {
    pub name: String,
    /// By escaped name (see [`crate::escape`]).
    pub fields: BTreeMap<String, Field>,
    /// Any field may be asked for and set, and is dynamic: `Object` of a MutatingAdmissionPolicy.
    pub open: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// As JSON has it.
    pub json: Box<str>,
    pub ty: Type,
}

impl Kind {
    /// No bound on its elements.
    pub const fn ty(self) -> Type {
        Type { kind: self, max: None }
    }
}

impl Type {
    pub const DYN: Type = Kind::Dyn.ty();
    pub const NULL: Type = Kind::Null.ty();
    pub const BOOL: Type = Kind::Bool.ty();
    pub const INT: Type = Kind::Int.ty();
    pub const UINT: Type = Kind::Uint.ty();
    pub const DOUBLE: Type = Kind::Double.ty();
    pub const STRING: Type = Kind::String.ty();
    pub const BYTES: Type = Kind::Bytes.ty();
    pub const TIMESTAMP: Type = Kind::Timestamp.ty();
    pub const DURATION: Type = Kind::Duration.ty();
    pub const ERROR: Type = Kind::Error.ty();
    pub const AUTHORIZER: Type = Kind::Opaque("kubernetes.authorization.Authorizer").ty();
    pub const RESOURCE_CHECK: Type = Kind::Opaque("kubernetes.authorization.ResourceCheck").ty();

    pub fn list(element: Type) -> Type {
        Type::list_of(element, Identity::Atomic)
    }

    pub fn list_of(element: Type, identity: Identity) -> Type {
        Kind::List(Arc::new(ListType { element, identity })).ty()
    }

    pub fn map(key: Type, value: Type) -> Type {
        Kind::Map(Arc::new((key, value))).ty()
    }

    pub fn optional(inner: Type) -> Type {
        Kind::Optional(Arc::new(inner)).ty()
    }

    pub fn type_of(inner: Type) -> Type {
        Kind::TypeOf(Arc::new(inner)).ty()
    }

    /// An object of these fields: escaped or plain names (they are escaped here) and their types. A
    /// name that has no escaped form cannot be reached and is left out.
    pub fn object<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Type)>) -> Type {
        let fields = fields
            .into_iter()
            .filter_map(|(json, ty)| Some((crate::escape(json)?, Field { json: json.into(), ty })));
        let object = ObjectType { name: name.into(), fields: fields.collect(), open: false };
        Kind::Object(Arc::new(object)).ty()
    }

    /// An object any field of which may be read or set.
    pub fn open_object(name: &str) -> Type {
        let object = ObjectType { name: name.into(), fields: BTreeMap::new(), open: true };
        Kind::Object(Arc::new(object)).ty()
    }

    /// The same type, its values with at most `max` elements.
    pub fn at_most(self, max: u64) -> Type {
        Type { max: Some(max), ..self }
    }

    /// How many lists, maps and optionals are within each other.
    pub fn levels(&self) -> usize {
        match &self.kind {
            Kind::List(list) => 1 + list.element.levels(),
            Kind::Map(map) => 1 + map.1.levels(),
            Kind::Optional(inner) | Kind::TypeOf(inner) => 1 + inner.levels(),
            _ => 0,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self.kind, Kind::Dyn | Kind::Error)
    }

    /// Of one size, whatever its value.
    pub(crate) fn is_scalar(&self) -> bool {
        use Kind::{Bool, Duration, Int, Null, Optional, Timestamp, Uint};
        match &self.kind {
            Bool | Int | Uint | Kind::Double | Duration | Timestamp | Null => true,
            Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }

    pub(crate) fn element(&self) -> Option<&Type> {
        match &self.kind {
            Kind::List(list) => Some(&list.element),
            Kind::Map(map) => Some(&map.1),
            _ => None,
        }
    }
}

/// Sizes and list identities do not tell types apart.
impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::List(a), Kind::List(b)) => a.element == b.element,
            (Kind::Map(a), Kind::Map(b)) => a == b,
            (Kind::Optional(a), Kind::Optional(b)) | (Kind::TypeOf(a), Kind::TypeOf(b)) => a == b,
            (Kind::Object(a), Kind::Object(b)) => a.name == b.name,
            (Kind::Opaque(a), Kind::Opaque(b)) => a == b,
            (Kind::Param(a), Kind::Param(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

/// As upstream's messages write types.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Dyn => "dyn",
            Kind::Null => "null",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Timestamp => "timestamp",
            Kind::Duration => "duration",
            Kind::List(list) => return write!(f, "list({})", list.element),
            Kind::Map(map) => return write!(f, "map({}, {})", map.0, map.1),
            Kind::Optional(inner) => return write!(f, "optional_type({inner})"),
            Kind::TypeOf(inner) => return write!(f, "type({inner})"),
            Kind::Object(object) => &object.name,
            Kind::Opaque(name) => name,
            Kind::Param(number) => return write!(f, "_var{number}"),
            Kind::Error => "!error!",
        })
    }
}

/// What the parameters of signatures turned out to be.
#[derive(Default)]
pub(crate) struct Bindings {
    bound: HashMap<u32, Type>,
    /// In the order they were bound, so that a try can be undone.
    trail: Vec<u32>,
    next: u32,
}

impl Bindings {
    pub(crate) fn mark(&self) -> (usize, u32) {
        (self.trail.len(), self.next)
    }

    /// As it was at the mark.
    pub(crate) fn undo(&mut self, mark: (usize, u32)) {
        for number in self.trail.drain(mark.0..) {
            self.bound.remove(&number);
        }
        self.next = mark.1;
    }

    pub(crate) fn fresh(&mut self) -> Type {
        self.next += 1;
        Kind::Param(self.next).ty()
    }

    /// The number from which the parameters of a signature are counted, so that they are its own.
    pub(crate) fn reserve(&mut self, count: u32) -> u32 {
        let base = self.next + 1;
        self.next += count;
        base
    }

    /// True if a value of `from` may stand where `to` is wanted; binds parameters of both.
    pub(crate) fn assignable(&mut self, to: &Type, from: &Type) -> bool {
        let (to, from) = (self.shallow(to), self.shallow(from));
        match (&to.kind, &from.kind) {
            (Kind::Param(a), Kind::Param(b)) if a == b => true,
            (Kind::Param(a), _) => self.bind(*a, &from),
            (_, Kind::Param(b)) => self.bind(*b, &to),
            (Kind::Dyn | Kind::Error, _) | (_, Kind::Dyn | Kind::Error) => true,
            (Kind::List(a), Kind::List(b)) => self.assignable(&a.element, &b.element),
            (Kind::Map(a), Kind::Map(b)) => {
                self.assignable(&a.0, &b.0) && self.assignable(&a.1, &b.1)
            }
            (Kind::Optional(a), Kind::Optional(b)) => self.assignable(a, b),
            (Kind::TypeOf(_), Kind::TypeOf(_)) => true,
            // Objects, and those of libraries, may be null.
            (Kind::Object(_) | Kind::Opaque(_) | Kind::Timestamp | Kind::Duration, Kind::Null)
            | (Kind::Null, Kind::Object(_) | Kind::Opaque(_) | Kind::Timestamp | Kind::Duration) => {
                true
            }
            _ => to == from,
        }
    }

    fn bind(&mut self, number: u32, ty: &Type) -> bool {
        if self.occurs(number, ty) {
            return false;
        }
        self.bound.insert(number, ty.clone());
        self.trail.push(number);
        true
    }

    fn occurs(&self, number: u32, ty: &Type) -> bool {
        match &self.shallow(ty).kind {
            Kind::Param(other) => *other == number,
            Kind::List(list) => self.occurs(number, &list.element),
            Kind::Map(map) => self.occurs(number, &map.0) || self.occurs(number, &map.1),
            Kind::Optional(inner) | Kind::TypeOf(inner) => self.occurs(number, inner),
            _ => false,
        }
    }

    fn shallow(&self, ty: &Type) -> Type {
        let mut ty = ty;
        while let Kind::Param(number) = &ty.kind
            && let Some(bound) = self.bound.get(number)
        {
            ty = bound;
        }
        ty.clone()
    }

    /// With every parameter that is known put in; the others stay.
    pub(crate) fn resolve(&self, ty: &Type) -> Type {
        let ty = self.shallow(ty);
        let kind = match &ty.kind {
            Kind::List(list) => {
                let (element, identity) = (self.resolve(&list.element), list.identity.clone());
                Kind::List(Arc::new(ListType { element, identity }))
            }
            Kind::Map(map) => Kind::Map(Arc::new((self.resolve(&map.0), self.resolve(&map.1)))),
            Kind::Optional(inner) => Kind::Optional(Arc::new(self.resolve(inner))),
            Kind::TypeOf(inner) => Kind::TypeOf(Arc::new(self.resolve(inner))),
            kind => kind.clone(),
        };
        Type { kind, max: ty.max }
    }

    /// As [`Bindings::resolve`]; what is still unknown may be anything.
    pub(crate) fn settle(&self, ty: &Type) -> Type {
        let ty = self.resolve(ty);
        let kind = match &ty.kind {
            Kind::Param(_) => Kind::Dyn,
            Kind::List(list) => {
                let (element, identity) = (self.settle(&list.element), list.identity.clone());
                Kind::List(Arc::new(ListType { element, identity }))
            }
            Kind::Map(map) => Kind::Map(Arc::new((self.settle(&map.0), self.settle(&map.1)))),
            Kind::Optional(inner) => Kind::Optional(Arc::new(self.settle(inner))),
            Kind::TypeOf(inner) => Kind::TypeOf(Arc::new(self.settle(inner))),
            kind => kind.clone(),
        };
        Type { kind, max: ty.max }
    }
}

/// Moves the parameters of a signature to numbers of their own.
pub(crate) fn shifted(ty: &Type, base: u32) -> Type {
    let kind = match &ty.kind {
        Kind::Param(number) => Kind::Param(base + number),
        Kind::List(list) => Kind::List(Arc::new(ListType {
            element: shifted(&list.element, base),
            identity: Identity::Atomic,
        })),
        Kind::Map(map) => Kind::Map(Arc::new((shifted(&map.0, base), shifted(&map.1, base)))),
        Kind::Optional(inner) => Kind::Optional(Arc::new(shifted(inner, base))),
        Kind::TypeOf(inner) => Kind::TypeOf(Arc::new(shifted(inner, base))),
        kind => kind.clone(),
    };
    Type { kind, max: ty.max }
}
