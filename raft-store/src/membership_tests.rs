//! Decisions about members, as a table and as a law.

use super::*;
use crate::{raft::Membership, types::LogIndex};
use proptest::prelude::*;

/// `1! 2 3~ 4l:500 5l~900` reads: 1 leads, 2 votes, 3 votes and does not answer, 4 is a learner 500
/// entries behind, 5 is a learner that has been silent for 900 seconds; `#` has no room; `@host` is where one is now,
/// `-6` was removed, `...` a change is under way.
struct World {
    leader: u64,
    settled: bool,
    voters: BTreeSet<u64>,
    members: BTreeMap<u64, Seen>,
    roster: Roster,
}

impl World {
    fn parse(text: &str) -> World {
        let mut world = World {
            leader: 0,
            settled: true,
            voters: BTreeSet::new(),
            members: BTreeMap::new(),
            roster: Roster::default(),
        };
        let mut ever = BTreeMap::new();
        for word in text.split_whitespace() {
            if word == "..." {
                world.settled = false;
                continue;
            }
            let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
            if let Some(gone) = word.strip_prefix('-') {
                let id: u64 = gone.parse().expect("an id");
                ever.insert(id, peer(id));
                continue;
            }
            let (word, host) = word.split_once('@').map_or((word, None), |(w, h)| (w, Some(h)));
            let (word, silent) = word.split_once('~').map_or((word, None), |(w, s)| (w, Some(s)));
            let (word, behind) = word.split_once(':').map_or((word, "0"), |(w, b)| (w, b));
            let id: u64 = digits(word).parse().expect("an id");
            if word.contains('!') {
                world.leader = id;
            }
            if !word.contains('l') {
                world.voters.insert(id);
            }
            let there = host.map(|host| Peer { peer_address: host.into(), ..peer(id) });
            let seen = Seen {
                peer: peer(id),
                answers: silent.is_none(),
                behind: behind.parse().ok(),
                silent: Duration::from_secs(silent.map_or(0, |s| s.parse().unwrap_or(1))),
                found_at: there,
                has_room: !word.contains('#'),
            };
            world.members.insert(id, seen);
            ever.insert(id, peer(id));
        }
        world.roster.apply(LogIndex(1), &Membership::from(ever));
        let now: BTreeMap<u64, Peer> = world.members.keys().map(|id| (*id, peer(*id))).collect();
        world.roster.apply(LogIndex(2), &Membership::from(now));
        world
    }

    fn view(&self) -> View<'_> {
        View {
            leader: MemberId(self.leader),
            settled: self.settled,
            voters: self.voters.clone(),
            members: self.members.clone(),
            roster: &self.roster,
        }
    }
}

fn peer(id: u64) -> Peer {
    Peer {
        name: format!("m{id}"),
        peer_address: format!("h{id}"),
        api_address: format!("h{id}:6443"),
    }
}

fn request(text: &str) -> Request {
    let words: Vec<&str> = text.split_whitespace().collect();
    let id = |word: &str| MemberId(word.trim_start_matches('m').parse().expect("an id"));
    match words[..] {
        ["add", name] => Request::Add { id: None, peer: peer(id(name).0) },
        ["add", name, "as", number] => {
            Request::Add { id: Some(id(number)), peer: peer(id(name).0) }
        }
        ["promote", who] => Request::Promote { id: id(who) },
        ["remove", who] => Request::Remove { id: id(who) },
        ["transfer"] => Request::Transfer { to: None },
        ["transfer", who] => Request::Transfer { to: Some(id(who)) },
        ["move", who, host] => {
            let peer = Peer { peer_address: host.into(), ..peer(id(who).0) };
            Request::Move { id: id(who), peer }
        }
        _ => panic!("{text}"),
    }
}

fn told(decided: &Decided) -> String {
    match decided {
        Err(refusal) => format!("no: {refusal}"),
        Ok(Decision { member, step }) => match step {
            Step::Nothing => format!("{member}: it is so"),
            Step::Members { voters, members } => {
                let learners: Vec<&u64> =
                    members.keys().filter(|id| !voters.contains(id)).collect();
                format!("{member}: voters {voters:?} learners {learners:?}")
            }
            Step::Readdress { peer, .. } => format!("{member}: now at {}", peer.peer_address),
            Step::Lead { to } => format!("{to} is to lead"),
            Step::LeadFirst { to } => format!("{member}: first {to} is to lead"),
        },
    }
}

/// One world and request a line; the answer under each.
fn check(cases: &str) -> String {
    let answers = cases.trim().lines().map(|line| {
        let (world, asked) = line.split_once('|').expect("world | request");
        let answer = told(&decide(&World::parse(world).view(), &request(asked)));
        format!("{}\n    {answer}\n", line.trim())
    });
    answers.collect()
}

#[test]
fn who_may_come_and_go() {
    let cases = "
        1! 2 3 | add m4
        1! 2 3 -4 | add m4
        1! 2 3 -4 | add m9 as 4
        1! 2 3 | add m9 as 2
        1! 2 3 | add m9 as 7
        1! 2 3 | add m2
        1! 2 3 4l~5 | add m4
        1! 2 3 ... | add m4
        1! 2 3 4l | promote 4
        1! 2 3 4l:500 | promote 4
        1! 2 3 4l~1 | promote 4
        1! 2 3~ 4l | promote 4
        1! 2 3~ 4~ 5l | promote 5
        1! 2 3 | promote 2
        1! 2 3 | remove 3
        1! 2 3~ | remove 3
        1! 2 3~ | remove 2
        1! 2 3 4~ 5~ | remove 2
        1! 2 3 4~ 5~ | remove 5
        1! 2 3 4l~ | remove 4
        1! 2 3 | remove 1
        1! 2 | remove 1
        1! | remove 1
        1! 2 3 | remove 7
        1! 2 -3 | remove 3
    ";
    insta::assert_snapshot!(check(cases));
}

#[test]
fn who_may_lead_and_where_members_are() {
    let cases = "
        1! 2 3 | transfer
        1! 2:9 3:3 | transfer
        1! 2~ 3:3 | transfer
        1! 2~ 3~ | transfer
        1! | transfer
        1! 2 3 | transfer 3
        1! 2 3:900 | transfer 3
        1! 2 3~ | transfer 3
        1! 2 3 4l | transfer 4
        1! 2 3 | transfer 1
        1! 2 3 | transfer 8
        1! 2 3 ... | transfer 2
        1! 2 3 | move 2 h7
        1! 2 3 | move 2 h2
        1! 2 3 | move 2 h3
        1! 2 3 | move 9 h9
    ";
    insta::assert_snapshot!(check(cases));
}

#[test]
fn what_a_leader_does_by_itself() {
    let worlds = [
        "1! 2 3",
        "1! 2 3 4l",
        "1! 2 3 4l:500",
        "1! 2 3 4l~599",
        "1! 2 3 4l~600",
        "1! 2 3~ 4~ 5l",
        "1! 2 3 4l ...",
        "1! 2@elsewhere 3 4l",
        "1!@elsewhere 2 3",
        "1! 2 3~9000",
        "1! 2@h3 3 4l",
        "1!# 2:9 3:3",
        "1!# 2# 3",
        "1!# 2~ 3",
        "1!# 2# 3 4 5",
        "1!# 2:900 3:900",
        "1! 2# 3",
        "1!# 2l",
        "1!#",
    ];
    let told = worlds.map(|text| {
        let world = World::parse(text);
        format!("{text}\n    {:?}\n", chore(&world.view(), Duration::from_secs(600)))
    });
    insta::assert_snapshot!(told.concat());
}

#[test]
fn a_leader_that_hears_no_quorum_is_not_believed() {
    let confirmed = |text: &str| World::parse(text).view().is_confirmed();
    assert!(confirmed("1!") && confirmed("1! 2 3~") && confirmed("1! 2 3 4l~"));
    // As when it is being stopped: a learner that answers makes no quorum.
    assert!(!confirmed("1! 2~ 3~") && !confirmed("1! 2~") && !confirmed("1! 2~ 3~ 4l"));
    assert!(!confirmed("1! 2 3~ 4~"));
}

fn worlds() -> impl Strategy<Value = String> {
    let member = (prop::bool::ANY, prop::bool::ANY, prop_oneof![Just(0u64), Just(50), Just(500)]);
    (prop::collection::vec(member, 1..7), prop::bool::weighted(0.1)).prop_map(|(members, busy)| {
        let words = members.iter().zip(2..).map(|((votes, answers, behind), id)| {
            let (l, silent) = (if *votes { "" } else { "l" }, if *answers { "" } else { "~700" });
            format!("{id}{l}:{behind}{silent}")
        });
        let words: Vec<String> = words.collect();
        format!("1! {} -9{}", words.join(" "), if busy { " ..." } else { "" })
    })
}

fn requests() -> impl Strategy<Value = String> {
    let id = 1..11u64;
    prop_oneof![
        id.clone().prop_map(|id| format!("add m{id}")),
        (id.clone(), id.clone()).prop_map(|(name, id)| format!("add m{name} as {id}")),
        id.clone().prop_map(|id| format!("promote {id}")),
        id.clone().prop_map(|id| format!("remove {id}")),
        id.prop_map(|id| format!("move {id} elsewhere")),
    ]
}

proptest! {
    /// Whatever is asked: a change that is granted moves one voter at most, keeps the leader, can be
    /// committed by those who answer, and brings nobody back.
    #[test]
    fn no_change_can_stop_the_group(text in worlds(), asked in requests()) {
        let world = World::parse(&text);
        let view = world.view();
        let Ok(Decision { step, .. }) = decide(&view, &request(&asked)) else { return Ok(()) };
        prop_assert!(view.settled, "{text} | {asked}");
        let Step::Members { voters, members } = step else { return Ok(()) };
        let moved = voters.symmetric_difference(&view.voters).count();
        let answering = voters.iter().filter(|id| world.members[id].answers).count();
        prop_assert!(moved <= 1 && voters.contains(&1), "{text} | {asked}: {voters:?}");
        prop_assert!(moved == 0 || answering > voters.len() / 2, "{text} | {asked}: {voters:?}");
        prop_assert!(voters.iter().all(|id| members.contains_key(id)));
        prop_assert!(!members.contains_key(&9), "9 was removed");
    }
}
