//! When which fault is to happen, drawn from a seed before a run begins; and whom it may hit, from
//! what the masters say at that moment. Never so many that those left are no majority.

use crate::scenario::{Harm, Scenario, Target};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{collections::BTreeSet, fmt, time::Duration};

/// After the last fault is over there is load for so long, so that what it broke is seen.
const QUIET_END: Duration = Duration::from_secs(3);

/// One fault to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Since the start of the run.
    pub at: Duration,
    pub harm: Harm,
    pub target: Target,
    /// How long it lasts; a kill is over when the master is back.
    pub hold: Duration,
    /// Masters that may be away at once.
    pub at_most: usize,
    /// Which of its rule: 0, 1, …
    pub turn: usize,
    /// Which one of several it hits.
    pub draw: u64,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.2}s  {} {}", self.at.as_secs_f64(), self.harm, self.target)?;
        match self.harm.lasts() {
            true => write!(f, " for {:.1}s", self.hold.as_secs_f64()),
            false => Ok(()),
        }
    }
}

impl Strike {
    /// What is one thing or another, by another part of the draw than says whom it hits.
    pub fn coin(&self) -> bool {
        (self.draw >> 32) % 2 == 1
    }
}

/// The faults of a run, in order of time: the same for the same seed.
pub fn plan(scenario: &Scenario, seed: u64, length: Duration) -> Vec<Strike> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut plan = Vec::new();
    for rule in &scenario.faults {
        let hold = if rule.kind.lasts() { rule.hold } else { Duration::ZERO };
        let mut at = rule.every.mul_f64(random.random_range(0.25..0.5));
        for turn in 0.. {
            if at + hold + QUIET_END > length {
                break;
            }
            plan.push(Strike {
                at,
                harm: rule.kind,
                target: rule.target,
                hold,
                at_most: rule.at_most,
                turn,
                draw: random.random(),
            });
            at += rule.every.mul_f64(random.random_range(0.75..1.25));
        }
    }
    plan.sort_by_key(|strike| strike.at);
    plan
}

/// A master as the others and it itself describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    pub id: u64,
    pub name: String,
    pub leads: bool,
    pub votes: bool,
    /// It answers.
    pub answers: bool,
}

/// A node as the API describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub ready: bool,
}

/// Why a fault is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spared {
    /// So many voters are away, and no more may be.
    Enough { away: usize, of: usize, most: usize },
    /// So many nodes are away, and no more may be.
    Nodes { away: usize, most: usize },
    /// Nobody leads, or nobody else is there.
    Nobody(Target),
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spared::Enough { away, of, most } => {
                write!(f, "{away} of {of} masters are away and at most {most} may be")
            }
            Spared::Nodes { away, most } => {
                write!(f, "{away} nodes are away and at most {most} may be")
            }
            Spared::Nobody(target) => write!(f, "{target} is not to be found"),
        }
    }
}

/// How many of so many voters can be away with a majority left.
pub fn minority(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
}

/// Whom a fault hits. `hurt` are those that an earlier fault still holds, whatever they say.
pub fn choose<'a>(
    strike: &Strike,
    masters: &'a [Master],
    hurt: &BTreeSet<u64>,
) -> Result<&'a Master, Spared> {
    let voters = masters.iter().filter(|it| it.votes);
    let there = |it: &&Master| it.answers && !hurt.contains(&it.id);
    let (there, away): (Vec<&Master>, Vec<&Master>) = voters.partition(there);
    let of = there.len() + away.len();
    let most = strike.at_most.min(minority(of));
    if away.len() >= most {
        return Err(Spared::Enough { away: away.len(), of, most });
    }
    let fits = |it: &&&Master| match strike.target {
        Target::Leader => it.leads,
        Target::Follower => !it.leads,
        Target::Each | Target::Any => true,
        Target::Node => false,
    };
    let fitting: Vec<&&Master> = there.iter().filter(fits).collect();
    // Without a leader, who looks like a follower may be about to lead.
    let leaderless = strike.target == Target::Follower && !there.iter().any(|it| it.leads);
    if fitting.is_empty() || leaderless {
        return Err(Spared::Nobody(strike.target));
    }
    let nth = match strike.target {
        Target::Each => strike.turn % fitting.len(),
        _ => (strike.draw % fitting.len() as u64) as usize,
    };
    Ok(fitting[nth])
}

/// Which node a fault hits. `hurt` are those that an earlier fault still holds, whatever they say.
pub fn choose_node<'a>(
    strike: &Strike,
    nodes: &'a [Node],
    hurt: &BTreeSet<String>,
) -> Result<&'a Node, Spared> {
    let there = |it: &&Node| it.ready && !hurt.contains(&it.name);
    let (there, away): (Vec<&Node>, Vec<&Node>) = nodes.iter().partition(there);
    if away.len() >= strike.at_most {
        return Err(Spared::Nodes { away: away.len(), most: strike.at_most });
    }
    let nth = strike.draw.checked_rem(there.len() as u64);
    nth.map(|nth| there[nth as usize]).ok_or(Spared::Nobody(strike.target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{built_in, parse};

    const MINUTE: Duration = Duration::from_secs(60);

    fn scenario(name: &str) -> Scenario {
        parse(built_in(name).expect("in the binary")).expect("sound")
    }

    #[test]
    fn a_seed_is_a_plan() {
        let scenario = scenario("leader-kill");
        let of = |seed| plan(&scenario, seed, MINUTE);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        for seed in 0..200 {
            let plan = of(seed);
            assert!((4..=8).contains(&plan.len()), "{seed}: {plan:?}");
            assert!(plan.is_sorted_by_key(|strike| strike.at));
            assert!(plan.iter().all(|strike| strike.at + QUIET_END <= MINUTE));
        }
        assert!(plan(&scenario, 7, Duration::from_secs(1)).is_empty(), "too short for any");
    }

    /// Masters from letters: `L` leads, `f` follows, `x` does not answer, `l` learns.
    fn masters(letters: &str) -> Vec<Master> {
        let one = |(id, letter): (u64, char)| Master {
            id,
            name: format!("m{id}"),
            leads: letter == 'L',
            votes: letter != 'l',
            answers: letter != 'x',
        };
        (1..).zip(letters.chars()).map(one).collect()
    }

    fn hit(target: Target, letters: &str, hurt: &[u64], at_most: usize) -> Result<u64, Spared> {
        let (harm, at, hold) = (Harm::Kill, Duration::ZERO, Duration::ZERO);
        let strike = Strike { at, harm, target, hold, at_most, turn: 1, draw: 5 };
        let hurt = hurt.iter().copied().collect();
        choose(&strike, &masters(letters), &hurt).map(|it| it.id)
    }

    #[test]
    fn a_majority_is_always_left() {
        let enough = |away, of, most| Err(Spared::Enough { away, of, most });
        assert_eq!(hit(Target::Leader, "fLf", &[], 9), Ok(2));
        assert_eq!(hit(Target::Leader, "fLf", &[1], 9), enough(1, 3, 1));
        assert_eq!(hit(Target::Leader, "xLf", &[], 9), enough(1, 3, 1));
        assert_eq!(hit(Target::Leader, "L", &[], 9), enough(0, 1, 0));
        assert_eq!(hit(Target::Leader, "Lf", &[], 9), enough(0, 2, 0));
        assert_eq!(hit(Target::Leader, "Lffff", &[2], 1), enough(1, 5, 1));
        assert_eq!(hit(Target::Leader, "Lffff", &[2], 9), Ok(1));
        assert_eq!(hit(Target::Leader, "Lffxf", &[2], 9), enough(2, 5, 2));
        assert_eq!(hit(Target::Any, "Lfl", &[], 9), enough(0, 2, 0), "who learns counts not");
        for hurt in 1..=5 {
            for target in [Target::Leader, Target::Follower, Target::Each, Target::Any] {
                let away: Vec<u64> = (1..=hurt).collect();
                assert_eq!(hit(target, "ffffL", &away, 9).is_ok(), hurt < 2, "{target} {hurt}");
            }
        }
    }

    #[test]
    fn at_most_so_many_nodes_are_away() {
        let node = |name: &str, ready| Node { name: name.into(), ready };
        let nodes = [node("n1", true), node("n2", true), node("n3", false)];
        let hit = |nodes: &[Node], hurt: &[&str], at_most, draw| {
            let (harm, at, hold) = (Harm::NodeKill, Duration::ZERO, Duration::ZERO);
            let strike = Strike { at, harm, target: Target::Node, hold, at_most, turn: 1, draw };
            let hurt = hurt.iter().map(|name| name.to_string()).collect();
            choose_node(&strike, nodes, &hurt).map(|it| it.name.clone())
        };
        assert_eq!(hit(&nodes[..2], &[], 1, 4), Ok("n1".into()), "the draw says which");
        assert_eq!(hit(&nodes[..2], &[], 1, 5), Ok("n2".into()));
        assert_eq!(hit(&nodes[..2], &["n1"], 1, 4), Err(Spared::Nodes { away: 1, most: 1 }));
        assert_eq!(
            hit(&nodes, &[], 1, 4),
            Err(Spared::Nodes { away: 1, most: 1 }),
            "n3 is not ready"
        );
        assert_eq!(hit(&nodes, &["n1"], 3, 4), Ok("n2".into()));
        assert_eq!(hit(&nodes, &["n1", "n2"], 9, 4), Err(Spared::Nobody(Target::Node)));
        assert_eq!(hit(&[], &[], 1, 4), Err(Spared::Nobody(Target::Node)));
    }

    #[test]
    fn whom_it_hits_is_of_the_kind_that_was_said() {
        assert_eq!(hit(Target::Follower, "fLf", &[], 1), Ok(3), "the draw says which");
        assert_eq!(hit(Target::Each, "fLf", &[], 1), Ok(2), "the turn says which");
        assert_eq!(hit(Target::Leader, "fff", &[], 1), Err(Spared::Nobody(Target::Leader)));
        assert_eq!(hit(Target::Follower, "fff", &[], 1), Err(Spared::Nobody(Target::Follower)));
    }
}
