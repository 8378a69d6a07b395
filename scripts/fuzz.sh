#!/usr/bin/env bash
# Fuzzes decoders and expressions, guided by coverage, on the stable compiler. Without arguments every
# target runs, as many at a time as there are cores: `fuzz.sh [TARGET...]`, FUZZ_SECONDS of each (600).
# Found inputs are kept outside the clone and used again; one that breaks something is printed with the
# command that replays it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

seconds=${FUZZ_SECONDS:-600}
host=$(rustc -vV | sed -n 's/^host: //p')
work=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
corpus=$PWD/fuzz/corpus
mapfile -t known < <(cd "$corpus" && printf '%s\n' *)

targets=("$@")
((${#targets[@]})) || targets=("${known[@]}")
for target in "${targets[@]}"; do
    [[ -d $corpus/$target ]] || { echo "fuzz: $target: one of ${known[*]}" >&2; exit 2; }
done

# What cargo-fuzz passes, but for the sanitizer, which only nightly has: edges, comparisons, assertions.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
for option in inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
echo "fuzz: building"
(cd fuzz && CARGO_TARGET_DIR=$work RUSTFLAGS="$flags --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions" \
    cargo build --locked --release --target "$host" --bins)

one() { # target
    local found=$work/found/$1 started=$SECONDS
    mkdir -p "$found"
    cd "$found/.."
    if nice "$binaries/$1" "$found" "$corpus/$1" -artifact_prefix="$found-" -max_total_time="$seconds" \
        -rss_limit_mb=4096 -timeout=25 -max_len=32768 -print_final_stats=1 >"$found.log" 2>&1; then
        echo "fuzz: $1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$found.log") inputs in $((SECONDS - started)) s, $(find "$found" -type f | wc -l) kept"
    else
        echo "fuzz: $1: broke something after $((SECONDS - started)) s:"
        tail -n 30 "$found.log"
        echo "fuzz: to replay: $binaries/$1 INPUT, the input is named above"
        return 1
    fi
}
export -f one
export work corpus seconds binaries=$work/$host/release
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'one {}'
echo "fuzz: nothing broke"
