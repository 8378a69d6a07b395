#!/usr/bin/env bash
# Installs what building, testing and `coxswain dev` need on Debian or Ubuntu; elsewhere it names
# what is missing and stops.
set -euo pipefail

need=() # packages
want() { # command package
    command -v "$1" >/dev/null 2>&1 || need+=("$2")
}
want g++ g++
want gcc gcc
want clang clang
want ccache ccache
want busybox busybox-static
want ip iproute2
want nft nftables
want curl curl
want python3 python3
want node nodejs
want npm npm
python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || need+=(libclang-dev)

if ((${#need[@]})); then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "tools: missing ${need[*]}; install them with this system's package manager" >&2
        exit 1
    fi
    sudo=""
    if [[ $(id -u) != 0 ]]; then
        sudo=$(command -v sudo) || { echo "tools: ${need[*]} are missing; become root to install them" >&2; exit 1; }
    fi
    echo "tools: installing ${need[*]}"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${need[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "tools: cargo is missing; install Rust 1.95 or later (https://rust-lang.org/tools/install) and run again" >&2
    exit 1
fi
version=$(rustc --version | sed -E 's/^rustc ([0-9]+)\.([0-9]+).*/\1 \2/')
read -r major minor <<<"$version"
if ((major == 1 && minor < 95)); then
    echo "tools: rustc is $(rustc --version); 1.95 or later is needed: run 'rustup update'" >&2
    exit 1
fi
