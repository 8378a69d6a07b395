# Sourced in the clone's root before cargo runs: a compiler cache for the RocksDB sources where there
# is one, so that the debug and the release profile share one C++ build.
if command -v ccache >/dev/null 2>&1; then
    export CXX="${CXX:-ccache g++}" CC="${CC:-ccache gcc}"
fi

# Clones share the target directory, and cargo knows a file by its place in the clone and its date: what
# another clone built later, of another commit perhaps, would pass for what is here.
if [ -n "${CARGO_TARGET_DIR:-}" ] && [ "$(cat "$CARGO_TARGET_DIR/built-for" 2>/dev/null)" != "$PWD" ]; then
    find . -name .git -prune -o -type f -exec touch -c {} +
    mkdir -p "$CARGO_TARGET_DIR"
    echo "$PWD" >"$CARGO_TARGET_DIR/built-for"
fi
