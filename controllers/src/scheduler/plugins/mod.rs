//! The rules by which nodes are refused and preferred, one file each, in the order they are asked.

use super::diagnosis::Rejected;
use super::node::Candidate;
use super::pod::{Pod, Shape};
use super::world::{Slot, World};

macro_rules! plugins {
    ($($module:ident)*) => {
        $(mod $module;)*
        /// Upstream's default profile, as far as it is built, in its order.
        pub(crate) const PLUGINS: &[Plugin] = &[$($module::PLUGIN),*];
    };
}

plugins! {
    node_unschedulable
    node_name
    taint_toleration
    node_affinity
    node_ports
    node_resources_fit
    pod_topology_spread
    inter_pod_affinity
    node_resources_balanced
    image_locality
}

/// Every plugin's score lies between 0 and this.
pub(crate) const SCORE_MAX: i64 = 100;

/// How many plugins score a node by itself.
pub(crate) const LOCAL_SCORES: usize = {
    let (mut count, mut index) = (0, 0);
    while index < PLUGINS.len() {
        count += PLUGINS[index].score.is_some() as usize;
        index += 1;
    }
    count
};

/// One rule. What it says of a node may depend on that node alone (`filter`, `score`), or on where
/// other pods are (`judge`).
pub(crate) struct Plugin {
    /// Upstream's name, as it stands in metrics.
    pub(crate) name: &'static str,
    /// What may turn its refusal around.
    pub(crate) wakes: &'static [Cause],
    pub(crate) filter: Option<Filter>,
    pub(crate) score: Option<Score>,
    pub(crate) judge: Option<MakeJudge>,
}

type Filter = fn(&Shape, Candidate<'_>) -> Result<(), Rejected>;
/// `None`: it has nothing to say about this pod.
type MakeJudge = fn(&mut World, &Pod) -> Option<Box<dyn Judge>>;

impl Plugin {
    const fn new(name: &'static str, wakes: &'static [Cause]) -> Plugin {
        Plugin { name, wakes, filter: None, score: None, judge: None }
    }
}

/// Something that happened in the world, as far as a refused pod may care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// A node came, or its object changed.
    Node,
    /// A pod left a node, or its labels changed there.
    PodLeft,
    /// A pod was placed on a node.
    PodPlaced,
}

pub(crate) struct Score {
    /// Upstream's default.
    pub(crate) weight: i64,
    pub(crate) normal: Normal,
    pub(crate) raw: fn(&Shape, Candidate<'_>) -> i64,
}

/// How raw scores become scores between 0 and [`SCORE_MAX`].
#[derive(Clone, Copy)]
pub(crate) enum Normal {
    /// They already are.
    AsIs,
    /// In proportion to the highest among the nodes that fit.
    MoreIsBetter,
    /// Likewise, turned around.
    LessIsBetter,
}

/// A rule about one pod's place among the others, made for one placement.
pub(crate) trait Judge {
    fn check(&self, slot: Slot) -> Result<(), Rejected>;

    /// Weight, and a score for each of `fitting`; `None` if it has no preference.
    fn scores(&self, fitting: &[Slot]) -> Option<(i64, Vec<i64>)>;
}

/// What the nodes' own rules say of `candidate`; the first to refuse has the word.
pub(crate) fn check(shape: &Shape, candidate: Candidate<'_>) -> Result<(), Rejected> {
    let mut filters = PLUGINS.iter().filter_map(|plugin| plugin.filter);
    filters.try_for_each(|filter| filter(shape, candidate))
}

pub(crate) fn raw_scores(shape: &Shape, candidate: Candidate<'_>) -> [i64; LOCAL_SCORES] {
    let mut raw = [0; LOCAL_SCORES];
    let scores = PLUGINS.iter().filter_map(|plugin| plugin.score.as_ref());
    for (slot, score) in raw.iter_mut().zip(scores) {
        *slot = (score.raw)(shape, candidate);
    }
    raw
}

/// The judges that have something to say about this pod.
pub(crate) fn judges(world: &mut World, pod: &Pod) -> Vec<Box<dyn Judge>> {
    PLUGINS.iter().filter_map(|plugin| plugin.judge?(world, pod)).collect()
}

/// Whether the plugin of this name may decide otherwise after `cause`.
pub(crate) fn wakes(plugin: &str, cause: Cause) -> bool {
    PLUGINS.iter().any(|known| known.name == plugin && known.wakes.contains(&cause))
}

/// Whether the plugin of this name judges by where other pods are, so that a change on one node may
/// open another.
pub(crate) fn looks_around(plugin: &str) -> bool {
    PLUGINS.iter().any(|known| known.name == plugin && known.judge.is_some())
}

pub(crate) use node_affinity::allowed;
pub(crate) use taint_toleration::tolerated;
