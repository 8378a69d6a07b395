//! Kinds that users define. A CustomResourceDefinition becomes, once per state of it, the same value
//! a built-in kind is ([`CustomKind`], one per version), and goes the same way through the pipeline.
//!
//! In the store an object of such a kind is complete: `apiVersion` says which version it was written
//! in, so that the storage version may change. What clients see is made from it by `serve.rs`.

mod columns;
mod decode;
pub(crate) mod definition;
mod embedded;
mod intern;
mod keeper;
pub(crate) mod names;
pub(crate) mod rules;
mod serve;
mod validate;
mod webhook;

pub(crate) use decode::unsupported_patch;
pub(crate) use definition::CustomKind;
pub use keeper::CustomKinds;
pub(crate) use serve::Converter;
pub(crate) use validate::validate;

/// Where the definitions live in the store.
pub(crate) const SPACE: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Keeps a definition until its instances are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
