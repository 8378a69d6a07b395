//! How far the exchange of one authority is, as masters tell of it; what one of them does next, and for whom
//! everybody waits. No clock is read and nobody is asked here.

use anyhow::{Context, Result, bail};
use apiserver::exchange::{AuthorityName, Step};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// An exchange begins by itself when less than this part of an authority's life is left: two of ten years. What it
/// signs is good for one year, and is not cut short so.
const BEGINS_BY_ITSELF: i64 = 5;
/// With less than this part left, it does not wait for nodes any more.
const WAITS_FOR_NODES: i64 = 10;

/// One certificate that a master believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) fingerprint: String,
    /// It counts from then until then, in seconds since 1970.
    from: i64,
    pub(super) until: i64,
}

impl Known {
    /// Less than one part of so many of its life is left.
    fn has_less_left(&self, parts: i64, now: i64) -> bool {
        (self.until - now).saturating_mul(parts) < self.until - self.from
    }
}

/// What one master says.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    /// The first one signs.
    pub(super) believes: Vec<Known>,
    /// Of the whole text, as nodes say it.
    hash: String,
    /// The first one signed what this master shows.
    pub(super) certified: bool,
    /// The fingerprint of the one that is on its way in.
    pub(super) next: Option<String>,
    /// An exchange may begin by itself.
    rotates: bool,
    nodes: BTreeMap<String, Follower>,
}

#[derive(Debug)]
struct Follower {
    believes: String,
    certified: bool,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl State {
    fn of(authority: AuthorityName, name: &str, all: &Value) -> State {
        let said = &all["authorities"][authority.as_str()];
        let seconds = |value: &Value| value.as_i64().unwrap_or_default();
        let believes = said["believes"].as_array().into_iter().flatten().map(|known| Known {
            fingerprint: text(&known["fingerprint"]),
            from: seconds(&known["from"]),
            until: seconds(&known["until"]),
        });
        let nodes = of_nodes(authority, &all["nodes"]).as_object().into_iter().flatten();
        let nodes = nodes.map(|(node, said)| {
            let certified = said["certified"] == true;
            (node.clone(), Follower { believes: text(&said["believes"]), certified })
        });
        State {
            name: name.into(),
            believes: believes.collect(),
            hash: text(&said["hash"]),
            certified: said["certified"] == true,
            next: said["next"].as_str().map(str::to_owned),
            rotates: said["rotates"] == true,
            nodes: nodes.collect(),
        }
    }

    pub(super) fn signs(&self) -> &str {
        self.believes.first().map_or("", |known| &known.fingerprint)
    }

    pub(super) fn believes(&self, authority: &str) -> bool {
        self.believes.iter().any(|known| known.fingerprint == authority)
    }

    pub(super) fn believes_alone(&self, authority: &str) -> bool {
        self.believes.len() == 1 && self.signs() == authority
    }

    pub(super) fn is_certified_by(&self, authority: &str) -> bool {
        self.certified && self.signs() == authority
    }
}

/// Nodes know of one authority only.
fn of_nodes(authority: AuthorityName, said: &Value) -> &Value {
    match authority {
        AuthorityName::Ca => said,
        AuthorityName::PeerCa | AuthorityName::FrontProxyCa => &Value::Null,
    }
}

/// Where the exchange is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// All believe one authority, which signs.
    None,
    /// This one is on its way in.
    Begun(String),
}

/// What all masters say of one authority.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) masters: Vec<State>,
    /// Nodes with an agent, as far as they are Ready: they ask masters whom to believe.
    agents: BTreeSet<String>,
    /// All others, which do not ask.
    pub(super) others: BTreeSet<String>,
    /// By the clock that is behind all others: one that is ahead of time ends nothing early.
    now: i64,
}

impl Picture {
    /// Of what each master said, by name.
    pub(super) fn of(authority: AuthorityName, said: &[(String, Value)]) -> Picture {
        let states = said.iter().map(|(name, said)| State::of(authority, name, said));
        let names = |list: &str| {
            let lists = said.iter().map(|(_, said)| of_nodes(authority, &said[list]));
            lists.flat_map(|list| list.as_array().into_iter().flatten()).map(text).collect()
        };
        let clocks = said.iter().map(|(_, said)| said["now"].as_i64().unwrap_or_default());
        Picture {
            masters: states.collect(),
            agents: names("agents"),
            others: names("others"),
            now: clocks.min().unwrap_or_default(),
        }
    }

    /// Some master has one on its way in.
    pub(super) fn has_begun(&self) -> bool {
        self.masters.iter().any(|state| state.next.is_some())
    }

    pub(super) fn stage(&self) -> Result<Stage> {
        let next: BTreeSet<&str> =
            self.masters.iter().filter_map(|state| state.next.as_deref()).collect();
        let signs: BTreeSet<&str> = self.masters.iter().map(State::signs).collect();
        match (next.len(), signs.len()) {
            (1, _) => Ok(Stage::Begun(next.into_iter().map(str::to_owned).collect())),
            (0, 1) => Ok(Stage::None),
            (0, _) => bail!("masters sign with different authorities, and none says which is new"),
            _ => bail!("masters have different authorities on their way in"),
        }
    }

    /// Those of whom it does not hold.
    pub(super) fn masters_but(&self, holds: impl Fn(&State) -> bool) -> BTreeSet<String> {
        let not = self.masters.iter().filter(|state| !holds(state));
        not.map(|state| state.name.clone()).collect()
    }

    /// The nodes that do not believe what a master that believes it says.
    pub(super) fn behind(&self, authority: &str) -> BTreeSet<String> {
        let told = self.masters.iter().filter(|state| state.believes(authority));
        let told: BTreeSet<&str> = told.map(|state| state.hash.as_str()).collect();
        self.nodes_but(|node| told.contains(node.believes.as_str()))
    }

    /// The nodes that show no certificate of the one that signs now.
    pub(super) fn uncertified(&self, authority: &str) -> BTreeSet<String> {
        let told = self.masters.iter().filter(|state| state.signs() == authority);
        let told: BTreeSet<&str> = told.map(|state| state.hash.as_str()).collect();
        self.nodes_but(|node| node.certified && told.contains(node.believes.as_str()))
    }

    /// Those with an agent, and all that were heard.
    pub(super) fn nodes(&self) -> BTreeSet<String> {
        let heard = self.masters.iter().flat_map(|state| state.nodes.keys());
        heard.chain(&self.agents).cloned().collect()
    }

    /// A node may have asked several masters; what it said to any of them counts, as it does not go back.
    fn nodes_but(&self, good: impl Fn(&Follower) -> bool) -> BTreeSet<String> {
        let heard = self.masters.iter().flat_map(|state| &state.nodes);
        let followed: BTreeSet<&String> =
            heard.filter(|(_, node)| good(node)).map(|(name, _)| name).collect();
        self.nodes().into_iter().filter(|name| !followed.contains(name)).collect()
    }

    /// The step that the master with this name makes now, and for which authority: a new one if none is named. Only
    /// one that leads begins; an authority is forgotten by itself when it has ended, and nothing that it signed
    /// counts any more.
    pub(super) fn due(&self, own: &str, leads: bool) -> Result<Option<(Step, Option<String>)>> {
        let own = self.masters.iter().find(|state| state.name == own);
        let own = own.context("this master says nothing itself")?;
        let signs = own.believes.first().context("this master believes nobody")?;
        let every = |holds: fn(&State, &str) -> bool, authority: &str| {
            self.masters.iter().all(|state| holds(state, authority))
        };
        let next = match self.stage()? {
            Stage::None => {
                let may = leads && self.masters.iter().all(|state| state.rotates);
                let begins = may && signs.has_less_left(BEGINS_BY_ITSELF, self.now);
                return Ok(begins.then_some((Step::Believe, None)));
            }
            Stage::Begun(next) => next,
        };
        let step = if !own.believes(&next) {
            Some(Step::Believe)
        } else if own.signs() != next {
            let hurries = signs.has_less_left(WAITS_FOR_NODES, self.now);
            let followed = hurries || self.behind(&next).is_empty();
            (followed && every(State::believes, &next)).then_some(Step::Sign)
        } else {
            let ended = own.believes.iter().skip(1).all(|known| known.until <= self.now);
            let signed = every(State::is_certified_by, &next);
            (own.next.is_some() && ended && signed).then_some(Step::Forget)
        };
        Ok(step.map(|step| (step, Some(next))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DAY: i64 = 24 * 60 * 60;
    const YEAR: i64 = 365 * DAY;

    /// Authorities are called by letters; `x` is the new one as the old one signed it. The old one and `x` end after
    /// ten years, the new one after eighteen.
    fn said(believes: &str, next: Option<&str>) -> Value {
        let known = |name: char| {
            let (from, until) = if name == 'n' { (8, 18) } else { (0, 10) };
            json!({"fingerprint": name, "from": from * YEAR, "until": until * YEAR})
        };
        let believed: Vec<Value> = believes.chars().map(known).collect();
        let ca = json!({
            "believes": believed, "hash": believes, "next": next, "certified": true, "rotates": true,
        });
        json!({"authorities": {"ca": ca}, "now": 8 * YEAR + DAY, "nodes": {}, "agents": []})
    }

    fn node(believes: &str, certified: bool) -> Value {
        json!({"believes": believes, "certified": certified})
    }

    fn picture(all: &[&Value]) -> Picture {
        let said = all.iter().enumerate();
        let said: Vec<_> =
            said.map(|(at, said)| (format!("m{}", at + 1), (*said).clone())).collect();
        Picture::of(AuthorityName::Ca, &said)
    }

    fn list(names: BTreeSet<String>) -> String {
        names.into_iter().collect::<Vec<_>>().join(" ")
    }

    /// What each master does next, the first of which leads.
    fn due(all: &[&Value]) -> Vec<Option<(Step, Option<String>)>> {
        let picture = picture(all);
        let each = 1..=all.len();
        each.map(|at| picture.due(&format!("m{at}"), at == 1).unwrap()).collect()
    }

    fn of_new(step: Step) -> Option<(Step, Option<String>)> {
        Some((step, Some("n".into())))
    }

    #[test]
    fn masters_say_which_authority_is_new() {
        let at = |all: &[&Value]| picture(all).stage().map_err(|error| error.to_string());
        let (old, begun) = (said("o", None), said("onx", Some("n")));
        assert_eq!(at(&[&old, &old]), Ok(Stage::None));
        assert_eq!(at(&[&begun, &old]), Ok(Stage::Begun("n".into())));
        assert_eq!(at(&[&begun, &said("nxo", Some("n"))]), Ok(Stage::Begun("n".into())));
        assert!(at(&[&begun, &said("opx", Some("p"))]).is_err());
        assert!(at(&[&old, &said("p", None)]).is_err());
    }

    #[test]
    fn a_node_has_followed_when_it_said_so_to_any_master() {
        let (mut first, mut second) = (said("onx", Some("n")), said("nxo", Some("n")));
        first["nodes"] =
            json!({"n1": node("o", true), "n2": node("onx", true), "n3": node("o", true)});
        second["nodes"] = json!({"n1": node("nxo", true), "n2": node("nxo", false)});
        first["agents"] = json!(["n1", "n4"]);
        let both = picture(&[&first, &second]);
        assert_eq!(list(both.behind("n")), "n3 n4");
        assert_eq!(list(both.uncertified("n")), "n2 n3 n4");
        assert_eq!(list(picture(&[&second]).uncertified("n")), "n2");
        let all = [("m1".to_owned(), first)];
        let of_masters = Picture::of(AuthorityName::PeerCa, &all);
        assert_eq!(list(of_masters.nodes()), "", "no node knows the authority between masters");
    }

    #[test]
    fn the_one_that_leads_begins_when_a_fifth_is_left_and_all_can() {
        let mut old = said("o", None);
        assert_eq!(due(&[&old, &old]), [Some((Step::Believe, None)), None]);
        let mut late = old.clone();
        late["now"] = json!(8 * YEAR - DAY);
        assert_eq!(due(&[&old, &late]), [None, None], "one clock is ahead, or this one behind");
        old["authorities"]["ca"]["rotates"] = json!(false);
        assert_eq!(due(&[&said("o", None), &old]), [None, None]);
    }

    #[test]
    fn each_master_follows_and_none_signs_before_everybody_believes() {
        let (old, begun) = (said("o", None), said("onx", Some("n")));
        assert_eq!(due(&[&begun, &old]), [None, of_new(Step::Believe)]);
        assert_eq!(due(&[&begun, &begun]), [of_new(Step::Sign), of_new(Step::Sign)]);
        let mut waits = begun.clone();
        waits["agents"] = json!(["n1"]);
        assert_eq!(due(&[&begun, &waits]), [None, None], "for a node");
        waits["nodes"] = json!({"n1": node("onx", true)});
        assert_eq!(due(&[&begun, &waits]), [of_new(Step::Sign), of_new(Step::Sign)]);
        waits["nodes"] = json!({});
        for said in [&mut waits, &mut begun.clone()] {
            said["now"] = json!(9 * YEAR + DAY);
        }
        let mut begun = begun;
        begun["now"] = waits["now"].clone();
        assert_eq!(due(&[&begun, &waits])[0], of_new(Step::Sign), "the old one ends soon");
    }

    #[test]
    fn an_authority_is_forgotten_when_it_has_ended_and_no_master_shows_it() {
        let at = |years: i64, mut said: Value| {
            said["now"] = json!(years * YEAR);
            said
        };
        let signs = || said("nxo", Some("n"));
        assert_eq!(due(&[&at(9, signs()), &at(9, signs())]), [None, None]);
        let ended = at(10, signs());
        assert_eq!(due(&[&ended, &ended]), [of_new(Step::Forget), of_new(Step::Forget)]);
        assert_eq!(due(&[&ended, &at(9, signs())]), [None, None], "not by every clock");
        let mut shows = ended.clone();
        shows["authorities"]["ca"]["certified"] = json!(false);
        assert_eq!(due(&[&ended, &shows]), [None, None]);
        let done = at(10, said("n", None));
        assert_eq!(due(&[&ended, &done]), [of_new(Step::Forget), None]);
        assert_eq!(due(&[&done, &done]), [None, None]);
    }
}
