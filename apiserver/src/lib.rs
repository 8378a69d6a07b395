//! HTTP in front, one generic pipeline, the list of kinds. Does not know that controllers or nodes
//! exist.

#![allow(
    clippy::result_large_err,
    reason = "a Status is what a refusal is; refusals are rare and their size is not what they cost"
)]

// In the order a request meets them.
pub mod admission;
mod aggregator;
pub mod audit;
pub mod authn;
pub mod authz;
mod backend;
mod backup;
mod believed;
mod boot;
mod bootstrap;
mod catalog;
mod certificates;
mod chores;
mod client;
mod conditions;
mod custom;
mod discovery;
mod encode;
mod errors;
pub mod exchange;
mod flow;
mod forget_events;
mod health;
mod heartbeats;
pub mod identity;
mod keyring;
pub mod kind;
pub mod kinds;
pub mod masters;
pub mod memo;
mod metrics;
mod openapi;
mod outbound;
mod page_tokens;
mod pipeline;
mod protobuf;
mod rotation;
mod server;
mod services;
mod subresources;
mod table;
pub mod view;
mod webhook;

pub use believed::{Authorities, Believed};
pub use certificates::{Authority, to_pem};
pub use custom::CustomKinds;
pub use identity::Identity;
pub use keyring::Keyring;
pub use services::ServiceCidr;

use client::Client;
use exchange::Exchange;
use metrics::Metrics;
use pipeline::Core;
use raft_store::Store;
use std::{ops::RangeInclusive, sync::Arc};

/// What the server is told when it is made.
#[derive(Clone)]
pub struct Config {
    pub store: Store,
    /// Where cluster IPs come from.
    pub service_cidr: ServiceCidr,
    /// Where node ports come from.
    pub node_ports: RangeInclusive<u16>,
    /// Port of the masters' API, behind the `kubernetes` Service.
    pub advertise_port: u16,
    pub admission: admission::Config,
    /// Issues the tokens of service accounts; all masters must have the same key.
    pub tokens: Arc<authn::Tokens>,
    /// Asked about tokens nobody here knows.
    pub token_webhook: Option<Arc<authn::TokenWebhook>>,
    /// Asked about what nobody here allows.
    pub access_webhook: Option<Arc<authz::AccessWebhook>>,
    /// What seals Secrets at rest, the same that the store was opened with; `None`: nothing does.
    pub keyring: Option<Arc<Keyring>>,
    /// Whose tokens are taken besides our own.
    pub oidc: Option<Arc<authn::Oidc>>,
    /// Whom the server believes, and in whose name it signs.
    pub believed: Believed,
    /// Exchanges them for others; `None`: nobody does it through this server.
    pub exchange: Option<Arc<dyn Exchange>>,
    /// Names and addresses in this master's own certificate: no node gets one for them unasked.
    pub api_names: Vec<String>,
    /// All of the process' metrics; `/metrics` shows it.
    pub registry: prometheus::Registry,
    /// Shown to servers behind APIServices, who believe its bearer's `X-Remote-*` headers; `None`:
    /// nothing is shown.
    pub aggregation_client: Option<Arc<dyn rustls::client::ResolvesClientCert>>,
    /// The audit log, if one is kept.
    pub audit: Option<Arc<audit::Audit>>,
    /// How likely an HTTP/2 client is sent to another master with each request (kube-apiserver's
    /// `--goaway-chance`); 0: never.
    pub goaway_chance: f64,
}

impl Config {
    /// Upstream's defaults over `store`.
    pub fn new(store: Store) -> Config {
        Config {
            store,
            service_cidr: ServiceCidr::parse("10.96.0.0/16").expect("a valid range"),
            node_ports: 30000..=32767,
            advertise_port: 6443,
            admission: admission::Config::default(),
            tokens: Arc::new(authn::Tokens::new(
                authn::SigningKey::generate(),
                authn::service_account::ISSUER,
            )),
            token_webhook: None,
            access_webhook: None,
            keyring: None,
            oidc: None,
            believed: Authorities::default().into(),
            exchange: None,
            api_names: Vec::new(),
            registry: prometheus::Registry::new(),
            aggregation_client: None,
            audit: None,
            goaway_chance: 0.0,
        }
    }
}

/// The API server of one master. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    core: Arc<Core>,
}

impl Server {
    pub fn new(config: Config) -> Server {
        let view: Arc<dyn view::View> = Arc::new(config.store.clone());
        let ways = backend::Ways { view: view.clone(), believed: config.believed.clone() };
        Server {
            core: Arc::new(Core {
                machine: admission::Machine::new(&config.registry, ways.clone()),
                ways: ways.clone(),
                store: config.store.clone(),
                authorizer: authz::authorizer(config.store.clone()),
                view,
                schema: k8s::schema::Schema::built_in(),
                catalogs: Arc::new(catalog::Catalogs::new(config.store.clone())),
                converter: Arc::new(custom::Converter::new(ways)),
                metrics: Metrics::new(config.registry.clone()),
                tasks: Default::default(),
                aggregator: Default::default(),
                flow: flow::Flow::new(&config.registry),
                stopping: Default::default(),
                boot: Default::default(),
                heartbeats: heartbeats::Heartbeats::new(&config.registry),
                page_tokens: page_tokens::PageTokens::default(),
                followers: exchange::Followers::default(),
                config,
            }),
        }
    }

    /// Tells the other masters which nodes this one hears of, and hears from them; without it, heartbeats
    /// are written like any change. Runs until dropped; once a process.
    pub async fn share_heartbeats(&self) {
        self.core.share_heartbeats().await;
    }

    /// Waits until this master knows of all heartbeats that other masters know of now. For ever without
    /// `share_heartbeats`.
    pub async fn heartbeats_heard_out(&self) {
        self.core.heartbeats.heard_out().await;
    }

    /// How long ago any master last heard of a node, as far as this one knows: off by what masters take
    /// to tell each other, normally a second. `None`: never, or only by a Lease that was written.
    pub fn heartbeat_age(&self, node: &str) -> Option<std::time::Duration> {
        self.core.heartbeats.age(node)
    }

    /// The API under an identity, inside the process: same pipeline, authorization and admission as
    /// over HTTP.
    pub fn client(&self, identity: Identity) -> Arc<dyn k8s::Api> {
        Arc::new(Client { core: self.core.clone(), identity: Arc::new(identity) })
    }
}
