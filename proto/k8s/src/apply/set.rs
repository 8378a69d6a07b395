//! A set of fields, kept in the very form of `fieldsV1`, so that what is read from an object is worked
//! on in place and written back as it is: a tree of steps; a node without children is a member of the
//! set, one with children is a member if it has `"."` among them.

use super::place::{Form, Place};
use super::step::{self, SELF};
use serde_json::{Map, Value};

/// The root is never a member: nobody owns an object as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set(Map<String, Value>);

/// What a walk found at one field: is it itself in the set, and what below it.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) below: Map<String, Value>,
}

impl Node {
    pub(super) fn leaf() -> Node {
        Node { member: true, below: Map::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// Hangs `child` below this node, unless there is nothing in it.
    pub(super) fn put(&mut self, step: String, child: Node) {
        if let Some(value) = child.into_value() {
            self.below.insert(step, value);
        }
    }

    fn into_value(self) -> Option<Value> {
        match (self.member, self.below) {
            (false, below) if below.is_empty() => None,
            (true, mut below) if !below.is_empty() => {
                below.insert(SELF.into(), Value::Object(Map::new()));
                Some(Value::Object(below))
            }
            (_, below) => Some(Value::Object(below)),
        }
    }
}

impl From<Node> for Set {
    fn from(node: Node) -> Set {
        Set(node.below)
    }
}

impl Set {
    /// Reads `fieldsV1` that anyone may have written. Steps of unknown kinds are dropped.
    pub fn parse(fields: &Value) -> Result<Set, String> {
        let mut node = parse_node(fields)?;
        node.remove(SELF);
        Ok(Set(node))
    }

    /// `fieldsV1` that this server wrote.
    pub(super) fn trusted(fields: Value) -> Set {
        match fields {
            Value::Object(map) => Set(map),
            _ => Set::default(),
        }
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn root(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) fn root_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// A set of one field below others: `["spec", "replicas"]`.
    pub fn of_names(path: &[&str]) -> Set {
        let mut node = Node::leaf();
        for name in path.iter().rev() {
            let mut parent = Node::default();
            parent.put(step::field(name), node);
            node = parent;
        }
        Set(node.below)
    }

    /// True if the field with this path of names is a member.
    pub fn has_names(&self, path: &[&str]) -> bool {
        let mut at = &self.0;
        for name in path {
            match at.get(&step::field(name)) {
                Some(Value::Object(child)) => at = child,
                _ => return false,
            }
        }
        !path.is_empty() && is_member(at)
    }

    pub fn union(&mut self, other: &Set) {
        unite(&mut self.0, &other.0);
    }

    /// Without the members of `other`; what lies below them stays.
    pub fn subtract(&mut self, other: &Set) {
        subtract(&mut self.0, &other.0);
    }

    pub fn intersects(&self, other: &Set) -> bool {
        intersects(&self.0, &other.0)
    }

    pub fn intersection(&self, other: &Set) -> Set {
        Set(intersection(&self.0, &other.0).below)
    }

    /// With every struct field on the way to a member; a plain walk leaves them out.
    pub(super) fn with_named_fields<'s, P: Place<'s>>(&self, place: P) -> Set {
        Set(named(&self.0, Some(place)).below)
    }

    /// Every member as upstream prints it (`.spec.ports[port=80,protocol="TCP"].name`), members of a
    /// node before what is below them.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        collect(&self.0, &mut String::new(), &mut paths);
        paths
    }
}

fn parse_node(value: &Value) -> Result<Map<String, Value>, String> {
    let Value::Object(map) = value else {
        return Err("fields must be objects".into());
    };
    let mut node = Map::new();
    for (name, below) in map {
        if name == SELF {
            node.insert(SELF.into(), Value::Object(Map::new()));
        } else if let Some(step) = step::canonical(name)? {
            let mut child = parse_node(below)?;
            if child.len() == 1 {
                child.remove(SELF);
            }
            node.insert(step, Value::Object(child));
        }
    }
    Ok(node)
}

fn is_member(node: &Map<String, Value>) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

fn mark(node: &mut Map<String, Value>) {
    node.insert(SELF.into(), Value::Object(Map::new()));
}

fn below(node: &Map<String, Value>) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
    let children = node.iter().filter(|(step, _)| *step != SELF);
    children.filter_map(|(step, child)| Some((step, child.as_object()?)))
}

fn unite(a: &mut Map<String, Value>, b: &Map<String, Value>) {
    for (step, theirs) in below(b) {
        match a.get_mut(step) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                unite(ours, theirs);
                if member && !ours.is_empty() {
                    mark(ours);
                }
            }
            _ => {
                a.insert(step.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

fn subtract(a: &mut Map<String, Value>, b: &Map<String, Value>) {
    for (step, theirs) in below(b) {
        let Some(Value::Object(ours)) = a.get_mut(step) else { continue };
        let member = is_member(ours) && !is_member(theirs);
        subtract(ours, theirs);
        if !member {
            ours.remove(SELF);
        } else if ours.len() == 1 {
            // Only its own mark is left, which a node without children does not need.
            ours.remove(SELF);
            continue;
        }
        if ours.is_empty() && !member {
            a.remove(step);
        }
    }
}

fn intersects(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    below(few).any(|(step, ours)| match many.get(step) {
        Some(Value::Object(theirs)) => {
            is_member(ours) && is_member(theirs) || intersects(ours, theirs)
        }
        _ => false,
    })
}

fn intersection(a: &Map<String, Value>, b: &Map<String, Value>) -> Node {
    let mut node = Node { member: is_member(a) && is_member(b), below: Map::new() };
    for (step, ours) in below(a) {
        if let Some(Value::Object(theirs)) = b.get(step) {
            node.put(step.clone(), intersection(ours, theirs));
        }
    }
    node
}

fn named<'s, P: Place<'s>>(node: &Map<String, Value>, place: Option<P>) -> Node {
    let mut all = Node { member: is_member(node), below: Map::new() };
    for (step, child) in below(node) {
        let (inner, is_named) = match (step.strip_prefix("f:"), place) {
            (Some(name), Some(place)) => (place.field(name), place.names(name)),
            (None, Some(place)) if step.starts_with("k:") => match place.form() {
                Form::List { element, .. } => (Some(element), false),
                _ => (None, false),
            },
            _ => (None, false),
        };
        let mut child = named(child, inner);
        child.member |= is_named;
        all.put(step.clone(), child);
    }
    all
}

fn collect(node: &Map<String, Value>, path: &mut String, paths: &mut Vec<String>) {
    let mut steps: Vec<_> = below(node).collect();
    steps.sort_by(|(a, _), (b, _)| step::order(a, b));
    for (step, child) in &steps {
        if is_member(child) {
            paths.push(format!("{path}{}", step::display(step)));
        }
    }
    for (step, child) in steps {
        let length = path.len();
        path.push_str(&step::display(step));
        collect(child, path, paths);
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(fields: Value) -> Set {
        Set::parse(&fields).unwrap()
    }

    #[test]
    fn members_may_have_members_below_them() {
        let mut all = set(json!({"f:a": {}, "f:b": {"f:c": {}}}));
        all.union(&set(json!({"f:a": {"f:x": {}}, "f:b": {".": {}, "f:d": {}}})));
        let want = json!({"f:a": {".": {}, "f:x": {}}, "f:b": {".": {}, "f:c": {}, "f:d": {}}});
        assert_eq!(all.clone().into_value(), want);
        assert_eq!(all.paths(), [".a", ".b", ".a.x", ".b.c", ".b.d"]);
        all.subtract(&set(json!({"f:a": {"f:x": {}}, "f:b": {".": {}, "f:c": {}}})));
        assert_eq!(all.clone().into_value(), json!({"f:a": {}, "f:b": {"f:d": {}}}));
        all.subtract(&set(json!({"f:a": {}, "f:b": {"f:d": {}}})));
        assert!(all.is_empty());
    }

    #[test]
    fn a_parent_and_its_child_are_two_fields() {
        let parent = set(json!({"f:a": {}}));
        let child = set(json!({"f:a": {"f:x": {}}}));
        assert!(!parent.intersects(&child) && !child.intersects(&parent));
        let mut rest = child.clone();
        rest.subtract(&parent);
        assert_eq!(rest, child);
        let both = set(json!({"f:a": {".": {}, "f:x": {}}}));
        assert_eq!(both.intersection(&child), child);
        assert_eq!(both.intersection(&parent), parent);
        assert!(both.has_names(&["a"]) && both.has_names(&["a", "x"]));
        assert!(!child.has_names(&["a"]) && !both.has_names(&["x"]));
    }

    #[test]
    fn what_others_wrote_becomes_canonical_or_is_refused() {
        let odd = json!({"f:a": {".": {}}, r#"k:{"b":1, "a":2}"#: {"z:new": {}, "f:x": {}}});
        let want = json!({"f:a": {}, r#"k:{"a":2,"b":1}"#: {"f:x": {}}});
        assert_eq!(set(odd).into_value(), want);
        for bad in [json!([]), json!({"f:a": 1}), json!({"x": {}}), json!({"v:": {}})] {
            assert!(Set::parse(&bad).is_err(), "{bad}");
        }
    }
}
