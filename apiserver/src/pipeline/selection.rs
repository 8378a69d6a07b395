//! Which objects of a collection a list or watch is about: namespace, label and field selectors.

use crate::{
    kind::Kind,
    memo::{self, Facts},
};
use k8s::{
    Options, Status,
    selector::{FieldSelector, LabelSelector},
};
use raft_store::Stored;

/// A parsed selection over one kind.
pub(crate) struct Selection {
    pub(super) kind: Kind,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
}

impl Selection {
    /// `Err` is the 400 of a selector that does not parse or names a field the kind does not select by.
    pub(crate) fn new(kind: &Kind, options: &Options) -> Result<Selection, Status> {
        let labels = match options.label_selector.as_deref() {
            None | Some("") => None,
            Some(text) => Some(LabelSelector::parse(text).map_err(Status::bad_request)?),
        };
        let fields = match options.field_selector.as_deref() {
            None | Some("") => None,
            Some(text) => Some(FieldSelector::parse(text).map_err(Status::bad_request)?),
        };
        if let Some(fields) = &fields {
            for requirement in fields.requirements() {
                check_field(kind, &requirement.field)?;
            }
        }
        Ok(Selection { kind: kind.clone(), labels, fields })
    }

    /// True if every object of the collection is meant.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    pub(crate) fn matches(&self, stored: &Stored) -> bool {
        if self.is_everything() {
            return true;
        }
        let facts = memo::facts(&self.kind, stored);
        self.labels.as_ref().is_none_or(|labels| labels.matches(|key| label(&facts, key)))
            && self.fields.as_ref().is_none_or(|fields| {
                fields.matches(|field| self.field(&facts, &stored.key.path, field))
            })
    }

    fn field<'a>(&self, facts: &'a Facts, path: &'a str, field: &str) -> &'a str {
        let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
        match field {
            "metadata.name" => name,
            "metadata.namespace" => namespace,
            _ => {
                let index = self.kind.selectable_at(field);
                index.and_then(|index| facts.fields.get(index)).map_or("", |value| value)
            }
        }
    }
}

fn label<'a>(facts: &'a Facts, key: &str) -> Option<&'a str> {
    facts.labels.iter().find(|(have, _)| **have == *key).map(|(_, value)| &**value)
}

fn check_field(kind: &Kind, field: &str) -> Result<(), Status> {
    let known = field == "metadata.name"
        || field == "metadata.namespace"
        || kind.selectable_at(field).is_some();
    if known {
        return Ok(());
    }
    Err(Status::bad_request(format!("field label not supported: {field}")))
}
