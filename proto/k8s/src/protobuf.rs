//! Kubernetes' protobuf over the schema table: every object, list and options body, both ways. A body
//! is `k8s\0` and then a `runtime.Unknown` that names the type and holds the message.
//!
//! Messages are written as upstream's generated code writes them, to the byte: fields in order, every
//! field that is no pointer present, keys of maps sorted.

mod read;
mod wire;
mod write;

pub use read::{ReadError, head, read, read_message};
pub use write::{WriteError, write};

use crate::schema::{Element, Schema, TypeId};
use wire::Backwards;

/// The media type of bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// How every body begins.
pub const MAGIC: &[u8] = b"k8s\0";

/// True if values of `ty` can be written: a few (`Table`) have no protobuf form upstream either.
pub fn has_form(schema: &Schema, ty: TypeId) -> bool {
    schema.ty(ty).fields.iter().all(|field| field.number != 0 && field.element != Element::Any)
}

/// A whole body: an object's message under its type's name.
pub fn enveloped(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = envelope_head(api_version, kind, message.len());
    out.extend_from_slice(message);
    out.extend_from_slice(ENVELOPE_TAIL);
    out
}

/// What stands before a message of `length` bytes in a body, for those who send it piece by piece.
pub fn envelope_head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut out = Backwards::with_capacity(api_version.len() + kind.len() + 32);
    out.varint(length as u64);
    out.tag(2, wire::BYTES);
    let end = out.len();
    out.bytes(2, kind.as_bytes());
    out.bytes(1, api_version.as_bytes());
    out.message(1, end);
    out.raw(MAGIC);
    out.finish()
}

/// What stands behind it: no content encoding, no content type.
pub const ENVELOPE_TAIL: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// Tag and length of the field `number`, whose `length` bytes follow.
pub fn field_head(number: u32, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    push_field_head(&mut out, number, length);
    out
}

/// The same at the end of what there is.
pub fn push_field_head(out: &mut Vec<u8>, number: u32, length: usize) {
    for mut value in [u64::from(number) << 3 | u64::from(wire::BYTES), length as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
}

/// How many bytes [`field_head`] has.
pub fn field_head_len(number: u32, length: usize) -> usize {
    let digits = |value: u64| (64 - (value | 1).leading_zeros()).div_ceil(7) as usize;
    digits(u64::from(number) << 3) + digits(length as u64)
}

/// A field that is a number or a bool.
pub fn varint_field(number: u32, value: u64) -> Vec<u8> {
    let mut out = Backwards::with_capacity(16);
    out.int(number, value);
    out.finish()
}

/// A field that is a floating-point number.
pub fn double_field(number: u32, value: f64) -> Vec<u8> {
    let mut out = Backwards::with_capacity(16);
    out.raw(&value.to_le_bytes());
    out.tag(number, wire::FIXED64);
    out.finish()
}

/// One frame of a watch: four bytes of length, then a `WatchEvent` around a body.
pub fn watch_frame(event: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Backwards::with_capacity(body.len() + event.len() + 32);
    let end = out.len();
    out.bytes(1, body);
    out.message(2, end);
    out.bytes(1, event.as_bytes());
    let length = u32::try_from(out.len()).expect("events are bounded by the size of a request");
    out.raw(&length.to_be_bytes());
    out.finish()
}

#[cfg(test)]
mod tests;
