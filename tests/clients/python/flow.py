"""What a program built with the Python client does, against the cluster of $KUBECONFIG.

Prints one line per chapter that held; the first that does not ends it with a traceback.
"""

import base64
import socket
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

NAMESPACE = "python-client"
BOUND_SECONDS = 60
IMAGE = "coxswain.local/demo:1"


def chapter(function):
    function()
    print("ok", function.__name__, flush=True)


def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == code, (error.status, error.body)
        return error
    raise AssertionError(f"{call.__name__} was to be refused with {code}")


def objects():
    core = client.CoreV1Api()
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    made = core.create_namespaced_config_map(
        NAMESPACE, {"metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"k": "1"}}
    )
    assert made.metadata.uid and made.metadata.creation_timestamp
    refused(409, core.create_namespaced_config_map, NAMESPACE, {"metadata": {"name": "a"}})
    made.data = {"k": "2"}
    replaced = core.replace_namespaced_config_map("a", NAMESPACE, made)
    refused(409, core.replace_namespaced_config_map, "a", NAMESPACE, made)
    patched = core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"m": "3"}})
    assert patched.data == {"k": "2", "m": "3"}, patched.data
    assert int(patched.metadata.resource_version) > int(replaced.metadata.resource_version)
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="x in (1,2)")
    assert [item.metadata.name for item in listed.items] == ["a"]
    core.create_namespaced_secret(
        NAMESPACE, {"metadata": {"name": "s"}, "stringData": {"password": "wörd"}}
    )
    secret = core.read_namespaced_secret("s", NAMESPACE)
    assert base64.b64decode(secret.data["password"]).decode() == "wörd"
    core.delete_namespaced_config_map("a", NAMESPACE)
    refused(404, core.read_namespaced_config_map, "a", NAMESPACE)


def watching():
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    for number in range(5):
        core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": f"w{number}"}})
    core.delete_namespaced_config_map("w0", NAMESPACE)
    seen = []
    events = watch.Watch().stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        resource_version=start,
        timeout_seconds=BOUND_SECONDS,
    )
    for event in events:
        if event["object"].metadata.name.startswith("w"):
            seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            break
    assert seen == [("ADDED", f"w{n}") for n in range(5)] + [("DELETED", "w0")], seen


def server_side_apply():
    core = client.CoreV1Api()
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "applied"},
        "data": {"mine": "1"},
    }
    apply = dict(_content_type="application/apply-patch+yaml")
    core.patch_namespaced_config_map("applied", NAMESPACE, body, field_manager="first", **apply)
    body["data"]["mine"] = "2"
    refused(
        409,
        core.patch_namespaced_config_map,
        "applied",
        NAMESPACE,
        body,
        field_manager="second",
        **apply,
    )
    taken = core.patch_namespaced_config_map(
        "applied", NAMESPACE, body, field_manager="second", force=True, **apply
    )
    assert taken.data == {"mine": "2"}
    managers = {entry.manager for entry in taken.metadata.managed_fields}
    assert "second" in managers, managers


def custom_resources():
    extensions = client.ApiextensionsV1Api()
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "maximum": 9},
                    "color": {"type": "string", "default": "red"},
                },
            }
        },
    }
    extensions.create_custom_resource_definition(
        {
            "metadata": {"name": "boats.python.example.com"},
            "spec": {
                "group": "python.example.com",
                "scope": "Namespaced",
                "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        }
    )

    def established():
        definition = extensions.read_custom_resource_definition("boats.python.example.com")
        conditions = definition.status and definition.status.conditions or []
        return any(c.type == "Established" and c.status == "True" for c in conditions)

    eventually("the CRD to be established", established)
    boats = client.CustomObjectsApi()
    where = ("python.example.com", "v1", NAMESPACE, "boats")
    boat = {"apiVersion": "python.example.com/v1", "kind": "Boat", "metadata": {"name": "b"}}
    made = boats.create_namespaced_custom_object(*where, {**boat, "spec": {"size": 3}})
    assert made["spec"] == {"size": 3, "color": "red"}, made["spec"]
    bad = {**boat, "metadata": {"name": "c"}, "spec": {"size": 12}}
    error = refused(422, boats.create_namespaced_custom_object, *where, bad)
    assert "spec.size" in error.body, error.body
    found = dynamic.DynamicClient(client.ApiClient()).resources.get(
        api_version="python.example.com/v1", kind="Boat"
    )
    assert [item.metadata.name for item in found.get(namespace=NAMESPACE).items] == ["b"]
    extensions.delete_custom_resource_definition("boats.python.example.com")


def eventually(what, look):
    end = time.monotonic() + BOUND_SECONDS
    while not look():
        assert time.monotonic() < end, f"still waiting for {what}"
        time.sleep(0.05)


def pods():
    core = client.CoreV1Api()
    container = {
        "name": "web",
        "image": IMAGE,
        "command": ["httpd", "-f", "-p", "8080", "-h", "/etc"],
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": "web"}, "spec": spec})

    def running():
        return core.read_namespaced_pod("web", NAMESPACE).status.phase == "Running"

    eventually("the pod to run", running)
    said = stream(
        core.connect_get_namespaced_pod_exec,
        "web",
        NAMESPACE,
        command=["sh", "-c", "echo out; echo err >&2"],
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
    )
    assert sorted(said.split()) == ["err", "out"], said
    forward = portforward(
        core.connect_get_namespaced_pod_portforward, "web", NAMESPACE, ports="8080"
    )
    connection = forward.socket(8080)
    connection.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
    answer = b""
    while chunk := connection.recv(4096):
        answer += chunk
    assert answer.startswith(b"HTTP/1.") and b"200" in answer, answer
    core.delete_namespaced_pod("web", NAMESPACE)


def leader_election():
    started, stopped = threading.Event(), threading.Event()
    lock = ConfigMapLock("election", NAMESPACE, f"{socket.gethostname()}-1")
    elected = electionconfig.Config(
        lock,
        lease_duration=3,
        renew_deadline=2,
        retry_period=1,
        onstarted_leading=started.set,
        onstopped_leading=stopped.set,
    )
    election = leaderelection.LeaderElection(elected)
    threading.Thread(target=election.run, daemon=True).start()
    assert started.wait(BOUND_SECONDS), "not elected"


def clean_up():
    core = client.CoreV1Api()
    core.delete_namespace(NAMESPACE)

    def gone():
        try:
            core.read_namespace(NAMESPACE)
        except ApiException as error:
            return error.status == 404
        return False

    eventually("the namespace to be gone", gone)


config.load_kube_config()
for part in (
    objects,
    watching,
    pods,
    custom_resources,
    server_side_apply,
    leader_election,
    clean_up,
):
    chapter(part)
