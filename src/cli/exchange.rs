//! `coxswain certs exchange`: an authority for a new one, on all masters, step by step and while everything goes on.
//! Each command may be repeated: it goes on where the masters are. They would go on without it, too: it has them
//! make their steps at once, and tells how far they are.

use super::{
    client::{Connection, Target, refused},
    members, output,
    standing::{Picture, Stage},
};
use crate::{dev::progress::Progress, pki};
use anyhow::{Context, Result, bail, ensure};
use apiserver::exchange::{AuthorityName, fingerprints};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

const PATH: &str = "/coxswain/authorities";
const MEMBERS: &str = "/coxswain/members";
/// Of one question to one master: signing its certificates anew takes part of a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at how far everybody is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of a fingerprint, for people.
const SHORT: usize = 16;

/// Exchange an authority while everything goes on
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Let every master and node believe a new authority, then let it sign
    Start(Common),
    /// Believe the new authority alone; whoever shows what the old one signed is not let in any more
    Finish(Common),
    /// Show which authorities each master believes, and which nodes have followed
    Status {
        /// Which: ca (clients and nodes), peer-ca (between masters) or front-proxy-ca
        #[arg(long, default_value_t = AuthorityName::Ca)]
        authority: AuthorityName,

        /// Kubeconfig of an administrator (default: $KUBECONFIG, then ~/.kube/config)
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
pub(super) struct Common {
    /// Which: ca (clients and nodes), peer-ca (between masters) or front-proxy-ca
    #[arg(long, default_value_t = AuthorityName::Ca)]
    authority: AuthorityName,

    /// Kubeconfig of an administrator (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// Minutes after which it is not waited any longer for masters and nodes to follow
    #[arg(long, default_value_t = 10)]
    wait_minutes: u64,

    /// Do not wait for nodes: those that have not followed are shut out when it is finished
    #[arg(long)]
    leave_nodes_behind: bool,
}

impl Common {
    /// Nodes know one authority only.
    fn waits_for_nodes(&self) -> bool {
        self.authority == AuthorityName::Ca && !self.leave_nodes_behind
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(60 * self.wait_minutes)
    }
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args {
        Args::Start(common) => start(&common).await,
        Args::Finish(common) => finish(&common).await,
        Args::Status { authority, kubeconfig } => {
            let masters = Masters::find(authority, kubeconfig).await?;
            output::say(&table(&masters.picture().await?));
            Ok(())
        }
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(", ")
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..SHORT).unwrap_or(fingerprint)
}

fn table(picture: &Picture) -> String {
    let masters = picture.masters.iter().map(|state| {
        let believes: Vec<&str> = state.believes.iter().map(|it| short(&it.fingerprint)).collect();
        let next = state.next.as_deref().map_or("-", short);
        let until = state.believes.first().and_then(|known| date(known.until));
        vec![
            state.name.clone(),
            short(state.signs()).into(),
            until.unwrap_or_default(),
            if state.certified { "yes" } else { "no" }.into(),
            believes.join(","),
            next.into(),
        ]
    });
    let header = ["MASTER", "SIGNS", "UNTIL", "CERTIFIED BY IT", "BELIEVES", "NEXT"];
    let masters = output::table(&header, &masters.collect::<Vec<_>>());
    let signs = picture.masters.first().map_or("", |state| state.signs());
    let (behind, uncertified) = (picture.behind(signs), picture.uncertified(signs));
    let nodes: Vec<Vec<String>> = picture
        .nodes()
        .into_iter()
        .map(|name| {
            let yes =
                |not: &BTreeSet<String>| if not.contains(&name) { "no" } else { "yes" }.to_owned();
            let (believes, certified) = (yes(&behind), yes(&uncertified));
            vec![name, believes, certified]
        })
        .collect();
    if nodes.is_empty() {
        return masters;
    }
    format!("{masters}\n{}", output::table(&["NODE", "BELIEVES IT", "CERTIFIED BY IT"], &nodes))
}

/// Of a time in seconds since 1970.
fn date(seconds: i64) -> Option<String> {
    Some(time::OffsetDateTime::from_unix_timestamp(seconds).ok()?.date().to_string())
}

/// All masters, each asked by itself.
struct Masters {
    /// The authority that they are asked about.
    authority: AuthorityName,
    target: Target,
    all: Vec<Master>,
}

struct Master {
    id: u64,
    name: String,
    /// That in the kubeconfig, or else the address that the masters know.
    url: String,
}

impl Masters {
    async fn find(authority: AuthorityName, kubeconfig: Option<PathBuf>) -> Result<Masters> {
        let target = Target::of_masters(kubeconfig.as_deref())?;
        let members = members::ask(&target).await?;
        let mut masters = Masters { authority, target, all: Vec::new() };
        let mut dialled = BTreeMap::new();
        // A single one may lead to any of them.
        let each = masters.target.servers.len() > 1 || members.len() == 1;
        for url in masters.target.servers.iter().filter(|_| each) {
            // One that does not answer is missed below.
            let said = masters.call(url, http::Method::GET, MEMBERS, &Value::Null).await;
            let said = said.unwrap_or_default();
            let own = said.as_array().into_iter().flatten().find(|member| member["self"] == true);
            dialled.extend(own.map(|own| (members::id(own), url.clone())));
        }
        for member in &members {
            let (id, name) = (members::id(member), members::name(member).to_owned());
            let address = member["apiAddress"].as_str().context("a master without an address")?;
            let url = dialled.remove(&id).unwrap_or_else(|| format!("https://{address}"));
            masters.all.push(Master { id, name, url });
        }
        Ok(masters)
    }

    async fn call(
        &self,
        url: &str,
        method: http::Method,
        path: &str,
        body: &Value,
    ) -> Result<Value> {
        let called = async {
            let mut connection = Connection::open(url, self.target.tls.clone()).await?;
            let (code, answer) = connection.call(method, path, body.to_string().into()).await?;
            match code {
                200 => Ok(serde_json::from_slice(&answer)?),
                _ => Err(refused(&format!("{url}{path}"), code, &answer)),
            }
        };
        timeout(ANSWER_TIMEOUT, called).await.with_context(|| format!("{url}: no answer"))?
    }

    async fn picture(&self) -> Result<Picture> {
        let mut said = Vec::new();
        for master in &self.all {
            let told = self.call(&master.url, http::Method::GET, PATH, &Value::Null).await;
            let why = || format!("master {}: every master has to take part", master.name);
            said.push((master.name.clone(), master.own(told.with_context(why)?)?));
        }
        Ok(Picture::of(self.authority, &said))
    }

    /// Lets one master make a step; what it says then.
    async fn step(&self, master: &Master, step: &str, authority: Option<&str>) -> Result<Value> {
        let path = format!("{PATH}/{}/{step}", self.authority);
        let body = json!({ "authority": authority });
        let said = self.call(&master.url, http::Method::POST, &path, &body).await;
        master.own(said.with_context(|| format!("master {}", master.name))?)
    }

    async fn every(&self, step: &str, authority: &str) -> Result<()> {
        for master in &self.all {
            self.step(master, step, Some(authority)).await?;
        }
        Ok(())
    }

    /// Looks until nobody is missing any more. `missing` names those who are.
    async fn until(
        &self,
        (progress, deadline): (&Progress, Instant),
        what: &str,
        missing: impl Fn(&Picture) -> BTreeSet<String>,
    ) -> Result<()> {
        let mut said = String::new();
        loop {
            // A master that does not answer now may do so in a moment.
            let missed = match self.picture().await {
                Ok(picture) => list(&missing(&picture)),
                Err(error) => format!("{error:#}"),
            };
            if missed.is_empty() {
                progress.say(what);
                return Ok(());
            }
            if missed != said {
                progress.say(&format!("waiting for {missed}"));
            }
            if Instant::now() >= deadline {
                bail!("not all followed in time: {missed}; run it again when they can");
            }
            said = missed;
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Master {
    fn own(&self, said: Value) -> Result<Value> {
        let Master { id, name, url } = self;
        ensure!(said["member"] == *id, "another master than {name} answers at {url}");
        Ok(said)
    }
}

async fn start(args: &Common) -> Result<()> {
    let progress = Progress::start();
    let masters = Masters::find(args.authority, args.kubeconfig.clone()).await?;
    let picture = masters.picture().await?;
    let authority = match picture.stage()? {
        Stage::Begun(authority) => authority,
        Stage::None => {
            let first = masters.all.first().context("no master")?;
            let said = masters.step(first, "believe", None).await?;
            let next = said["authorities"][args.authority.as_str()]["next"].as_str();
            next.context("the first master names no new authority")?.to_owned()
        }
    };
    progress.say(&format!("authority {} is on its way in", short(&authority)));
    if !picture.others.is_empty() {
        let others = list(&picture.others);
        progress.say(&format!("not Ready, or without an agent: change ca.crt of {others} by hand"));
    }
    let waiting = (&progress, args.deadline());
    masters.every("believe", &authority).await?;
    let missing = |all: &Picture| all.masters_but(|master| master.believes(&authority));
    masters.until(waiting, "every master believes it", missing).await?;
    if args.waits_for_nodes() {
        masters.until(waiting, "every node believes it", |all| all.behind(&authority)).await?;
    }
    masters.every("sign", &authority).await?;
    let missing = |all: &Picture| all.masters_but(|master| master.is_certified_by(&authority));
    masters.until(waiting, "it signs on every master", missing).await?;
    if args.waits_for_nodes() {
        let missing = |all: &Picture| all.uncertified(&authority);
        masters.until(waiting, "every node is certified by it", missing).await?;
    }
    output::say(next_for_people(args.authority));
    Ok(())
}

fn next_for_people(authority: AuthorityName) -> &'static str {
    match authority {
        AuthorityName::Ca => {
            "\nKubeconfigs go on until the exchange is finished. Before that, make new ones on a master\n\
             \n  coxswain certs admin --pki DIR --server URL\n\n\
             and give their certificate-authority-data to everybody; pods that read ca.crt once are restarted.\n\
             Then, with a new one:\n\n  coxswain certs exchange finish"
        }
        AuthorityName::PeerCa => {
            "\nNobody but masters knows it. Then:\n\n  coxswain certs exchange finish --authority peer-ca"
        }
        AuthorityName::FrontProxyCa => {
            "\nServers behind APIServices find it in ConfigMap kube-system/extension-apiserver-authentication,\n\
             where most of them follow it by themselves. Give proxies of your own certificates of the new one. Then:\n\
             \n  coxswain certs exchange finish --authority front-proxy-ca"
        }
    }
}

async fn finish(args: &Common) -> Result<()> {
    let progress = Progress::start();
    let masters = Masters::find(args.authority, args.kubeconfig.clone()).await?;
    let picture = masters.picture().await?;
    let Stage::Begun(authority) = picture.stage()? else {
        progress.say("nothing is being exchanged");
        return Ok(());
    };
    let early = picture.masters_but(|master| master.is_certified_by(&authority));
    ensure!(
        early.is_empty(),
        "it does not sign on {}: `coxswain certs exchange start`",
        list(&early)
    );
    if args.authority == AuthorityName::Ca {
        let own = &masters.target;
        ensure!(
            fingerprints(&own.ca).contains(&authority) && pki::is_signed_by(&own.cert, &own.ca),
            "this kubeconfig is of the old authority and would be shut out: use one that \
             `coxswain certs admin` made since"
        );
    }
    let waiting = (&progress, args.deadline());
    if args.waits_for_nodes() {
        let missing = |all: &Picture| all.uncertified(&authority);
        masters.until(waiting, "every node is certified by it", missing).await?;
    }
    masters.every("forget", &authority).await?;
    let missing = |all: &Picture| all.masters_but(|master| master.believes_alone(&authority));
    masters.until(waiting, "every master believes the new authority alone", missing).await?;
    if args.authority == AuthorityName::Ca {
        progress.say("tokens that masters and nodes join with name the old one: make new ones");
    }
    Ok(())
}
