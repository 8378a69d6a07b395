//! HTTP in front, one generic pipeline, the list of kinds. Does not know that controllers or nodes
//! exist.

pub mod kinds;
