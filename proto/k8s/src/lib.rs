//! The Kubernetes object model as data: objects, their schema, codecs, patches, selectors, quantities
//! and `Status`. Never does IO, never reads a clock.

#![expect(
    clippy::result_large_err,
    reason = "a Status is moved a few times on the way of a refused request and never on that of another"
)]

pub mod api;
pub mod apply;
pub mod decode;
pub mod default;
pub mod intstr;
pub mod jsonpath;
pub mod names;
mod object;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
mod status;
pub mod structural;
pub mod text;
pub mod time;
pub mod yaml;

pub use api::{Api, Events, Options, PatchType, Request, Resource, Verb, WatchEvent, WatchRequest};
pub use object::{Object, OwnerReference, Revision};
pub use status::{Cause, CauseReason, FieldError, Rare, Status};
