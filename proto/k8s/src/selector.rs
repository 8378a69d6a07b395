//! Label and field selectors: read from a query or from a `metav1.LabelSelector`, matched, printed.
//! Grammar and texts are upstream's.

mod field;
mod label;
mod parse;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelSelector, Operator, Requirement, validate_labels, validate_selector};
