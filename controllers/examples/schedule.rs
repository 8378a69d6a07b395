//! Measures the planner alone: `cargo run --release -p controllers --example schedule -- [NODES [PODS]]`
//! prints one JSON line for each kind of workload.

use controllers::scheduler::{Ask, Decision, Planner, hollow_world, plan, workload};
use serde_json::json;
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "figures go to whoever asked for them")]
fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (nodes, pods) = (numbers.next().unwrap_or(5_000), numbers.next().unwrap_or(4_000));
    for ask in Ask::ALL {
        let (mut world, pods) = (hollow_world(nodes), workload(pods, ask));
        let mut planner = Planner::default();
        let started = Instant::now();
        // In the scheduler's own batches.
        let decisions: Vec<Decision> =
            pods.chunks(256).flat_map(|batch| plan(&mut planner, &mut world, batch)).collect();
        let seconds = started.elapsed().as_secs_f64();
        let bound = decisions.iter().filter(|one| matches!(one, Decision::Bind { .. })).count();
        let figure = json!({
            "bench": "scheduler_plan",
            "workload": ask.name(),
            "nodes": nodes,
            "pods": pods.len(),
            "bound": bound,
            "seconds": seconds,
            "pods_per_second": (bound as f64 / seconds).round(),
            "debug_assertions": cfg!(debug_assertions),
        });
        println!("{figure}");
    }
}
