# Sourced before cargo runs: a compiler cache for the RocksDB sources where there is one, so that
# the debug and the release profile share one C++ build.
if command -v ccache >/dev/null 2>&1; then
    export CXX="${CXX:-ccache g++}" CC="${CC:-ccache gcc}"
fi
