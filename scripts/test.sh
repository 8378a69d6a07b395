#!/usr/bin/env bash
# The whole test suite, as CI runs it: formatting and lints, unit tests, flows, real processes.
# `test.sh fast` leaves out what starts processes and containers, `test.sh live` runs only that.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

step() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1" -1; }

# These start masters, nodes or containers.
live=(containers failover first_light foreign_clients pods restoring)

# Every test target of the workspace: features are unified over all of it, or much is built twice.
targets() {
    cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(*sorted({t["name"] for p in packages for t in p["targets"] if "test" in t["kind"]}), sep="\n")'
}

which=${1:-all}
step "format and lints"
cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings

step "build (the first one takes about 20 minutes on 2 cores: RocksDB is C++)"
cargo build --locked --workspace --all-targets

step "tests ($which)"
case $which in
    all) cargo test --locked --workspace ;;
    live) cargo test --locked --workspace "${live[@]/#/--test=}" ;;
    fast)
        mapfile -t quick < <(targets | grep -vxF "$(printf '%s\n' "${live[@]}")")
        cargo test --locked --workspace --lib --bins --examples "${quick[@]/#/--test=}"
        cargo test --locked --workspace --doc
        ;;
    *) echo "test: $which: one of all, fast, live" >&2; exit 2 ;;
esac
if [ "$which" = all ]; then
    # The same seeds on every machine, so that it is our change that breaks one; `make soak` has new ones.
    step "simulation (thousands of seeds, optimised)"
    SEEDS=${SIM_SEEDS:-2000} SECONDS_=3600 FIRST=1 scripts/sim.sh gate
fi
step "done"
