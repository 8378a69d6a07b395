//! The simple JSON paths of selectable fields, printer columns, scale subresources and rules:
//! `.spec.replicas`, `.metadata.annotations['a.b/c']`.

use super::{Additional, Node};
use serde_json::Value;

/// A path that names one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath {
    pub steps: Vec<Box<str>>,
}

impl FieldPath {
    /// Reads `text`; `Err` says what is wrong with it, in upstream's words. `brackets`: `['name']`
    /// is allowed.
    pub fn parse(text: &str, brackets: bool) -> Result<FieldPath, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[', ']']).unwrap_or(after.len());
                if end == 0 && after.is_empty() {
                    return Err("unexpected end of JSON path".into());
                }
                steps.push(after[..end].into());
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[') {
                if !brackets {
                    return Err("array notation is not allowed".into());
                }
                let (name, after) = quoted(after)?;
                steps.push(name.into());
                rest = after;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len()).max(1);
                return Err(format!("expected [ or . but got: {}", &rest[..end]));
            }
        }
        Ok(FieldPath { steps })
    }

    /// The schema of the value the path leads to.
    pub fn resolve<'a>(&self, node: &'a Node) -> Result<&'a Node, String> {
        let mut at = node;
        for step in &self.steps {
            let next = match &at.additional {
                _ if !at.properties.is_empty() => at.properties.get(step),
                Additional::Each(each) => Some(&**each),
                _ => None,
            };
            at = next.ok_or("does not refer to a valid field")?;
        }
        Ok(at)
    }

    /// The value the path leads to.
    pub fn value<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.steps.iter().try_fold(root, |at, step| at.as_object()?.get(&**step))
    }

    /// As upstream prints a path in values of this schema: `.spec.labels[a.b/c]` is
    /// `spec.labels[a.b/c]`, and so is `.spec.labels['a.b/c']`.
    pub fn printed(&self, node: &Node) -> String {
        let mut at = Some(node);
        let mut text = String::new();
        for step in &self.steps {
            let declared = at.is_none_or(|node| !node.properties.is_empty());
            match declared {
                false => text.push_str(&format!("[{step}]")),
                true if text.is_empty() => text.push_str(step),
                true => text.push_str(&format!(".{step}")),
            }
            at = at.and_then(|node| node.field(step));
        }
        text
    }

    /// `spec.replicas`
    pub fn dotted(&self) -> String {
        self.steps.join(".")
    }
}

/// A name in single quotes and the `]` behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let Some(body) = text.strip_prefix('\'') else {
        let end = text.find(['.', '[', ']']).unwrap_or(text.len());
        return Err(format!("expected single quoted string but got {}", &text[..end]));
    };
    let mut name = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '\'' => {
                let after = &body[at + 1..];
                let closed = after.strip_prefix(']');
                let wrong = || match after.chars().next() {
                    Some(c) => format!("expected ] but got {c}"),
                    None => "unexpected end of JSON path".to_string(),
                };
                return closed.map(|after| (name, after)).ok_or_else(wrong);
            }
            _ => name.push(c),
        }
    }
    Err("unexpected end of JSON path".into())
}
