//! A scenario: which load runs, what is done to masters and nodes meanwhile, and what must hold. A small
//! TOML file; some are in the binary, an operator's own is read the same way.

use serde::{Deserialize, Deserializer, de::Error as _};
use std::{fmt, time::Duration};

/// The scenarios in the binary, by name, sorted.
pub const SCENARIOS: &[(&str, &str)] = &[
    ("certificate-end", include_str!("../scenarios/certificate-end.toml")),
    ("clock-jump", include_str!("../scenarios/clock-jump.toml")),
    ("everything", include_str!("../scenarios/everything.toml")),
    ("failing-fsync", include_str!("../scenarios/failing-fsync.toml")),
    ("follower-kill", include_str!("../scenarios/follower-kill.toml")),
    ("full-disk", include_str!("../scenarios/full-disk.toml")),
    ("leader-kill", include_str!("../scenarios/leader-kill.toml")),
    ("leader-partition", include_str!("../scenarios/leader-partition.toml")),
    ("leader-pause", include_str!("../scenarios/leader-pause.toml")),
    ("node-loss", include_str!("../scenarios/node-loss.toml")),
    ("one-way-partition", include_str!("../scenarios/one-way-partition.toml")),
    ("overload", include_str!("../scenarios/overload.toml")),
    ("partial-partition", include_str!("../scenarios/partial-partition.toml")),
    ("power-cut", include_str!("../scenarios/power-cut.toml")),
    ("rolling-kill", include_str!("../scenarios/rolling-kill.toml")),
    ("slow-disk", include_str!("../scenarios/slow-disk.toml")),
];

/// A file's content, checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    pub name: String,
    pub description: String,
    /// How long a run lasts if nobody says otherwise.
    #[serde(deserialize_with = "duration_of_text")]
    pub duration: Duration,
    pub workloads: Vec<Workload>,
    pub faults: Vec<Rule>,
    #[serde(default)]
    pub checks: Checks,
}

/// Some clients that do the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    pub kind: Kind,
    #[serde(default = "two")]
    pub clients: usize,
    /// Operations of each client in a second, at most.
    #[serde(default = "fifty")]
    pub per_second: u32,
}

/// What a workload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Writes a few ConfigMaps, half of the writes only if nobody else wrote, and lists them.
    Register,
    /// Adds one to a number in a ConfigMap, only if nobody else wrote meanwhile.
    Counter,
    /// Watches what the others write, and moves from master to master.
    WatchFollow,
    /// Wants to hold a Lease that one at a time holds, as client-go's leader election does.
    Lease,
    /// Lists what the others write and watches from there, as client-go's informers do.
    ListAndWatch,
    /// Creates ConfigMaps and deletes them.
    Churn,
    /// Creates Pods, waits until each has a node, and deletes it.
    Binding,
    /// Changes a Deployment, and waits until that is carried out.
    RollingUpdate,
}

impl Kind {
    /// Its clients only look.
    pub fn only_looks(self) -> bool {
        matches!(self, Kind::WatchFollow | Kind::ListAndWatch)
    }

    /// What it asks for is done on nodes.
    pub fn needs_nodes(self) -> bool {
        matches!(self, Kind::Binding | Kind::RollingUpdate)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Register => "register",
            Kind::Counter => "counter",
            Kind::WatchFollow => "watch-follow",
            Kind::Lease => "lease",
            Kind::ListAndWatch => "list-and-watch",
            Kind::Churn => "churn",
            Kind::Binding => "binding",
            Kind::RollingUpdate => "rolling-update",
        })
    }
}

/// What is done to masters or nodes again and again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    pub kind: Harm,
    pub target: Target,
    /// From one to the next; each time up to a quarter more or less, as the seed says.
    #[serde(deserialize_with = "duration_of_text")]
    pub every: Duration,
    /// How long it lasts; a kill is over when the master is back.
    #[serde(default = "three_seconds", deserialize_with = "duration_of_text")]
    pub hold: Duration,
    /// Masters, or nodes, that may be away at once; a majority of masters stays whatever is said here.
    #[serde(default = "one")]
    pub at_most: usize,
}

/// What is done to a master: to its process, to the network between it and other masters, or to its
/// disk, its certificates, its clock, or by its clients; or to the agent of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Harm {
    /// SIGKILL; its supervisor starts it again.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// Nothing gets to it from other masters, nor from it to them.
    Partition,
    /// It hears other masters and is not heard, or the other way, as the seed says.
    OneWay,
    /// It and one other master do not reach each other; the rest reach both.
    Partial,
    /// Some of the packets between it and other masters are lost, how many the seed says.
    Loss,
    /// It dies, and with it what it has not synced, or all but a beginning of that.
    PowerCut,
    /// Each write and each sync takes longer, how much the seed says.
    SlowDisk,
    /// There is no room, or less than it keeps free, as the seed says.
    FullDisk,
    /// Syncs fail.
    FailingFsync,
    /// SIGKILL of a node's agent; its supervisor starts it again.
    NodeKill,
    /// SIGSTOP of a node's agent, and SIGCONT after a while.
    NodePause,
    /// Many clients of low priority ask it, as fast as they can.
    Overload,
    /// All it proves itself with has ended, and it cannot sign that anew for a while; the seed says
    /// whether it takes that up as it runs or starts again with it.
    CertificateEnd,
    /// Its wall clock is wrong, how far and which way the seed says.
    Clock,
}

impl Harm {
    /// It lasts as long as its rule says; otherwise until whom it hit is back by itself.
    pub fn lasts(self) -> bool {
        !matches!(self, Harm::Kill | Harm::PowerCut | Harm::NodeKill)
    }

    pub fn is_of_node(self) -> bool {
        matches!(self, Harm::NodeKill | Harm::NodePause)
    }

    pub fn is_of_network(self) -> bool {
        matches!(self, Harm::Partition | Harm::OneWay | Harm::Partial | Harm::Loss)
    }

    pub fn is_of_disk(self) -> bool {
        matches!(self, Harm::PowerCut | Harm::SlowDisk | Harm::FullDisk | Harm::FailingFsync)
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Harm::Kill => "kill",
            Harm::Pause => "pause",
            Harm::Partition => "partition",
            Harm::OneWay => "one-way",
            Harm::Partial => "partial",
            Harm::Loss => "loss",
            Harm::PowerCut => "power-cut",
            Harm::SlowDisk => "slow-disk",
            Harm::FullDisk => "full-disk",
            Harm::FailingFsync => "failing-fsync",
            Harm::NodeKill => "node-kill",
            Harm::NodePause => "node-pause",
            Harm::Overload => "overload",
            Harm::CertificateEnd => "certificate-end",
            Harm::Clock => "clock",
        })
    }
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    Leader,
    /// One that does not lead, as the seed says.
    Follower,
    /// Each in turn.
    Each,
    /// Any, as the seed says.
    Any,
    /// Any node, as the seed says; only of what is done to nodes.
    Node,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Leader => "the leader",
            Target::Follower => "a follower",
            Target::Each => "the next master",
            Target::Any => "any master",
            Target::Node => "any node",
        })
    }
}

/// What is asked for beyond what always must hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Checks {
    /// The longest time in which no write at all was acknowledged.
    #[serde(default = "ten_seconds", deserialize_with = "duration_of_text")]
    pub longest_gap: Duration,
    /// Until a master whose fault is over must answer again.
    #[serde(default = "thirty_seconds", deserialize_with = "duration_of_text")]
    pub back_within: Duration,
    /// Until a pod must have a node, or a change of a Deployment be carried out, while no fault is on.
    #[serde(default = "thirty_seconds", deserialize_with = "duration_of_text")]
    pub reconciled_within: Duration,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks {
            longest_gap: ten_seconds(),
            back_within: thirty_seconds(),
            reconciled_within: thirty_seconds(),
        }
    }
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn fifty() -> u32 {
    50
}

fn three_seconds() -> Duration {
    Duration::from_secs(3)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

/// Masters look at their certificates every ten seconds.
const CERTIFICATE_HOLD_MIN: Duration = Duration::from_secs(12);

/// Clients of one workload: more would measure this program.
const CLIENTS_MAX: usize = 256;

/// `500ms`, `10s`, `5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let odd = || format!("{text:?} is no duration: write 500ms, 10s, 5m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(odd)?;
    let number: u64 = text[..digits].parse().map_err(|_| odd())?;
    let ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(odd()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(odd)
}

/// As [`duration`] reads it, in the largest unit that leaves nothing over.
pub fn in_words(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let unit = units.into_iter().find(|(of, _)| ms >= *of && ms.is_multiple_of(*of));
    unit.map_or("0s".to_owned(), |(of, unit)| format!("{}{unit}", ms / of))
}

fn duration_of_text<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// One in the binary, by its name.
pub fn built_in(name: &str) -> Option<&'static str> {
    SCENARIOS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Reads a scenario; the error names the line, or what does not go together.
pub fn parse(text: &str) -> Result<Scenario, String> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
    let no = |what: &str| Err(format!("scenario {:?}: {what}", scenario.name));
    // Whose writes the watchers are shown, and everything else is compared with.
    let writes = |it: &Workload| matches!(it.kind, Kind::Register | Kind::Counter);
    if !scenario.workloads.iter().any(writes) {
        return no("add a register or a counter: without, no workload writes all the time");
    }
    if scenario.workloads.iter().any(|it| !(1..=CLIENTS_MAX).contains(&it.clients)) {
        return no(&format!("clients of a workload: 1 to {CLIENTS_MAX}"));
    }
    if scenario.workloads.iter().any(|it| it.per_second == 0) {
        return no("per-second is at least 1");
    }
    if scenario.faults.is_empty() {
        return no("no faults: nothing would be shown");
    }
    if scenario.faults.iter().any(|it| it.every < Duration::from_secs(1) || it.hold.is_zero()) {
        return no("faults come every second at most, and hold longer than no time");
    }
    if scenario.faults.iter().any(|it| it.at_most == 0) {
        return no("at-most is at least 1");
    }
    let brief = |it: &Rule| it.kind == Harm::CertificateEnd && it.hold < CERTIFICATE_HOLD_MIN;
    if scenario.faults.iter().any(brief) {
        return no("certificate-end holds 12s at least: masters look at certificates every 10s");
    }
    if scenario.faults.iter().any(|it| it.kind.is_of_node() != (it.target == Target::Node)) {
        return no("the target of node-kill and node-pause is node, and that of nothing else");
    }
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_binary_is_sorted_sound_and_named_as_its_file() {
        assert!(SCENARIOS.is_sorted_by_key(|(name, _)| *name));
        for (name, text) in SCENARIOS {
            let scenario = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(scenario.name, *name);
            assert!(scenario.description.ends_with('.'), "{name}");
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).unwrap();
        assert_eq!(files.count(), SCENARIOS.len(), "every file is in the list");
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["250ms", "1001ms", "90s", "2m", "1h"] {
            assert_eq!(in_words(duration(text).unwrap()), text);
        }
        for odd in ["", "5", "s", "1.5s", "-1s", "5 s", "99999999999999999999s"] {
            assert!(duration(odd).is_err(), "{odd}");
        }
    }

    /// The error for the smallest scenario with something replaced.
    fn refused(from: &str, to: &str) -> String {
        let text = built_in("leader-pause").expect("in the binary");
        assert!(text.contains(from), "{from}");
        parse(&text.replace(from, to)).expect_err(to)
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        assert!(refused("every = \"12s\"", "every = \"0s\"").contains("every second"));
        assert!(refused("hold = \"4s\"", "hold = \"4\"").contains("is no duration"));
        assert!(refused("hold = \"4s\"", "at-most = 0").contains("at-most"));
        assert!(refused("clients = 6", "clients = 0").contains("1 to 256"));
        assert!(refused("kind = \"pause\"", "kind = \"clocks\"").contains("unknown variant"));
        assert!(refused("target = \"leader\"", "target = \"node\"").contains("is node"));
        assert!(refused("kind = \"pause\"", "kind = \"node-pause\"").contains("is node"));
        assert!(refused("kind = \"pause\"", "kind = \"certificate-end\"").contains("12s at least"));
        assert!(refused("longest-gap", "longest").contains("unknown field"));
        let watch = built_in("leader-pause").expect("in the binary");
        let watch = watch.replace("register", "watch-follow").replace("counter", "churn");
        assert!(parse(&watch).unwrap_err().contains("no workload writes"));
    }
}
