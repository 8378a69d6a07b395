//! Lists as bytes, one piece after the other: only the piece being made is in memory.

use super::{
    negotiate::{Coding, Format, Include, Shape},
    render::partial,
    transfer::PIECE,
};
use crate::{encode, kind::Kind, memo, pipeline::List, protobuf, table::Table};
use k8s::{Object, Status};
use raft_store::Stored;
use serde_json::{Value, json};
use std::{sync::Arc, vec::IntoIter};

/// What is measured before others may run on this thread, in items whose length is known.
// A tenth of a millisecond: to look a length up takes some 20 ns.
const LOOKS_AT_ONCE: usize = 4096;
/// To encode an item takes as long as to look up so many.
const LOOKS_PER_ENCODING: usize = 512;

/// What one item becomes.
enum Items {
    Json,
    Yaml,
    Rows(Table, Include),
    Partial(&'static str),
    /// The item as a field of the list's message.
    Message,
    PartialMessage,
}

/// A list on its way out.
pub(super) struct Pieces {
    kind: Kind,
    version: String,
    items: Items,
    rest: IntoIter<Arc<Stored>>,
    head: Option<Vec<u8>>,
    separator: &'static [u8],
    tail: Vec<u8>,
}

/// The list as `format` wants it. Async because a protobuf list begins with its length, so that every
/// item has to be encoded before the first is sent (they are not all kept for that).
pub(super) async fn pieces(
    list: List,
    kind: &Kind,
    version: &str,
    format: Format,
) -> Result<Pieces, Status> {
    let metadata = encode::list_metadata(list.revision, list.next.as_deref(), list.remaining);
    let api_version = encode::api_version(kind.group, version);
    let list_kind = kind.list_kind();
    let mut pieces = Pieces {
        kind: kind.clone(),
        version: version.to_string(),
        items: Items::Json,
        rest: list.items.into_iter(),
        head: None,
        separator: b",",
        tail: b"]}".to_vec(),
    };
    let head = match (format.shape, format.coding) {
        (Shape::Whole, Coding::Json) => json_head(&list_kind, &api_version, &metadata),
        (Shape::Whole, Coding::Yaml) => pieces.yaml(&list_kind, &api_version, &metadata),
        (Shape::Whole, Coding::Protobuf) => {
            pieces.items = Items::Message;
            pieces.protobuf(&list_kind, &api_version, &metadata).await?
        }
        (Shape::Table(include), _) => {
            let table = Table::new(format.meta);
            let head = table.head(kind, metadata, true);
            pieces.items = Items::Rows(table, include);
            opened(&head)
        }
        (_, Coding::Protobuf) => {
            pieces.items = Items::PartialMessage;
            pieces.protobuf("PartialObjectMetadataList", format.meta, &metadata).await?
        }
        _ => {
            pieces.items = Items::Partial(format.meta);
            json_head("PartialObjectMetadataList", format.meta, &metadata)
        }
    };
    pieces.head = Some(head);
    Ok(pieces)
}

fn json_head(kind: &str, api_version: &str, metadata: &Value) -> Vec<u8> {
    let head = format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":["
    );
    head.into_bytes()
}

/// A value whose last field is an empty list, up to where that list's items begin.
fn opened(head: &Value) -> Vec<u8> {
    let mut head = head.to_string().into_bytes();
    let closing = head.split_off(head.len() - 2);
    assert_eq!(closing, b"]}", "the list to fill comes last");
    head
}

impl Pieces {
    fn yaml(&mut self, list_kind: &str, api_version: &str, metadata: &Value) -> Vec<u8> {
        let mut head = Vec::new();
        k8s::yaml::write(&mut head, &json!({ "apiVersion": api_version }));
        let empty = self.is_done();
        head.extend_from_slice(if empty { b"items: []\n" } else { b"items:\n" });
        self.items = Items::Yaml;
        self.separator = b"";
        self.tail = Vec::new();
        let tail = json!({ "kind": list_kind, "metadata": metadata });
        k8s::yaml::write(&mut self.tail, &tail);
        head
    }

    async fn protobuf(
        &mut self,
        list_kind: &str,
        api_version: &str,
        metadata: &Value,
    ) -> Result<Vec<u8>, Status> {
        let measured =
            matches!(self.items, Items::Message) && self.version == self.kind.versions[0];
        let (mut total, mut looks) = (0, 0);
        for stored in self.rest.as_slice() {
            if looks >= LOOKS_AT_ONCE {
                looks = 0;
                tokio::task::yield_now().await;
            }
            looks += 1;
            let known = if measured { memo::message_bytes(stored) } else { None };
            let length = match known {
                Some(length) => length,
                None => {
                    looks += LOOKS_PER_ENCODING;
                    self.message(stored)?.len()
                }
            };
            total += k8s::protobuf::field_head_len(2, length) + length;
        }
        let nothing = serde_json::Map::new();
        let metadata = metadata.as_object().unwrap_or(&nothing);
        let metadata = protobuf::of("meta.v1.ListMeta", metadata)?;
        let mut begin = k8s::protobuf::field_head(1, metadata.len());
        begin.extend_from_slice(&metadata);
        let mut head = k8s::protobuf::envelope_head(api_version, list_kind, begin.len() + total);
        head.extend_from_slice(&begin);
        self.separator = b"";
        self.tail = k8s::protobuf::ENVELOPE_TAIL.to_vec();
        Ok(head)
    }

    fn is_done(&self) -> bool {
        self.rest.as_slice().is_empty()
    }

    fn message(&self, stored: &Stored) -> Result<Arc<[u8]>, Status> {
        match self.items {
            Items::PartialMessage => Ok(partial_message(&memo::parse(stored))?.into()),
            _ => protobuf::of_stored(&self.kind, &self.version, stored),
        }
    }

    fn item(&self, out: &mut Vec<u8>, stored: &Stored) {
        match &self.items {
            Items::Json => {
                let revision = encode::revision(stored.revision);
                encode::splice(out, encode::ITEM_HEAD, stored, revision);
            }
            Items::Yaml => {
                let mut object = memo::parse(stored);
                object.0.remove("apiVersion");
                object.0.remove("kind");
                k8s::yaml::write_item(out, &object.into_value());
            }
            Items::Rows(table, include) => {
                let object = memo::object(stored);
                let row = table.row(&self.kind, &self.version, &object, *include);
                encode::write_value(out, &row);
            }
            Items::Partial(meta) => encode::write_value(out, &partial(&memo::parse(stored), meta)),
            Items::Message | Items::PartialMessage => {
                let message = self.message(stored).expect("it was encoded to be measured");
                k8s::protobuf::push_field_head(out, 2, message.len());
                out.extend_from_slice(&message);
            }
        }
    }
}

/// The message of `PartialObjectMetadata`.
pub(super) fn partial_message(object: &Object) -> Result<Vec<u8>, Status> {
    let mut partial = serde_json::Map::new();
    if let Some(metadata) = object.0.get("metadata") {
        partial.insert("metadata".into(), metadata.clone());
    }
    protobuf::of("meta.v1.PartialObjectMetadata", &partial)
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = match self.head.take() {
            Some(head) => head,
            None if !self.is_done() => Vec::with_capacity(PIECE + PIECE / 8),
            None => return None,
        };
        while out.len() <= PIECE
            && let Some(stored) = self.rest.next()
        {
            self.item(&mut out, &stored);
            if !self.is_done() {
                out.extend_from_slice(self.separator);
            }
        }
        if self.is_done() {
            out.append(&mut self.tail);
        }
        Some(out)
    }
}
