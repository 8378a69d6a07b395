//! API Priority and Fairness (KEP-1040): each request belongs to a flow of a priority level, by the
//! FlowSchema that matches it first; a level has seats, and queues that share them fairly between
//! flows. What is refused is told when to come again; nothing accepted is dropped.
//!
//! Simpler than upstream where that shows only in figures: a level keeps the part of its seats that
//! it does not lend and draws the rest from a common pool as it needs them (upstream moves borrowed
//! seats every ten seconds); every request is taken to last equally long.

mod bootstrap;
mod config;
mod keep;
mod metrics;
mod seats;

pub(crate) use keep::{has_objects, keep};

use crate::{identity::Identity, pipeline::Core, server::RequestInfo};
use config::Config;
use http::{HeaderMap, HeaderValue};
use k8s::Status;
use metrics::Metrics;
use seats::{Asked, Seats, Ticket};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// kube-apiserver's --max-requests-inflight and --max-mutating-requests-inflight together: the seats
/// that the levels share.
pub(crate) const SEATS: u32 = 600;
/// A quarter of the default --request-timeout, as upstream bounds a wait in a queue.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// How soon a changed object acts.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A list takes one seat per so many objects, and at most as many seats (upstream's estimator).
const OBJECTS_PER_SEAT: usize = 100;
const SEATS_PER_LIST_MAX: u32 = 10;

/// The flow control of one server.
pub(crate) struct Flow {
    current: Mutex<Current>,
    seats: Arc<Seats>,
}

struct Current {
    config: Arc<Config>,
    looked: Option<Instant>,
}

impl Flow {
    pub(crate) fn new(registry: &prometheus::Registry) -> Flow {
        let config = Arc::new(Config::initial());
        let metrics = Metrics::new(registry);
        let seats = Seats::new(&config, metrics);
        Flow { current: Mutex::new(Current { config, looked: None }), seats }
    }

    /// The objects as they are, or were within a second.
    fn config(&self, core: &Core) -> Arc<Config> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            current.looked = Some(Instant::now());
            if let Some(config) = Config::read(core, &current.config) {
                current.config = Arc::new(config);
                self.seats.configure(&current.config);
            }
        }
        current.config.clone()
    }
}

/// A request that may go on, and by which schema and level.
pub(crate) struct Admitted {
    _ticket: Option<Ticket>,
    schema_uid: Arc<str>,
    level_uid: Arc<str>,
}

impl Admitted {
    /// Upstream's headers, by which clients and tests see how a request was classified.
    pub(crate) fn mark(schema_uid: &str, level_uid: &str, headers: &mut HeaderMap) {
        for (name, uid) in [
            ("x-kubernetes-pf-flowschema-uid", schema_uid),
            ("x-kubernetes-pf-prioritylevel-uid", level_uid),
        ] {
            if let Ok(value) = HeaderValue::try_from(uid) {
                headers.insert(name, value);
            }
        }
    }

    pub(crate) fn uids(&self) -> (Arc<str>, Arc<str>) {
        (self.schema_uid.clone(), self.level_uid.clone())
    }
}

/// Waits for a place. `Err` is the 429 upstream sends, with the uids for its headers.
pub(crate) async fn enter(
    core: &Core,
    identity: &Identity,
    info: &RequestInfo,
) -> Result<Admitted, (Status, Arc<str>, Arc<str>)> {
    let flow = &core.flow;
    let config = flow.config(core);
    let matched = config.classify(identity, info);
    let (schema_uid, level_uid) = (matched.schema.uid.clone(), matched.level_uid.clone());
    let asked = Asked {
        level: matched.schema.level.clone(),
        schema: matched.schema.name.clone(),
        flow: matched.flow,
        seats: width(core, info),
    };
    match flow.seats.take(asked, WAIT_MAX).await {
        Ok(ticket) => Ok(Admitted { _ticket: ticket, schema_uid, level_uid }),
        Err(_) => {
            let why = "Too many requests, please try again later.";
            Err((Status::too_many_requests(why, 1), schema_uid, level_uid))
        }
    }
}

/// How many seats a request takes.
fn width(core: &Core, info: &RequestInfo) -> u32 {
    if info.verb != "list" {
        return 1;
    }
    let space = match info.group.as_str() {
        "" => info.resource.clone(),
        group => format!("{group}/{}", info.resource),
    };
    let spaces = core.store.spaces();
    let objects = spaces.iter().find(|(name, _)| **name == *space).map_or(0, |(_, count)| *count);
    let seats = u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(SEATS_PER_LIST_MAX);
    seats.clamp(1, SEATS_PER_LIST_MAX)
}
