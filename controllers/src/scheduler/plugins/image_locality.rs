//! Prefers nodes that already have the pod's images, the larger the better; an image that few nodes
//! have counts less, so that those few do not draw every pod.

use super::super::node::Candidate;
use super::super::pod::Shape;
use super::{Normal, Plugin, SCORE_MAX, Score};

pub(super) const PLUGIN: Plugin = Plugin {
    score: Some(Score { weight: 1, normal: Normal::AsIs, raw: present }),
    ..Plugin::new("ImageLocality", &[])
};

/// Bytes below which images do not matter, and above which more does not matter more, for each
/// container; upstream's figures, from the sizes on a public registry.
const SIZE_MIN: i64 = 23 << 20;
const SIZE_MAX: i64 = 1000 << 20;

fn present(shape: &Shape, node: Candidate<'_>) -> i64 {
    if node.facts.images.is_empty() {
        return 0;
    }
    let sizes = shape.images.iter().filter_map(|image| {
        let size = *node.facts.images.get(image)?;
        let have = node.images.get(image).copied().unwrap_or_default();
        Some((size as f64 * have as f64 / node.nodes.max(1) as f64) as i64)
    });
    let most = SIZE_MAX.saturating_mul(shape.images.len() as i64).max(SIZE_MAX);
    let sum = sizes.fold(0, i64::saturating_add).clamp(SIZE_MIN, most);
    SCORE_MAX * (sum - SIZE_MIN) / (most - SIZE_MIN)
}
