// What a program built with the Node.js client does, against the cluster of $KUBECONFIG. Prints one
// line per chapter that held; the first that does not ends it with an error.

import assert from "node:assert/strict";
import net from "node:net";
import { Writable } from "node:stream";
import * as k8s from "@kubernetes/client-node";

const NAMESPACE = "node-client";
const BOUND_MS = 60_000;
const IMAGE = "coxswain.local/demo:1";

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`still waiting for ${what}`)), BOUND_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function eventually(what, look) {
  const end = Date.now() + BOUND_MS;
  while (!(await look())) {
    assert.ok(Date.now() < end, `still waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function informer() {
  await core.createNamespace({ body: { metadata: { name: NAMESPACE } } });
  const seen = [];
  const list = () => core.listNamespacedConfigMap({ namespace: NAMESPACE });
  const path = `/api/v1/namespaces/${NAMESPACE}/configmaps`;
  const informer = k8s.makeInformer(config, path, list);
  const done = new Promise((resolve, reject) => {
    const note = (verb) => (object) => {
      if (object.metadata.name !== "kube-root-ca.crt") seen.push(`${verb} ${object.metadata.name}`);
      if (verb === "delete") resolve();
    };
    for (const verb of ["add", "update", "delete"]) informer.on(verb, note(verb));
    informer.on("error", reject);
  });
  await informer.start();
  const metadata = { name: "a" };
  await core.createNamespacedConfigMap({ namespace: NAMESPACE, body: { metadata } });
  await eventually("the informer to see it", () => seen.includes("add a"));
  const body = { metadata, data: { k: "v" } };
  await core.replaceNamespacedConfigMap({ namespace: NAMESPACE, name: "a", body });
  await eventually("the informer to see the change", () => seen.includes("update a"));
  await core.deleteNamespacedConfigMap({ namespace: NAMESPACE, name: "a" });
  await within("the informer to see the end", done);
  await informer.stop();
  assert.deepEqual(seen, ["add a", "update a", "delete a"]);
}

async function genericObjects() {
  const spec = {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "generic", namespace: NAMESPACE },
    data: { one: "1" },
  };
  await objects.create(spec);
  const patched = await objects.patch({ ...spec, data: { two: "2" } });
  assert.deepEqual(patched.data, { one: "1", two: "2" });
  const applied = await objects.patch(
    { ...spec, data: { three: "3" } },
    undefined,
    undefined,
    "node-flow",
    true,
    k8s.PatchStrategy.ServerSideApply,
  );
  assert.deepEqual(applied.data, { one: "1", two: "2", three: "3" });
  const missing = objects.read({ ...spec, metadata: { name: "none", namespace: NAMESPACE } });
  await assert.rejects(missing, (error) => error.code === 404);
}

async function workload() {
  const labels = { app: "web" };
  const container = { name: "web", image: IMAGE, command: ["httpd", "-f", "-p", "8080", "-h", "/etc"] };
  const template = {
    metadata: { labels },
    spec: { containers: [container], terminationGracePeriodSeconds: 0 },
  };
  await apps.createNamespacedDeployment({
    namespace: NAMESPACE,
    body: { metadata: { name: "web" }, spec: { replicas: 1, selector: { matchLabels: labels }, template } },
  });
  await eventually("the deployment to be available", async () => {
    const read = await apps.readNamespacedDeployment({ namespace: NAMESPACE, name: "web" });
    return read.status?.availableReplicas === 1;
  });
  const pods = await core.listNamespacedPod({ namespace: NAMESPACE, labelSelector: "app=web" });
  return pods.items[0].metadata.name;
}

async function exec(pod) {
  let said = "";
  const out = new Writable({
    write(chunk, _, next) {
      said += chunk;
      next();
    },
  });
  const status = await within(
    "the command to end",
    new Promise((resolve, reject) => {
      const words = ["sh", "-c", "echo from inside; exit 3"];
      new k8s.Exec(config)
        .exec(NAMESPACE, pod, "web", words, out, out, null, false, resolve)
        .catch(reject);
    }),
  );
  assert.equal(said, "from inside\n");
  assert.equal(status.status, "Failure");
  assert.equal(status.details.causes[0].message, "3");
}

async function portForward(pod) {
  const forward = new k8s.PortForward(config);
  const server = net.createServer((socket) => {
    forward.portForward(NAMESPACE, pod, [8080], socket, null, socket);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const answer = await within(
    "an answer through the forwarded port",
    new Promise((resolve, reject) => {
      let text = "";
      const client = net.connect(server.address().port, "127.0.0.1");
      client.on("error", reject);
      client.on("data", (chunk) => {
        text += chunk;
        if (text.includes("\r\n\r\n")) {
          client.destroy();
          resolve(text);
        }
      });
      client.write("GET /hostname HTTP/1.0\r\n\r\n");
    }),
  );
  server.close();
  assert.match(answer, /^HTTP\/1\.\d 200/);
}

async function cleanUp() {
  await core.deleteNamespace({ name: NAMESPACE });
  await eventually("the namespace to be gone", () =>
    core.readNamespace({ name: NAMESPACE }).then(
      () => false,
      (error) => error.code === 404,
    ),
  );
}

await informer();
console.log("ok informer");
await genericObjects();
console.log("ok generic objects");
const pod = await workload();
console.log("ok workload");
await exec(pod);
console.log("ok exec");
await portForward(pod);
console.log("ok port-forward");
await cleanUp();
console.log("ok clean up");
process.exit(0);
