//! `coxswain certs exchange`: the authority of clients and nodes for a new one, on all masters, step by step and
//! while everything goes on. Each command may be repeated: it goes on where the masters are.

use super::{
    client::{Connection, Target, refused},
    members, output,
};
use crate::{dev::progress::Progress, pki};
use anyhow::{Context, Result, bail, ensure};
use apiserver::exchange::fingerprints;
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

/// Exchange the authority of clients and nodes while everything goes on
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Let every master and node believe a new authority, then let it sign
    Start(Common),
    /// Believe the new authority alone; whoever shows what the old one signed is not let in any more
    Finish(Common),
    /// Show which authorities each master believes, and which nodes have followed
    Status {
        /// Kubeconfig of an administrator (default: $KUBECONFIG, then ~/.kube/config)
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
pub(super) struct Common {
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
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(60 * self.wait_minutes)
    }
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args {
        Args::Start(common) => start(&common).await,
        Args::Finish(common) => finish(&common).await,
        Args::Status { kubeconfig } => {
            let masters = Masters::find(kubeconfig).await?;
            let (agents, _) = masters.nodes().await?;
            output::say(&table(&masters.states().await?, &agents));
            Ok(())
        }
    }
}

/// What one master says.
struct State {
    name: String,
    /// Fingerprints; the first one signs.
    believes: Vec<String>,
    /// Of the whole text, as nodes say it.
    hash: String,
    next: Option<String>,
    nodes: BTreeMap<String, Follower>,
}

struct Follower {
    believes: String,
    certified: bool,
}

impl State {
    fn of(name: &str, said: &Value) -> State {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let believes = said["believes"].as_array().into_iter().flatten().map(text).collect();
        let nodes = said["nodes"].as_object().into_iter().flatten().map(|(node, said)| {
            let certified = said["certified"] == true;
            (node.clone(), Follower { believes: text(&said["believes"]), certified })
        });
        State {
            name: name.into(),
            believes,
            hash: text(&said["hash"]),
            next: said["next"].as_str().map(str::to_owned),
            nodes: nodes.collect(),
        }
    }

    fn signs(&self) -> &str {
        self.believes.first().map_or("", String::as_str)
    }

    fn believes(&self, authority: &str) -> bool {
        self.believes.iter().any(|known| known == authority)
    }
}

/// Where the exchange is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// All believe one authority, which signs.
    None,
    /// This one is on its way in.
    Begun(String),
}

fn stage(states: &[State]) -> Result<Stage> {
    let next: BTreeSet<&str> = states.iter().filter_map(|state| state.next.as_deref()).collect();
    let signs: BTreeSet<&str> = states.iter().map(State::signs).collect();
    match (next.len(), signs.len()) {
        (1, _) => Ok(Stage::Begun(next.into_iter().map(str::to_owned).collect())),
        (0, 1) => Ok(Stage::None),
        (0, _) => {
            bail!("masters sign with different authorities, and none says which is new: {PATH}")
        }
        _ => {
            bail!("masters have different authorities on their way in; see `certs exchange status`")
        }
    }
}

/// The nodes that do not believe what a master that believes it says.
fn behind(states: &[State], agents: &BTreeSet<String>, authority: &str) -> BTreeSet<String> {
    let told = states.iter().filter(|state| state.believes(authority));
    let told: BTreeSet<&str> = told.map(|state| state.hash.as_str()).collect();
    nodes_where_none(states, agents, |node| told.contains(node.believes.as_str()))
}

/// The nodes that show no certificate of the one that signs now.
fn uncertified(states: &[State], agents: &BTreeSet<String>, authority: &str) -> BTreeSet<String> {
    let told = states.iter().filter(|state| state.signs() == authority);
    let told: BTreeSet<&str> = told.map(|state| state.hash.as_str()).collect();
    let good = |node: &Follower| node.certified && told.contains(node.believes.as_str());
    nodes_where_none(states, agents, good)
}

/// Of `agents` and all that were heard. A node may have asked several masters; what it said to any of them counts,
/// as it does not go back.
fn nodes_where_none(
    states: &[State],
    agents: &BTreeSet<String>,
    good: impl Fn(&Follower) -> bool,
) -> BTreeSet<String> {
    let heard = states.iter().flat_map(|state| &state.nodes);
    let followed: BTreeSet<&String> =
        heard.clone().filter(|(_, node)| good(node)).map(|(name, _)| name).collect();
    let all = heard.map(|(name, _)| name).chain(agents);
    all.filter(|name| !followed.contains(name)).cloned().collect()
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(", ")
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..SHORT).unwrap_or(fingerprint)
}

fn table(states: &[State], agents: &BTreeSet<String>) -> String {
    let masters = states.iter().map(|state| {
        let believes: Vec<&str> = state.believes.iter().map(|it| short(it)).collect();
        let next = state.next.as_deref().map_or("-", short);
        vec![state.name.clone(), short(state.signs()).into(), believes.join(","), next.into()]
    });
    let header = ["MASTER", "SIGNS", "BELIEVES", "NEXT"];
    let masters = output::table(&header, &masters.collect::<Vec<_>>());
    let signs = states.first().map_or("", State::signs);
    let (behind, uncertified) = (behind(states, agents, signs), uncertified(states, agents, signs));
    let nodes: BTreeSet<&String> =
        states.iter().flat_map(|state| state.nodes.keys()).chain(agents).collect();
    let nodes = nodes.into_iter().map(|name| {
        let yes = |not: &BTreeSet<String>| if not.contains(name) { "no" } else { "yes" }.to_owned();
        vec![name.clone(), yes(&behind), yes(&uncertified)]
    });
    let header = ["NODE", "BELIEVES IT", "CERTIFIED BY IT"];
    format!("{masters}\n{}", output::table(&header, &nodes.collect::<Vec<_>>()))
}

/// All masters, each asked by itself.
struct Masters {
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
    async fn find(kubeconfig: Option<PathBuf>) -> Result<Masters> {
        let target = Target::of_masters(kubeconfig.as_deref())?;
        let members = members::ask(&target).await?;
        let mut masters = Masters { target, all: Vec::new() };
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

    async fn states(&self) -> Result<Vec<State>> {
        let mut states = Vec::new();
        for master in &self.all {
            let said = self.call(&master.url, http::Method::GET, PATH, &Value::Null).await;
            let why = || format!("master {}: every master has to take part", master.name);
            states.push(master.state(&said.with_context(why)?)?);
        }
        Ok(states)
    }

    /// Lets one master make a step.
    async fn step(&self, master: &Master, step: &str, authority: Option<&str>) -> Result<State> {
        let (path, body) = (format!("{PATH}/{step}"), json!({ "authority": authority }));
        let said = self.call(&master.url, http::Method::POST, &path, &body).await;
        master.state(&said.with_context(|| format!("master {}", master.name))?)
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
        missing: impl Fn(&[State]) -> BTreeSet<String>,
    ) -> Result<()> {
        let mut said = String::new();
        loop {
            // A master that does not answer now may do so in a moment.
            let missed = match self.states().await {
                Ok(states) => list(&missing(&states)),
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

    /// The nodes with an agent, as far as they are Ready; and all others, which do not ask masters.
    async fn nodes(&self) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
        let url = &self.all.first().context("no master")?.url;
        let nodes = self.call(url, http::Method::GET, "/api/v1/nodes", &Value::Null).await?;
        let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
        let name = |node: &Value| Some(node["metadata"]["name"].as_str()?.to_owned());
        let (agents, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(has_agent);
        let names = |nodes: Vec<Value>| nodes.iter().filter_map(name).collect();
        Ok((names(agents), names(others)))
    }
}

impl Master {
    fn state(&self, said: &Value) -> Result<State> {
        let Master { id, name, url } = self;
        ensure!(said["member"] == *id, "another master than {name} answers at {url}");
        Ok(State::of(name, said))
    }
}

fn has_agent(node: &Value) -> bool {
    let status = &node["status"];
    let runtime = status["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let ready = conditions.any(|it| it["type"] == "Ready" && it["status"] == "True");
    ready && runtime.starts_with("coxswain://")
}

fn masters_where(states: &[State], not: impl Fn(&State) -> bool) -> BTreeSet<String> {
    states.iter().filter(|state| not(state)).map(|state| state.name.clone()).collect()
}

async fn start(args: &Common) -> Result<()> {
    let progress = Progress::start();
    let masters = Masters::find(args.kubeconfig.clone()).await?;
    let authority = match stage(&masters.states().await?)? {
        Stage::Begun(authority) => authority,
        Stage::None => {
            let first = masters.all.first().context("no master")?;
            let begun = masters.step(first, "believe", None).await?;
            begun.next.context("the first master names no new authority")?
        }
    };
    progress.say(&format!("authority {} is on its way in", short(&authority)));
    let (agents, others) = masters.nodes().await?;
    if !others.is_empty() {
        let others = list(&others);
        progress.say(&format!("not Ready, or without an agent: change ca.crt of {others} by hand"));
    }
    let waiting = (&progress, args.deadline());
    masters.every("believe", &authority).await?;
    let missing = |states: &[State]| masters_where(states, |state| !state.believes(&authority));
    masters.until(waiting, "every master believes it", missing).await?;
    if !args.leave_nodes_behind {
        let missing = |states: &[State]| behind(states, &agents, &authority);
        masters.until(waiting, "every node believes it", missing).await?;
    }
    masters.every("sign", &authority).await?;
    let missing = |states: &[State]| masters_where(states, |state| state.signs() != authority);
    masters.until(waiting, "it signs on every master", missing).await?;
    if !args.leave_nodes_behind {
        let missing = |states: &[State]| uncertified(states, &agents, &authority);
        masters.until(waiting, "every node is certified by it", missing).await?;
    }
    output::say(
        "\nKubeconfigs go on until the exchange is finished. Before that, make new ones on a master\n\
         \n  coxswain certs admin --pki DIR --server URL\n\n\
         and give their certificate-authority-data to everybody; pods that read ca.crt once are restarted.\n\
         Then, with a new one:\n\n  coxswain certs exchange finish",
    );
    Ok(())
}

async fn finish(args: &Common) -> Result<()> {
    let progress = Progress::start();
    let masters = Masters::find(args.kubeconfig.clone()).await?;
    let states = masters.states().await?;
    let Stage::Begun(authority) = stage(&states)? else {
        progress.say("nothing is being exchanged");
        return Ok(());
    };
    let early = masters_where(&states, |state| state.signs() != authority);
    ensure!(
        early.is_empty(),
        "it does not sign on {}: `coxswain certs exchange start`",
        list(&early)
    );
    let own = &masters.target;
    ensure!(
        fingerprints(&own.ca).contains(&authority) && pki::is_signed_by(&own.cert, &own.ca),
        "this kubeconfig is of the old authority and would be shut out: use one that \
         `coxswain certs admin` made since"
    );
    let waiting = (&progress, args.deadline());
    if !args.leave_nodes_behind {
        let (agents, _) = masters.nodes().await?;
        let missing = |states: &[State]| uncertified(states, &agents, &authority);
        masters.until(waiting, "every node is certified by it", missing).await?;
    }
    masters.every("forget", &authority).await?;
    let missing =
        |states: &[State]| masters_where(states, |state| state.believes != [authority.clone()]);
    masters.until(waiting, "every master believes the new authority alone", missing).await?;
    progress.say("tokens that masters and nodes join with name the old one: make new ones");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, believes: &[&str], next: Option<&str>, nodes: Value) -> State {
        let hash = believes.concat();
        let said = json!({"believes": believes, "hash": hash, "next": next, "nodes": nodes});
        State::of(name, &said)
    }

    #[test]
    fn masters_say_which_authority_is_new() {
        let no = || json!({});
        let at = |states: &[State]| stage(states).map_err(|error| error.to_string());
        let old = |name: &str| state(name, &["o"], None, no());
        assert_eq!(at(&[old("m1"), old("m2")]), Ok(Stage::None));
        let begun = || state("m1", &["o", "n", "x"], Some("n"), no());
        assert_eq!(at(&[begun(), old("m2")]), Ok(Stage::Begun("n".into())));
        let signs = state("m2", &["n", "x", "o"], Some("n"), no());
        assert_eq!(at(&[begun(), signs]), Ok(Stage::Begun("n".into())));
        let other = state("m2", &["o", "p", "x"], Some("p"), no());
        assert!(at(&[begun(), other]).is_err());
        assert!(at(&[old("m1"), state("m2", &["p"], None, no())]).is_err());
    }

    #[test]
    fn nodes_that_are_ready_and_have_an_agent_are_waited_for() {
        let node = |runtime: &str, ready: &str| {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let info = json!({"containerRuntimeVersion": runtime});
            json!({"status": {"conditions": conditions, "nodeInfo": info}})
        };
        assert!(has_agent(&node("coxswain://0.1.0", "True")));
        assert!(!has_agent(&node("coxswain://0.1.0", "Unknown")));
        assert!(!has_agent(&node("containerd://2.0.0", "True")));
        assert!(!has_agent(&json!({})));
    }

    #[test]
    fn a_node_has_followed_when_it_said_so_to_any_master() {
        let node =
            |believes: &str, certified: bool| json!({"believes": believes, "certified": certified});
        let first = json!({"n1": node("o", true), "n2": node("onx", true), "n3": node("o", true)});
        let second = json!({"n1": node("nxo", true), "n2": node("nxo", false)});
        let states = [
            state("m1", &["o", "n", "x"], Some("n"), first),
            state("m2", &["n", "x", "o"], Some("n"), second),
        ];
        let agents = BTreeSet::from(["n1".to_owned(), "n4".to_owned()]);
        assert_eq!(list(&behind(&states, &agents, "n")), "n3, n4");
        assert_eq!(list(&uncertified(&states, &agents, "n")), "n2, n3, n4");
        let followed = BTreeSet::from(["n1".to_owned()]);
        assert_eq!(list(&uncertified(&states[1..], &followed, "n")), "n2");
    }
}
