#!/usr/bin/env bash
# Where a request's time goes: `coxswain bench api` against three masters, with the leader under perf.
# Writes docs/profile.svg (a flame graph of the leader) and prints the share of each stage.
# Needs perf (Debian: linux-perf) and inferno (cargo install inferno).
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${CARGO_TARGET_DIR:-$HOME/.cache/coxswain/target}/release/coxswain
for tool in perf inferno-collapse-perf inferno-flamegraph jq; do
    command -v "$tool" >/dev/null || { echo "profile: $tool is missing" >&2; exit 1; }
done
[[ -x $binary ]] || { echo "profile: $binary is not built: make build" >&2; exit 1; }

work=$(mktemp -d)
"$binary" dev --masters 3 --nodes 0 --api-port 17443 --data-dir "$work/dev" >"$work/dev.log" &
cluster=$!
trap 'kill "$cluster" 2>/dev/null; wait "$cluster" 2>/dev/null; rm -rf "$work"' EXIT
until grep -q 'are Ready' "$work/dev.log"; do
    kill -0 "$cluster" || { cat "$work/dev.log" >&2; exit 1; }
    read -rt 0.1 <> <(:) || true
done
kubeconfig=$work/dev/kubeconfig
leader=$("$binary" members --kubeconfig "$kubeconfig" -o json | jq '.[] | select(.leader) | .pid')

# Call stacks from the unwind tables; 97 Hz is not in step with anything that ticks.
perf record -q -F 97 -e cpu-clock --call-graph dwarf,8192 -p "$leader" -o "$work/perf.data" &
recorder=$!
"$binary" bench api --kubeconfig "$kubeconfig" --pods 2000 --watchers 100
kill -INT "$recorder"
wait "$recorder" || true

perf script --no-inline -i "$work/perf.data" 2>/dev/null | inferno-collapse-perf >"$work/stacks"
inferno-flamegraph --title "A leader under coxswain bench api" --minwidth 0.3 "$work/stacks" >docs/profile.svg

# A sample belongs to the innermost stage on its stack.
awk '
    BEGIN {
        count = split("TLS=rustls::|ring::|ring_core;" \
            "HTTP=hyper::|h2::|axum::|tower;" \
            "Raft and peers=openraft::|raft_store::raft|tonic::;" \
            "RocksDB and fsync=rocksdb|rocksdb_|fdatasync|fsync;" \
            "store (state, watch hub)=raft_store::;" \
            "authentication=apiserver::authn;authorization=apiserver::authz|rbac;" \
            "admission=apiserver::admission;" \
            "managed fields=k8s::apply|managed;" \
            "defaults and validation=apiserver::kinds|validat;" \
            "codec=k8s::|serde_json;pipeline and server=apiserver::;" \
            "controllers=controllers::|reconcile::;kernel and runtime=.", stages, ";")
        for (i = 1; i <= count; i++) { at = index(stages[i], "="); name[i] = substr(stages[i], 1, at - 1); pattern[i] = substr(stages[i], at + 1) }
    }
    {
        samples = $NF; sub(/ [0-9]+$/, ""); frames = split($0, frame, ";"); found = count
        for (f = frames; f > 0 && found == count; f--)
            for (i = 1; i < count; i++) if (frame[f] ~ pattern[i]) { found = i; break }
        share[found] += samples; total += samples
    }
    END { for (i = 1; i <= count; i++) printf "%5.1f %%  %s\n", 100 * share[i] / total, name[i] }
' "$work/stacks" | sort -rn
