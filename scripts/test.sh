#!/usr/bin/env bash
# The whole test suite, as CI runs it: formatting and lints, unit tests, flows, real processes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

step() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1" -1; }

step "format and lints"
cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings

step "build (the first one takes about 20 minutes on 2 cores: RocksDB is C++)"
cargo build --locked --workspace --all-targets

step "tests"
cargo test --locked --workspace
