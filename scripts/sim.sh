#!/usr/bin/env bash
# The simulation of the store, optimised: `sim.sh SEED` replays one seed, `sim.sh soak` runs as many
# as there is time for (SECONDS_=3600, at most SEEDS, FIRST=seed to begin with), `sim.sh gate` the same with what
# openraft asserts of itself, which takes twice the time, `sim.sh mutants` prints the table
# of mistakes and of what finds them (SEEDS=300 at most for each).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

# Those of our own crates too that every build leaves as they are; see Cargo.toml for raft-store.
export CARGO_PROFILE_TEST_OPT_LEVEL=${CARGO_PROFILE_TEST_OPT_LEVEL:-2}

run() {
    local test=$1
    shift
    cargo test --locked "$@" -p raft-store --lib -- "sim::run::tests::$test" --exact --ignored --nocapture
}

case ${1:-} in
    soak | gate)
        export COXSWAIN_SECONDS=${SECONDS_:-600}
        [ -z "${FIRST:-}" ] || export COXSWAIN_SEED=$FIRST
        [ -z "${SEEDS:-}" ] || export COXSWAIN_SEEDS=$SEEDS
        case $1 in
            soak) run soak --release ;;
            gate) run soak ;;
        esac
        ;;
    mutants) COXSWAIN_SEEDS=${SEEDS:-300} run every_mutant_is_caught ;;
    '' | *[!0-9]*) echo "sim: which seed, or soak, gate or mutants" >&2; exit 2 ;;
    *) COXSWAIN_SEED=$1 run one_seed ;;
esac
