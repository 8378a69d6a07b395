//! A pod that names its node in `nodeName` goes nowhere else. Such a pod never reaches the planner:
//! whoever named the node bound it. The rule is kept by the queue; this entry keeps the name known.

use super::{Cause, Plugin};

pub(super) const PLUGIN: Plugin = Plugin::new("NodeName", &[Cause::Node]);
