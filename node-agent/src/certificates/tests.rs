//! Certificates asked for, renewed and refused, against masters that are a map and an authority; time is
//! the test's.

use super::{
    Clock, Keeper, Metrics, Place, Shown, Wanted,
    files::Facts,
    obtain::{Answer, Error, answer, obtain},
};
use crate::authority::Authorities;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use jiff::Timestamp;
use k8s::{Api, Events, Object, Request, Status, Verb, WatchEvent, WatchRequest};
use prometheus::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{sync::broadcast, time::Instant};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::task::AbortOnDropHandle;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

const LIFE: Duration = Duration::from_secs(1_000);
const START: i64 = 1_800_000_000;

/// What masters do with a request.
#[derive(Clone)]
enum Temper {
    Sign,
    Leave,
    Deny,
    SignForOthers,
    Refuse(Status),
}

struct Masters {
    /// In whose name they sign, and its certificate in PEM.
    signer: Mutex<(Issuer<'static, KeyPair>, String)>,
    clock: Clock,
    temper: Mutex<Temper>,
    objects: Mutex<BTreeMap<String, Object>>,
    changes: broadcast::Sender<Object>,
    asked: AtomicU32,
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

impl Masters {
    fn new(clock: &Clock) -> Arc<Masters> {
        let (changes, _) = broadcast::channel(64);
        Arc::new(Masters {
            signer: Mutex::new(authority()),
            clock: clock.clone(),
            temper: Mutex::new(Temper::Sign),
            objects: Mutex::default(),
            changes,
            asked: AtomicU32::new(0),
        })
    }

    fn are(&self, temper: Temper) {
        *self.temper.lock().unwrap() = temper;
    }

    fn put(&self, value: Value) {
        let object = Object::from_value(value).unwrap();
        self.objects.lock().unwrap().insert(object.name().to_string(), object.clone());
        let _ = self.changes.send(object);
    }

    /// PEM, for a PKCS#10 request.
    fn sign(&self, request: &str) -> String {
        let mut asked = CertificateSigningRequestParams::from_pem(request).unwrap();
        let now = (self.clock)().as_second();
        let at = |seconds| x509_parser::time::ASN1Time::from_timestamp(seconds).unwrap();
        asked.params.not_before = at(now).to_datetime();
        asked.params.not_after = at(now + LIFE.as_secs() as i64).to_datetime();
        asked.signed_by(&self.signer.lock().unwrap().0).unwrap().pem()
    }

    fn take(&self, request: Request) -> Result<Object, Status> {
        let mut object = Object::from_value(request.body.clone().unwrap()).unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.objects.lock().unwrap().contains_key(object.name()) {
            return Err(Status::already_exists(&request.resource, object.name()));
        }
        let pkcs10 = STANDARD.decode(object.str_at("/spec/request")).unwrap();
        let mut pkcs10 = String::from_utf8(pkcs10).unwrap();
        let temper = self.temper.lock().unwrap().clone();
        let status = match temper {
            Temper::Refuse(status) => return Err(status),
            Temper::Leave => json!({}),
            Temper::Deny => {
                json!({"conditions": [{"type": "Denied", "status": "True", "message": "not here"}]})
            }
            Temper::Sign | Temper::SignForOthers => {
                if matches!(temper, Temper::SignForOthers) {
                    let key = KeyPair::generate().unwrap();
                    pkcs10 = pkcs10_of(&Wanted::client("n2").request(&key).unwrap());
                }
                json!({
                    "conditions": [{"type": "Approved", "status": "True"}],
                    "certificate": STANDARD.encode(self.sign(&pkcs10)),
                })
            }
        };
        object.0.insert("status".into(), status);
        self.put(object.clone().into_value());
        Ok(object)
    }
}

impl Api for Masters {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Object, Status>> {
        let answer = match request.verb {
            Verb::Create => self.take(request),
            _ => {
                let found = self.objects.lock().unwrap().get(&request.name).cloned();
                found.ok_or_else(|| Status::not_found(&request.resource, &request.name))
            }
        };
        futures::future::ready(answer).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Events, Status>> {
        let name = request.field_selector.unwrap();
        let name = name.strip_prefix("metadata.name=").unwrap().to_string();
        let later = BroadcastStream::new(self.changes.subscribe());
        let first = self.objects.lock().unwrap().get(&name).cloned();
        let first = first.map(|object| WatchEvent::Added(Arc::new(object)));
        let end = WatchEvent::Bookmark { revision: k8s::Revision(1), initial_events_end: true };
        let first = futures::stream::iter(first.into_iter().chain([end]).map(Ok));
        let later = later.map(|object| Ok(WatchEvent::Modified(Arc::new(object.unwrap()))));
        futures::future::ready(Ok(first.chain(later).boxed())).boxed()
    }
}

/// Goes with the time of tokio, which tests move.
fn clock() -> Clock {
    let started = Instant::now();
    Arc::new(move || Timestamp::from_second(START + started.elapsed().as_secs() as i64).unwrap())
}

fn place(directory: &Path) -> Place {
    Place { cert: directory.join("client.crt"), key: directory.join("client.key") }
}

fn pkcs10_of(request: &Object) -> String {
    String::from_utf8(STANDARD.decode(request.str_at("/spec/request")).unwrap()).unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Something that is kept good, and what there is to see of it.
struct Kept {
    place: Place,
    shown: Arc<Shown>,
    registry: Registry,
    authorities: Arc<Authorities>,
    new: Arc<AtomicU32>,
    _keeping: AbortOnDropHandle<()>,
}

impl Kept {
    fn start(masters: &Arc<Masters>, place: &Place, wanted: Wanted, clock: &Clock) -> Kept {
        let (registry, new, shown) = (Registry::new(), Arc::new(AtomicU32::new(0)), Arc::default());
        let counted = new.clone();
        let ca = place.cert.with_file_name("ca.crt");
        std::fs::write(&ca, &masters.signer.lock().unwrap().1).unwrap();
        let authorities = Authorities::open(ca).unwrap();
        let keeper = Keeper {
            api: masters.clone(),
            wanted,
            place: place.clone(),
            pair: place.open().unwrap(),
            shown: Arc::clone(&shown),
            metrics: Metrics::server(&registry, clock).unwrap(),
            authorities: authorities.clone(),
            clock: clock.clone(),
            on_new: Box::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
        };
        let keeping = tokio::spawn(async move { match keeper.keep().await {} });
        let _keeping = AbortOnDropHandle::new(keeping);
        Kept { place: place.clone(), shown, registry, authorities, new, _keeping }
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        match family.get_field_type() {
            prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
            prometheus::proto::MetricType::HISTOGRAM => metric.get_histogram().get_sample_sum(),
            _ => metric.get_gauge().get_value(),
        }
    }

    fn ttl(&self) -> f64 {
        self.metric("kubelet_certificate_manager_server_ttl_seconds")
    }

    fn errors(&self) -> f64 {
        self.metric("kubelet_server_expiration_renew_errors")
    }

    /// The files are of one pair, and it is what is shown.
    fn assert_whole(&self) -> Vec<u8> {
        let (cert, key) = (read(&self.place.cert), read(&self.place.key));
        let certified = crate::credentials::certified(cert.as_bytes(), &[], key.as_bytes());
        let certified = certified.expect("they belong together");
        assert_eq!(self.shown.current().expect("something").cert, certified.cert);
        certified.end_entity_cert().unwrap().to_vec()
    }
}

#[test]
fn what_is_asked_for_is_what_a_kubelet_asks_for() {
    let key = KeyPair::generate().unwrap();
    let address = "10.0.0.11".parse().unwrap();
    let mut lines = Vec::new();
    for wanted in [Wanted::client("n1"), Wanted::serving("n1", address)] {
        let request = wanted.request(&key).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pkcs10_of(&request).as_bytes()).unwrap();
        let (_, asked) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        asked.verify_signature().expect("signed by its key");
        let names = asked.requested_extensions().into_iter().flatten();
        let names: Vec<String> = names.map(|extension| format!("{extension:?}")).collect();
        let (signer, usages) = (request.str_at("/spec/signerName"), request.at("/spec/usages"));
        let subject = &asked.certification_request_info.subject;
        lines.push(format!("{subject}; {signer}; {}; {names:?}", usages.unwrap()));
        assert_eq!(wanted.request(&key).unwrap().name(), request.name(), "asked once");
    }
    insta::assert_snapshot!(lines.join("\n"));
    let name = |wanted: Wanted, key: &KeyPair| wanted.request(key).unwrap().name().to_string();
    let names = [
        name(Wanted::client("n1"), &key),
        name(Wanted::client("n2"), &key),
        name(Wanted::serving("n1", address), &key),
        name(Wanted::serving("n1", "10.0.0.12".parse().unwrap()), &key),
        name(Wanted::client("n1"), &KeyPair::generate().unwrap()),
    ];
    let different: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
}

#[test]
fn a_request_tells_what_it_waits_for() {
    let tell = |status: Value| {
        let value = json!({"metadata": {"name": "csr"}, "status": status});
        match answer(&Object::from_value(value).unwrap()) {
            Ok(Answer::Issued(cert)) => format!("issued {cert}"),
            Ok(Answer::Waits(why)) => why,
            Err(error) => error.to_string(),
        }
    };
    let condition = |kind: &str, message: &str| json!([{"type": kind, "message": message}]);
    let lines = [
        json!({}),
        json!({"conditions": condition("AutoApproval", "n1 is a master.")}),
        json!({"conditions": condition("Approved", "")}),
        json!({"conditions": condition("Denied", "go away")}),
        json!({"conditions": condition("Failed", "no such usage")}),
        json!({"conditions": condition("Approved", ""), "certificate": STANDARD.encode("PEM")}),
        json!({"conditions": condition("Approved", ""), "certificate": "?"}),
    ];
    insta::assert_snapshot!(lines.map(tell).join("\n"));
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_was_interrupted_is_ended_by_the_next_start() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (place, masters) = (place(directory.path()), Masters::new(&clock));
    let wanted = Wanted::client("n1");
    obtain(&*masters, &wanted, &place, &clock).await.expect("a certificate");
    for file in [&place.cert, &place.key] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (cert, key) = (read(&place.cert), read(&place.key));
    obtain(&*masters, &wanted, &place, &clock).await.expect("another");
    assert_ne!(read(&place.key), key, "a new key");
    // The power goes off between the two files.
    std::fs::rename(&place.key, directory.path().join("client.key.next")).unwrap();
    std::fs::write(&place.key, &key).unwrap();
    let pair = place.open().expect("healed").expect("a pair");
    assert_ne!(pair.files().cert, cert.as_bytes());
    assert_ne!(read(&place.key), key);
    assert!(!directory.path().join("client.key.next").exists());
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_after_a_restart_and_a_denied_one_is_not_asked_again() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (place, masters) = (place(directory.path()), Masters::new(&clock));
    let wanted = Wanted::client("n1");
    let ask = || obtain(&*masters, &wanted, &place, &clock);
    masters.are(Temper::Leave);
    assert!(ask().now_or_never().is_none(), "nobody answers, and the agent ends");
    let late = ask().await.expect_err("nobody answers");
    assert!(matches!(&late, Error::Late(why) if why.contains("is not approved yet")), "{late}");
    assert_eq!(masters.objects.lock().unwrap().len(), 1, "asked twice is asked once");
    let first = masters.objects.lock().unwrap().keys().next().unwrap().clone();
    masters.objects.lock().unwrap().clear();
    for temper in [Temper::Deny, Temper::SignForOthers] {
        masters.are(temper);
        let error = ask().await.expect_err("not for us");
        assert!(matches!(error, Error::Denied { .. } | Error::Unfit(_)), "{error}");
    }
    let names: Vec<String> = masters.objects.lock().unwrap().keys().cloned().collect();
    assert!(names.contains(&first) && names.len() == 2, "each for a key of its own: {names:?}");
    assert!(!place.cert.exists() && !place.key.exists(), "nothing is written");
    masters.are(Temper::Refuse(Status::unauthorized()));
    let refused = ask().await.expect_err("refused");
    assert!(matches!(refused, Error::Refused(status) if status.code == 401));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_in_time_and_shown_to_whoever_connects_next() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (place, masters) = (place(directory.path()), Masters::new(&clock));
    let wanted = Wanted::client("n1");
    obtain(&*masters, &wanted, &place, &clock).await.expect("a certificate");
    let kept = Kept::start(&masters, &place, wanted, &clock);
    tokio::time::sleep(LIFE.mul_f64(0.69)).await;
    assert_eq!(masters.asked.load(Ordering::SeqCst), 1, "too early");
    let (first, key) = (kept.assert_whole(), read(&place.key));
    assert_eq!(kept.ttl(), 310.0);
    tokio::time::sleep(LIFE.mul_f64(0.22)).await;
    assert_ne!(kept.assert_whole(), first);
    assert_ne!(read(&place.key), key, "a new key");
    let facts = Facts::of(read(&place.cert).as_bytes()).unwrap();
    let asked_after = facts.from - START;
    assert!((700..=900).contains(&asked_after), "{asked_after}");
    assert_eq!(kept.ttl(), (asked_after + 1_000 - 910) as f64);
    assert_eq!(kept.new.load(Ordering::SeqCst), 1);
    assert_eq!(
        kept.metric("kubelet_certificate_manager_server_rotation_seconds"),
        asked_after as f64
    );
    // And so on, for ever.
    tokio::time::sleep(10 * LIFE).await;
    let renewals = kept.new.load(Ordering::SeqCst);
    assert!((12..=16).contains(&renewals), "{renewals}");
    assert_eq!(kept.errors(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_tried_again_and_what_somebody_wrote_is_taken_up_meanwhile() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (place, masters) = (place(directory.path()), Masters::new(&clock));
    let wanted = Wanted::client("n1");
    obtain(&*masters, &wanted, &place, &clock).await.expect("a certificate");
    let kept = Kept::start(&masters, &place, wanted.clone(), &clock);
    masters.are(Temper::Refuse(Status::forbidden(
        &k8s::Resource::new("certificates.k8s.io", "v1", "certificatesigningrequests"),
        "",
        "switched off",
    )));
    tokio::time::sleep(LIFE + Duration::from_secs(60)).await;
    assert!(kept.errors() > 5.0, "{}", kept.errors());
    assert_eq!(kept.ttl(), -60.0, "it ended, and is shown as long as there is no other");
    let ended = kept.assert_whole();
    masters.are(Temper::Sign);
    tokio::time::sleep(Duration::from_secs(331)).await;
    let renewed = kept.assert_whole();
    assert_ne!(renewed, ended);
    let errors = kept.errors();
    // Nobody answers; then somebody carries files to the node.
    masters.are(Temper::Leave);
    tokio::time::sleep(LIFE).await;
    assert_eq!(kept.assert_whole(), renewed);
    let (key, before) = (KeyPair::generate().unwrap(), kept.new.load(Ordering::SeqCst));
    let cert = masters.sign(&pkcs10_of(&wanted.request(&key).unwrap()));
    std::fs::write(&place.cert, cert).unwrap();
    std::fs::write(&place.key, key.serialize_pem()).unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_ne!(kept.assert_whole(), renewed);
    assert_eq!(kept.new.load(Ordering::SeqCst), before + 1);
    tokio::time::sleep(LIFE / 2).await;
    assert_eq!(kept.errors(), errors, "what nobody needs any more is no failure");
}

#[tokio::test(start_paused = true)]
async fn what_an_authority_signed_that_no_longer_signs_is_replaced_before_it_goes() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (place, masters) = (place(directory.path()), Masters::new(&clock));
    let wanted = Wanted::client("n1");
    obtain(&*masters, &wanted, &place, &clock).await.expect("a certificate");
    let kept = Kept::start(&masters, &place, wanted, &clock);
    let asked = || masters.asked.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked(), 1);
    // One master has the new one already, another signs as before.
    let (old, next) = (masters.signer.lock().unwrap().1.clone(), authority());
    assert!(kept.authorities.hear((next.1.clone() + &old).as_bytes()).unwrap());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((3..=7).contains(&asked()), "again, but not at every look: {}", asked());
    assert!(!kept.authorities.sign(read(&place.cert).as_bytes()));
    *masters.signer.lock().unwrap() = next;
    tokio::time::sleep(Duration::from_secs(120)).await;
    kept.assert_whole();
    assert!(kept.authorities.sign(read(&place.cert).as_bytes()));
    let enough = asked();
    tokio::time::sleep(LIFE / 2).await;
    assert_eq!(asked(), enough);
    assert_eq!(kept.errors(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_node_serves_when_the_masters_know_where_it_is() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (place, masters) = (place(directory.path()), Masters::new(&clock));
    let wanted = Wanted::serving("n1", "10.0.0.11".parse().unwrap());
    let kept = Kept::start(&masters, &place, wanted, &clock);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(kept.shown.current().is_none(), "no handshake is answered");
    assert_eq!((kept.ttl(), masters.asked.load(Ordering::SeqCst)), (f64::INFINITY, 0));
    let node = |addresses: &[&str]| {
        let addresses: Vec<Value> =
            addresses.iter().map(|at| json!({"type": "InternalIP", "address": at})).collect();
        json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}})
    };
    masters.put(node(&["10.0.0.99", "n1"]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(masters.asked.load(Ordering::SeqCst), 0, "the Node says that it is elsewhere");
    masters.put(node(&["10.0.0.11", "N1"]));
    tokio::time::sleep(Duration::from_secs(10)).await;
    kept.assert_whole();
    let facts = Facts::of(read(&place.cert).as_bytes()).unwrap();
    assert_eq!(facts.names.into_iter().collect::<Vec<_>>(), ["10.0.0.11", "n1"]);
    drop(kept);
    // Started again at another address: the old certificate does not stand for it.
    masters.put(node(&["10.0.0.12", "n1"]));
    let wanted = Wanted::serving("n1", "10.0.0.12".parse().unwrap());
    let kept = Kept::start(&masters, &place, wanted, &clock);
    tokio::time::sleep(Duration::from_secs(1)).await;
    kept.assert_whole();
    let facts = Facts::of(read(&place.cert).as_bytes()).unwrap();
    assert!(facts.names.contains("10.0.0.12"), "{facts:?}");
}
