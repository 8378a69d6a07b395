//! A structural schema as a [`Schema`]: what apply, patches and OpenAPI walk for every kind.
//!
//! A message is an object with declared fields ([`Type::open`] if it may have more), a map one with
//! `additionalProperties`. What a [`Field`] cannot say in one word (a list of lists, a map of lists)
//! becomes a message whose type stands for one field ([`Type::whole`]).

use super::{Additional, Node, Ty};
use crate::schema::{Element, Field, Schema, Shape, Type, TypeId};

/// Types that objects of every kind are made of.
const IMPORTED: &str = "meta.v1.ObjectMeta";

impl Schema {
    /// The schema of a custom kind: `name` as `com.example.v1.Widget`, `root` of its objects.
    pub fn custom(name: &str, root: &Node) -> (Schema, TypeId) {
        let mut schema = Schema::default();
        let meta = schema.import(Schema::built_in(), IMPORTED);
        let id = schema.object(name, root, Some(meta));
        (schema, id)
    }

    /// `node` as a message of its own.
    fn object(&mut self, name: &str, node: &Node, meta: Option<TypeId>) -> TypeId {
        // Declared before its fields, so that numbers of types grow from the root down.
        let id = self.reserve(name);
        let mut fields = Vec::new();
        if let Some(meta) = meta {
            fields.push(Field::new("metadata", Shape::One, Element::Message(meta)));
        }
        for (json, child) in &node.properties {
            let own = matches!(&**json, "apiVersion" | "kind" | "metadata");
            if !(own && meta.is_some()) {
                fields.push(self.field(&format!("{name}.{json}"), json, child));
            }
        }
        let ty = Type { fields, atomic: node.atomic, ..Type::default() };
        let open = node.preserve_unknown_fields || matches!(node.additional, Additional::Allowed);
        self.define(id, Type { open, ..ty }, meta.is_some());
        id
    }

    fn field(&mut self, name: &str, json: &str, node: &Node) -> Field {
        let (shape, element) = self.shape(name, node);
        let mut field = Field::new(json, shape, element);
        field.pointer = true;
        field.optional = true;
        field.omit_empty = true;
        field.atomic = node.atomic;
        field.default = node.default.clone();
        if shape == Shape::List {
            field.list_type = node.list_type;
            field.list_map_keys = node.list_map_keys.clone();
        }
        field
    }

    fn shape(&mut self, name: &str, node: &Node) -> (Shape, Element) {
        if node.int_or_string {
            return (Shape::One, Element::IntOrString);
        }
        match (node.ty, &node.items, &node.additional) {
            (Ty::String, ..) => (Shape::One, Element::String),
            (Ty::Boolean, ..) => (Shape::One, Element::Bool),
            (Ty::Integer, ..) => (Shape::One, Element::Int64),
            (Ty::Number, ..) => (Shape::One, Element::Float64),
            (Ty::Array, Some(items), _) => (Shape::List, self.element(name, items)),
            (Ty::Array, None, _) => (Shape::List, Element::Any),
            (Ty::Object, _, Additional::Each(each)) if node.properties.is_empty() => {
                (Shape::Map, self.element(name, each))
            }
            (Ty::Object, ..) => {
                let meta =
                    node.embedded_resource.then(|| self.import(Schema::built_in(), IMPORTED));
                (Shape::One, Element::Message(self.object(name, node, meta)))
            }
            (Ty::Any, ..) => (Shape::One, Element::Any),
        }
    }

    /// One entry of a list or map.
    fn element(&mut self, name: &str, node: &Node) -> Element {
        let (shape, element) = self.shape(&format!("{name}[]"), node);
        if shape == Shape::One {
            return element;
        }
        let whole = format!("{name}[]*");
        let id = self.reserve(&whole);
        let field = self.field(&whole, "", node);
        self.define(id, Type { whole: Some(Box::new(field)), ..Type::default() }, false);
        Element::Message(id)
    }
}
