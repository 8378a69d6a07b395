//! Server-side apply (KEP-555): who owns which field of an object, what an applied configuration makes
//! of it, and where two writers want different things. Functions of values; the time comes in.
//!
//! Read in this order: steps lead to a field, a [`Set`] holds such fields in the form of
//! `fieldsV1`, a [`Place`] is what the schema says of one, then the walks over values (`compare`,
//! `fields`, `merge`, `remove`), and [`Write`] which decides with them.

mod compare;
mod custom;
mod fields;
mod managers;
mod merge;
mod overlay;
mod parse;
mod place;
mod remove;
mod scale;
mod scope;
mod set;
mod step;
mod write;

pub use custom::AnyKind;
pub use managers::{Entry, Managers};
pub use overlay::overlay;
pub use parse::parse;
pub use place::{BuiltIn, Form, ListKind, Place, Scalar};
pub use scope::Scope;
pub use set::Set;
pub use write::{Applied, ApplyError, Conflict, LAST_APPLIED, OneVersion, Versions, Write};

pub use compare::{Delta, compare};
pub use fields::to_field_set;

#[cfg(test)]
mod tests;
