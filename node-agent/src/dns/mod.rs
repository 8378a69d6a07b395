//! Cluster DNS on every node: answers names of the cluster from memory, so that it goes on when
//! every master is gone, and passes other names on.

mod upstream;
mod zone;

pub use upstream::nameservers;
pub use zone::{Answer, Data, Kind, Record, Zone};

use hickory_server::{
    net::runtime::Time,
    proto::{
        op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode},
        rr::{Name, RData, Record as WireRecord, RecordType, rdata},
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, UdpSocket};

/// How long clients may remember an answer, "no such name" included: as in CoreDNS.
const TTL_SECONDS: u32 = 5;
/// For a client's next question on a TCP connection.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers waiting for a slow TCP client.
const TCP_ANSWERS: usize = 64;
/// Datagram size that a client without EDNS takes, and the most that we send.
const PAYLOAD_BYTES_MIN: u16 = 512;
const PAYLOAD_BYTES_MAX: u16 = 1232;

/// What DNS counts.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    responses: IntCounterVec,
    durations: Histogram,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let requests =
            Opts::new("coxswain_dns_requests_total", "DNS requests, by protocol and type asked.");
        let responses = Opts::new("coxswain_dns_responses_total", "DNS responses, by code.");
        let durations = HistogramOpts::new(
            "coxswain_dns_request_duration_seconds",
            "Time from a DNS request to its response in seconds.",
        );
        // 10 µs to 5 s: from memory to the last upstream.
        let durations = durations.buckets(prometheus::exponential_buckets(0.00001, 4.0, 10)?);
        let metrics = Metrics {
            requests: IntCounterVec::new(requests, &["proto", "type"])?,
            responses: IntCounterVec::new(responses, &["rcode"])?,
            durations: Histogram::with_opts(durations)?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.responses.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        Ok(metrics)
    }
}

/// The zone that is served, replaced as a whole.
#[derive(Clone)]
pub struct SharedZone {
    domain: Arc<str>,
    /// `None` until services were heard of: then a name is not denied but refused for now.
    zone: Arc<RwLock<Option<Arc<Zone>>>>,
}

impl SharedZone {
    pub fn new(domain: &str) -> SharedZone {
        SharedZone { domain: domain.to_ascii_lowercase().into(), zone: Arc::default() }
    }

    pub fn replace(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(zone));
    }

    fn load(&self) -> Option<Arc<Zone>> {
        self.zone.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A bound server.
pub struct Server(hickory_server::Server<Handler>);

impl Server {
    /// Binds UDP and TCP port 53 of `address` in the calling thread's network namespace.
    pub async fn bind(
        address: Ipv4Addr,
        zone: SharedZone,
        upstream: Vec<SocketAddr>,
        metrics: Metrics,
    ) -> io::Result<Server> {
        let at = SocketAddr::from((address, 53));
        let mut server = hickory_server::Server::new(Handler { zone, upstream, metrics });
        server.register_socket(UdpSocket::bind(at).await?);
        server.register_listener(TcpListener::bind(at).await?, TCP_IDLE, TCP_ANSWERS);
        Ok(Server(server))
    }

    /// Answers until dropped.
    pub async fn serve(mut self) {
        if let Err(error) = self.0.block_until_done().await {
            tracing::error!(%error, "cluster DNS ended");
        }
    }
}

struct Handler {
    zone: SharedZone,
    upstream: Vec<SocketAddr>,
    metrics: Metrics,
}

/// The sections of a response.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<WireRecord>,
    authorities: Vec<WireRecord>,
    additionals: Vec<WireRecord>,
}

impl Reply {
    fn code(code: ResponseCode) -> Reply {
        let (answers, authorities, additionals) = (Vec::new(), Vec::new(), Vec::new());
        Reply { code, authoritative: false, answers, authorities, additionals }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let started = Instant::now();
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = !self.upstream.is_empty();
        let mut edns = Edns::new();
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(asked) = &request.edns {
            let payload = asked.max_payload().clamp(PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX);
            edns.set_max_payload(payload);
            builder.edns(&edns);
        }
        let message =
            builder.build(metadata, &reply.answers, &reply.authorities, &[], &reply.additionals);
        let sent = response.send_response(message).await;
        let code = format!("{:?}", reply.code).to_uppercase();
        self.metrics.responses.with_label_values(&[code.as_str()]).inc();
        self.metrics.durations.observe(started.elapsed().as_secs_f64());
        sent.unwrap_or_else(|error| {
            tracing::debug!(%error, "DNS response not sent");
            metadata.response_code = ResponseCode::ServFail;
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}

impl Handler {
    async fn reply(&self, request: &Request) -> Reply {
        let Ok(info) = request.request_info() else {
            return Reply::code(ResponseCode::FormErr);
        };
        let kind = info.query.query_type();
        let protocol = request.protocol().to_string().to_lowercase();
        self.metrics.requests.with_label_values(&[protocol.as_str(), &kind.to_string()]).inc();
        if request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        let asked = info.query.original().name().clone();
        let name = asked.to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let Some(zone) = self.zone.load() else {
            let domain = &*self.zone.domain;
            let ours = name.ends_with(domain) || name.ends_with(".arpa");
            return match ours {
                true => Reply::code(ResponseCode::ServFail),
                false => self.outside(&asked, kind).await,
            };
        };
        match zone.answer(name, kind_of(kind)) {
            Answer::Outside => self.outside(&asked, kind).await,
            Answer::Records { answers, additionals } => Reply {
                authoritative: true,
                answers: wire(&answers, zone.domain()),
                additionals: wire(&additionals, zone.domain()),
                ..Reply::code(ResponseCode::NoError)
            },
            Answer::Alias { answers, outside } => {
                let mut reply = match Name::from_ascii(format!("{outside}.")) {
                    Ok(target) => self.outside(&target, kind).await,
                    Err(_) => Reply::code(ResponseCode::NoError),
                };
                let mut all = wire(&answers, zone.domain());
                all.append(&mut reply.answers);
                // The alias itself is a good answer even if nobody knows where it leads.
                Reply { answers: all, ..Reply::code(ResponseCode::NoError) }
            }
            Answer::NoData => denial(&zone, ResponseCode::NoError),
            Answer::NoName => denial(&zone, ResponseCode::NXDomain),
        }
    }

    /// Asks upstream. Without any there is nothing outside the cluster.
    async fn outside(&self, name: &Name, kind: RecordType) -> Reply {
        if self.upstream.is_empty() {
            return Reply::code(ResponseCode::NXDomain);
        }
        match upstream::ask(&self.upstream, name, kind).await {
            None => Reply::code(ResponseCode::ServFail),
            Some(message) => Reply {
                code: message.metadata.response_code,
                authoritative: false,
                answers: message.answers,
                authorities: message.authorities,
                additionals: message.additionals,
            },
        }
    }
}

fn denial(zone: &Zone, code: ResponseCode) -> Reply {
    let soa = (zone.domain().to_string(), Data::Soa);
    let authorities = wire(&[soa], zone.domain());
    Reply { authoritative: true, authorities, ..Reply::code(code) }
}

fn kind_of(kind: RecordType) -> Kind {
    match kind {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        RecordType::PTR => Kind::Ptr,
        RecordType::CNAME => Kind::Cname,
        RecordType::TXT => Kind::Txt,
        RecordType::SOA => Kind::Soa,
        RecordType::NS => Kind::Ns,
        _ => Kind::Other,
    }
}

/// Records for the wire; one whose name cannot be encoded (an ExternalName of 300 bytes) is left out.
fn wire(records: &[Record], domain: &str) -> Vec<WireRecord> {
    let encode = |(name, data): &Record| {
        let name = Name::from_ascii(format!("{name}.")).ok()?;
        Some(WireRecord::from_rdata(name, TTL_SECONDS, rdata(data, domain)?))
    };
    records.iter().filter_map(encode).collect()
}

fn rdata(data: &Data, domain: &str) -> Option<RData> {
    let name = |text: &str| Name::from_ascii(format!("{text}.")).ok();
    Some(match data {
        Data::Address(IpAddr::V4(address)) => RData::A(rdata::A(*address)),
        Data::Address(IpAddr::V6(address)) => RData::AAAA(rdata::AAAA(*address)),
        Data::Service { port, target } => RData::SRV(rdata::SRV::new(0, 100, *port, name(target)?)),
        Data::Pointer(target) => RData::PTR(rdata::PTR(name(target)?)),
        Data::Alias(target) => RData::CNAME(rdata::CNAME(name(target)?)),
        Data::Text(text) => RData::TXT(rdata::TXT::new(vec![text.clone()])),
        Data::Ns(target) => RData::NS(rdata::NS(name(target)?)),
        Data::Soa => {
            let server = name(&format!("ns.dns.{domain}"))?;
            let mailbox = name(&format!("hostmaster.{domain}"))?;
            // Nobody copies this zone: of these numbers only the last means something to clients.
            let ttl = TTL_SECONDS;
            RData::SOA(rdata::SOA::new(server, mailbox, 1, 7200, 1800, 86_400, ttl))
        }
    })
}
