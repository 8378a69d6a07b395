//! The types of the API as data: one value that decoding, defaulting, patches and, later, apply,
//! protobuf, OpenAPI and CustomResourceDefinitions walk. Never holds prose.
//!
//! Built-in types come from a fact table, one line per field:
//! ```text
//! core.v1.ServiceSpec
//!   ports 1 []core.v1.ServicePort ?o L=map K=port+protocol P=merge k=port
//!   selector 2 {}s ?o M=atomic
//! core.v1.Volume
//!   - 2 core.v1.VolumeSource <
//! ```
//! JSON name, protobuf number (0: none), type, flags, attributes. Types: `s` string, `b` bool, `i`
//! int32, `l` int64, `f` float64, `B` bytes, `@Name` a type with its own JSON form, `[]` list, `{}`
//! map of string keys. Flags: `*` pointer, `?` omitempty, `z` omitzero, `<` inlined in JSON, `o`/`r`
//! optional/required. Attributes: `L` list type, `K` list map keys, `M` map type, `S` struct type,
//! `P` patch strategy, `k` patch merge key, `D` default, `E` the values of an enum, `N` list that is its own
//! protobuf message, `g` and `G` what Go calls the scalar and the list or map. After a type's name: `T`
//! values carry `apiVersion` and `kind`, `S` as above. `examples/schema-import.rs` writes the table.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::OnceLock;

static TABLES: [&str; 2] =
    [include_str!("../data/kubernetes-1.36.ktab"), include_str!("../data/apiregistration-v1.ktab")];

/// A type of one [`Schema`]; meaningless in any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

/// How often a field holds its [`Element`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    One,
    List,
    /// Keys are strings.
    Map,
}

/// What one value (or one entry of a list or map) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    String,
    Bool,
    Int32,
    Int64,
    Float64,
    /// Base64 text in JSON.
    Bytes,
    Message(TypeId),
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Go's notation: `1h2m3s`.
    Duration,
    IntOrString,
    Quantity,
    /// An embedded object of any kind.
    RawExtension,
    /// `managedFields[].fieldsV1`.
    FieldsV1,
    /// Any JSON (apiextensions `JSON`).
    Json,
    /// apiextensions: a schema or a bool.
    SchemaOrBool(TypeId),
    /// apiextensions: a schema or a list of schemas.
    SchemaOrArray(TypeId),
    /// apiextensions: a schema or a list of strings.
    SchemaOrStringArray(TypeId),
    /// A map entry that is itself a list of strings (`extra` of user info).
    StringList,
    /// Any JSON, `null` included (cells of a `Table`).
    Any,
}

/// `+listType`: how two writers share a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Owned as a whole.
    #[default]
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects, identified by [`Field::list_map_keys`].
    Map,
}

/// `patchStrategy` of strategic merge patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged by [`Field::patch_merge_key`] (or as sets of scalars).
    pub merge: bool,
    /// Maps are replaced and not merged.
    pub replace: bool,
    /// `$retainKeys` of the patch removes the fields it does not name.
    pub retain_keys: bool,
}

/// One field of a [`Type`].
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name in JSON; empty if [`Field::inline`].
    pub json: Box<str>,
    /// Protobuf field number; 0 if the type has no protobuf form.
    pub number: u32,
    pub shape: Shape,
    pub element: Element,
    /// Absent and zero differ.
    pub pointer: bool,
    pub omit_empty: bool,
    pub omit_zero: bool,
    /// The fields of the message stand in the parent in JSON; in protobuf it is a message.
    pub inline: bool,
    /// `+optional`.
    pub optional: bool,
    /// `+required`.
    pub required: bool,
    /// `None` where upstream says nothing, which acts as atomic.
    pub list_type: Option<ListType>,
    pub list_map_keys: Vec<Box<str>>,
    /// The map or struct is owned as a whole.
    pub atomic: bool,
    /// It is owned field by field, even if its type says otherwise.
    pub granular: bool,
    pub patch: PatchStrategy,
    pub patch_merge_key: Option<Box<str>>,
    pub default: Option<Value>,
    /// The string is one of a closed set.
    pub enumerated: bool,
    /// That set, sorted; upstream's validation may allow fewer in some places.
    pub values: Vec<Box<str>>,
    /// The list is a message of its own in protobuf.
    pub wrapped: bool,
    /// `v1.Protocol`, where Go's scalar has a name, for its error texts.
    pub(crate) go_scalar: Option<Box<str>>,
    /// `v1.ResourceList`, where Go's list or map has one.
    pub(crate) go_whole: Option<Box<str>>,
}

impl Field {
    /// A field of which nothing more is said.
    pub fn new(json: &str, shape: Shape, element: Element) -> Field {
        Field {
            json: json.into(),
            number: 0,
            shape,
            element,
            pointer: false,
            omit_empty: false,
            omit_zero: false,
            inline: false,
            optional: false,
            required: false,
            list_type: None,
            list_map_keys: Vec::new(),
            atomic: false,
            granular: false,
            patch: PatchStrategy::default(),
            patch_merge_key: None,
            default: None,
            enumerated: false,
            values: Vec::new(),
            wrapped: false,
            go_scalar: None,
            go_whole: None,
        }
    }

    /// The message this field holds, in whatever shape.
    pub fn message(&self) -> Option<TypeId> {
        match self.element {
            Element::Message(id) => Some(id),
            _ => None,
        }
    }
}

/// A struct of the API.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// `core.v1.Pod`: group, version, kind; group `core` and `meta` as upstream's packages.
    pub name: Box<str>,
    /// In order of declaration; inlined messages are one field each.
    pub fields: Vec<Field>,
    /// The struct is owned as a whole wherever it is used.
    pub atomic: bool,
    /// Values may have fields besides [`Type::properties`], of which nothing is known
    /// (`x-kubernetes-preserve-unknown-fields`, `additionalProperties: true`). Only custom kinds.
    pub open: bool,
    /// The type is no struct: a value of it is what this nameless field says. Stands where a list or
    /// map holds lists or maps. Only custom kinds.
    pub whole: Option<Box<Field>>,
    /// Every field JSON may hold here, those of inlined messages included.
    pub(crate) properties: Vec<Field>,
    pub(crate) by_json: HashMap<Box<str>, u16>,
    pub(crate) has_type_meta: bool,
    /// Places in [`Type::fields`], by field number: the order of the wire.
    pub(crate) by_number: Vec<u16>,
}

impl Type {
    /// The fields in the order of their numbers, as upstream's writer sends them.
    pub(crate) fn in_wire_order(&self) -> impl DoubleEndedIterator<Item = &Field> {
        self.by_number.iter().map(|position| &self.fields[usize::from(*position)])
    }

    /// Every field JSON may hold here, those of inlined messages included.
    pub fn properties(&self) -> &[Field] {
        &self.properties
    }

    /// The field of this JSON name; names are case-sensitive.
    pub fn field(&self, json: &str) -> Option<&Field> {
        self.position(json).map(|position| &self.properties[position])
    }

    /// Its place in [`Type::properties`].
    pub(crate) fn position(&self, json: &str) -> Option<usize> {
        self.by_json.get(json).map(|position| usize::from(*position))
    }

    /// True if values carry `apiVersion` and `kind` of their own even inside another object.
    pub fn has_type_meta(&self) -> bool {
        self.has_type_meta
    }

    /// `Pod` of `core.v1.Pod`.
    pub fn kind(&self) -> &str {
        self.name.rsplit_once('.').map_or(&*self.name, |(_, kind)| kind)
    }

    /// `v1.Pod`: as Go's error texts name it.
    pub(crate) fn go_name(&self) -> &str {
        match self.name.rmatch_indices('.').nth(1) {
            Some((dot, _)) => &self.name[dot + 1..],
            None => &self.name,
        }
    }
}

/// A line of a table that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema table line {line}: {why}")]
pub struct TableError {
    pub line: usize,
    pub why: String,
}

/// A set of types that refer to each other.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    index: HashMap<Box<str>, TypeId>,
}

impl Schema {
    /// Every built-in type of Kubernetes 1.36; read once.
    pub fn built_in() -> &'static Schema {
        static BUILT_IN: OnceLock<Schema> = OnceLock::new();
        BUILT_IN.get_or_init(|| {
            Schema::parse(&TABLES).expect("the tables in this crate are well formed (tested)")
        })
    }

    /// Reads tables; a type may refer to one of a later table.
    pub fn parse(tables: &[&str]) -> Result<Schema, TableError> {
        let mut schema = Schema::default();
        for (_, line) in tables.iter().flat_map(|table| rows(table)) {
            if !line.starts_with(' ') {
                schema.declare(line);
            }
        }
        for table in tables {
            let mut current = None;
            for (number, line) in rows(table) {
                if !line.starts_with(' ') {
                    current = schema.get(line.split(' ').next().unwrap_or_default());
                } else if let Some(id) = current {
                    let field = schema
                        .read_field(id, line)
                        .map_err(|why| TableError { line: number, why })?;
                    schema.types[id.0 as usize].fields.push(field);
                }
            }
        }
        for position in 0..schema.types.len() {
            schema.flatten(TypeId(position as u32));
        }
        Ok(schema)
    }

    /// The type named `core.v1.Pod`.
    pub fn get(&self, name: &str) -> Option<TypeId> {
        self.index.get(name).copied()
    }

    pub fn ty(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// Both at once, for callers that hold a name.
    pub fn named(&self, name: &str) -> Option<&Type> {
        self.get(name).map(|id| self.ty(id))
    }

    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.types.iter().enumerate().map(|(position, ty)| (TypeId(position as u32), ty))
    }

    /// A type whose content follows: see [`Schema::define`].
    pub(crate) fn reserve(&mut self, name: &str) -> TypeId {
        let id = TypeId(self.types.len() as u32);
        self.index.insert(name.into(), id);
        self.types.push(Type { name: name.into(), ..Type::default() });
        id
    }

    /// Gives a reserved type its content.
    pub(crate) fn define(&mut self, id: TypeId, ty: Type, has_type_meta: bool) {
        let slot = &mut self.types[id.0 as usize];
        *slot = Type { name: std::mem::take(&mut slot.name), has_type_meta, ..ty };
        self.flatten(id);
    }

    /// Copies a type of another schema, and all it is made of, once.
    pub(crate) fn import(&mut self, from: &Schema, name: &str) -> TypeId {
        if let Some(id) = self.get(name) {
            return id;
        }
        let id = self.reserve(name);
        let Some(ty) = from.named(name) else { return id };
        let mut copy = ty.clone();
        for field in &mut copy.fields {
            if let Element::Message(inner) = field.element {
                field.element = Element::Message(self.import(from, &from.ty(inner).name));
            }
        }
        self.define(id, copy, ty.has_type_meta);
        id
    }

    fn declare(&mut self, line: &str) {
        let mut words = line.split(' ');
        let name: Box<str> = words.next().unwrap_or_default().into();
        let (mut atomic, mut has_type_meta) = (false, false);
        for word in words {
            atomic |= word == "S=atomic";
            has_type_meta |= word == "T";
        }
        self.index.insert(name.clone(), TypeId(self.types.len() as u32));
        self.types.push(Type { name, atomic, has_type_meta, ..Type::default() });
    }

    fn read_field(&self, owner: TypeId, line: &str) -> Result<Field, String> {
        let mut words = line.trim_start().splitn(4, ' ');
        let (Some(json), Some(number), Some(ty)) = (words.next(), words.next(), words.next())
        else {
            return Err("a field needs name, number and type".into());
        };
        let (shape, element) = self.read_type(owner, ty)?;
        let json = if json == "-" { "" } else { json };
        let mut field = Field::new(json, shape, element);
        field.number = number.parse().map_err(|_| format!("bad number {number:?}"))?;
        read_attributes(&mut field, words.next().unwrap_or_default())?;
        if field.inline && field.message().is_none() {
            return Err("only a message can be inlined".into());
        }
        Ok(field)
    }

    fn read_type(&self, owner: TypeId, text: &str) -> Result<(Shape, Element), String> {
        let (shape, text) = match (text.strip_prefix("[]"), text.strip_prefix("{}")) {
            (Some(rest), _) => (Shape::List, rest),
            (_, Some(rest)) => (Shape::Map, rest),
            _ => (Shape::One, text),
        };
        let element = match text {
            "s" => Element::String,
            "b" => Element::Bool,
            "i" => Element::Int32,
            "l" => Element::Int64,
            "f" => Element::Float64,
            "B" => Element::Bytes,
            "@Time" => Element::Time,
            "@MicroTime" => Element::MicroTime,
            "@Duration" => Element::Duration,
            "@IntOrString" => Element::IntOrString,
            "@Quantity" => Element::Quantity,
            "@RawExtension" => Element::RawExtension,
            "@FieldsV1" => Element::FieldsV1,
            "@JSON" => Element::Json,
            "@Any" => Element::Any,
            "@JSONSchemaPropsOrBool" => Element::SchemaOrBool(self.props_beside(owner)?),
            "@JSONSchemaPropsOrArray" => Element::SchemaOrArray(self.props_beside(owner)?),
            "@JSONSchemaPropsOrStringArray" => {
                Element::SchemaOrStringArray(self.props_beside(owner)?)
            }
            _ if text.starts_with("@list:") => Element::StringList,
            _ => Element::Message(self.get(text).ok_or_else(|| format!("no type {text:?}"))?),
        };
        Ok((shape, element))
    }

    /// `JSONSchemaProps` of the same group and version as `owner`.
    fn props_beside(&self, owner: TypeId) -> Result<TypeId, String> {
        let name = &self.ty(owner).name;
        let package = name.rsplit_once('.').map_or("", |(package, _)| package);
        let wanted = format!("{package}.JSONSchemaProps");
        self.get(&wanted).ok_or_else(|| format!("no type {wanted:?}"))
    }

    fn flatten(&mut self, id: TypeId) {
        let mut properties = Vec::new();
        self.collect(id, &mut properties, 0);
        let ty = &mut self.types[id.0 as usize];
        for (position, field) in properties.iter().enumerate() {
            ty.by_json.entry(field.json.clone()).or_insert(position as u16);
        }
        ty.properties = properties;
        ty.by_number = (0..ty.fields.len() as u16).collect();
        ty.by_number.sort_by_key(|position| ty.fields[usize::from(*position)].number);
    }

    fn collect(&self, id: TypeId, into: &mut Vec<Field>, depth: usize) {
        for field in &self.ty(id).fields {
            match field.message() {
                // Upstream nests twice; a cycle would be a broken table.
                Some(inner) if field.inline && depth < 8 => self.collect(inner, into, depth + 1),
                _ if field.inline => {}
                _ => into.push(field.clone()),
            }
        }
    }
}

fn rows(table: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = table.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn read_attributes(field: &mut Field, text: &str) -> Result<(), String> {
    for word in words_outside_quotes(text) {
        let Some((key, value)) = word.split_once('=') else {
            read_flags(field, word)?;
            continue;
        };
        match key {
            "L" => field.list_type = Some(read_list_type(value)?),
            "K" => field.list_map_keys = value.split('+').map(Into::into).collect(),
            "M" | "S" => {
                field.atomic = value == "atomic";
                field.granular = value == "granular";
            }
            "P" => field.patch = read_strategy(value)?,
            "k" => field.patch_merge_key = Some(value.into()),
            "D" => field.default = Some(read_default(value)?),
            "E" => {
                field.enumerated = true;
                field.values = value.trim_matches('"').split('|').map(Into::into).collect();
            }
            "N" => field.wrapped = true,
            "g" => field.go_scalar = Some(value.into()),
            "G" => field.go_whole = Some(value.into()),
            _ => return Err(format!("unknown attribute {key:?}")),
        }
    }
    Ok(())
}

/// Defaults and values of enums may have spaces in them.
fn words_outside_quotes(text: &str) -> Vec<&str> {
    let mut quoted = false;
    let split = text.split(move |c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    split.filter(|word| !word.is_empty()).collect()
}

fn read_flags(field: &mut Field, word: &str) -> Result<(), String> {
    for flag in word.chars() {
        match flag {
            '*' => field.pointer = true,
            '?' => field.omit_empty = true,
            'z' => field.omit_zero = true,
            '<' => field.inline = true,
            'o' => field.optional = true,
            'r' => field.required = true,
            _ => return Err(format!("unknown flag {flag:?}")),
        }
    }
    Ok(())
}

fn read_list_type(text: &str) -> Result<ListType, String> {
    match text {
        "atomic" => Ok(ListType::Atomic),
        "set" => Ok(ListType::Set),
        "map" => Ok(ListType::Map),
        _ => Err(format!("unknown list type {text:?}")),
    }
}

fn read_strategy(text: &str) -> Result<PatchStrategy, String> {
    let mut strategy = PatchStrategy::default();
    for word in text.split(',') {
        match word {
            "merge" => strategy.merge = true,
            "replace" => strategy.replace = true,
            "retainKeys" => strategy.retain_keys = true,
            _ => return Err(format!("unknown patch strategy {word:?}")),
        }
    }
    Ok(strategy)
}

fn read_default(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|why| format!("bad default {text:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(schema: &'a Schema, ty: &str, json: &str) -> &'a Field {
        schema.named(ty).and_then(|ty| ty.field(json)).expect("the field is in the table")
    }

    #[test]
    fn the_built_in_tables_load() {
        let schema = Schema::parse(&TABLES).unwrap();
        assert!(schema.types().count() > 1150, "{}", schema.types().count());
        for (_, ty) in schema.types() {
            assert!(ty.properties().len() < 126, "{} is too wide for the decoder's set", ty.name);
        }
    }

    #[test]
    fn facts_of_a_field_are_read() {
        let schema = Schema::built_in();
        let ports = field(schema, "core.v1.ServiceSpec", "ports");
        assert_eq!(ports.shape, Shape::List);
        assert_eq!(ports.list_type, Some(ListType::Map));
        assert_eq!(ports.list_map_keys, ["port".into(), "protocol".into()]);
        assert!(ports.patch.merge && ports.omit_empty && !ports.optional && !ports.pointer);
        assert_eq!(ports.patch_merge_key.as_deref(), Some("port"));
        let protocol = field(schema, "core.v1.ServicePort", "protocol");
        assert_eq!(protocol.default, Some("TCP".into()));
        let kind = field(schema, "core.v1.AzureDiskVolumeSource", "kind");
        assert_eq!(kind.default, Some("Shared".into()));
        assert!(schema.named("core.v1.ObjectReference").is_some_and(|ty| ty.atomic));
        let protocol = field(schema, "core.v1.ContainerPort", "protocol");
        let usages = field(schema, "certificates.v1.CertificateSigningRequestSpec", "usages");
        assert!(usages.values.contains(&"client auth".into()));
        assert_eq!(protocol.values, ["SCTP".into(), "TCP".into(), "UDP".into()]);
    }

    #[test]
    fn inlined_fields_stand_in_their_parent() {
        let schema = Schema::built_in();
        assert_eq!(field(schema, "core.v1.Volume", "emptyDir").number, 2);
        assert_eq!(field(schema, "core.v1.EphemeralContainer", "image").element, Element::String);
        let webhook_rule = "admissionregistration.v1.NamedRuleWithOperations";
        assert!(schema.named(webhook_rule).unwrap().field("apiGroups").is_some());
        assert!(schema.named("core.v1.Volume").unwrap().field("").is_none());
    }

    #[test]
    fn only_objects_carry_type_meta() {
        let schema = Schema::built_in();
        let has = |name: &str| schema.named(name).unwrap().has_type_meta();
        assert!(has("core.v1.Pod") && has("core.v1.PodTemplate") && has("core.v1.PodList"));
        assert!(!has("core.v1.PodTemplateSpec") && !has("core.v1.PodSpec"));
        assert_eq!(schema.named("core.v1.Pod").unwrap().go_name(), "v1.Pod");
        assert_eq!(schema.named("core.v1.Pod").unwrap().kind(), "Pod");
    }

    #[test]
    fn a_broken_table_names_its_line() {
        let table = "a.v1.A\n  b 1 a.v1.Missing\n";
        let error = Schema::parse(&[table]).unwrap_err();
        assert_eq!(error.to_string(), "schema table line 2: no type \"a.v1.Missing\"");
        for bad in ["  b", "  b x s", "  b 1 s ~", "  b 1 s L=heap", "  b 1 s D={", "  b 1 s <"] {
            let table = format!("a.v1.A\n{bad}\n");
            assert!(Schema::parse(&[&table]).is_err(), "{bad}");
        }
    }
}
