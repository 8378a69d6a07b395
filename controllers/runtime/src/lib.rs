//! What every reconciler shares: one cache filled by one watch per kind, a queue of keys per
//! controller, a runner that carries out plans while this process leads. Knows neither the store nor
//! the server, only the `Api` trait. The one crate that instantiates serde for the typed structs.

mod cache;
mod controller;
mod events;
mod gate;
mod kind;
mod metrics;
mod plan;
mod pod;
mod queue;
mod runner;
mod selector;
mod world;

pub use cache::{Cache, CacheBuilder, Derive, Listener};
pub use controller::{Context, Controller, Failure, Root, Wake};
pub use events::{Recorder, Writer};
pub use gate::Gate;
pub use kind::{Cached, Derived, Key, Kind, KindInfo, Whole, key_of, kinds};
pub use metrics::Metrics;
pub use plan::{Existing, Note, Plan, Step, Subject, Write, merge_diff, owner_reference, subject};
pub use pod::{Container, ContainerStatus, Ephemeral, Pod, PodSpec, PodStatus, Volume};
pub use queue::Backoff;
pub use runner::Runner;
pub use selector::{matches, requirement_matches};
pub use world::{Change, Entry, Meta, View, World};
