//! The work a pod's worker has done beside its loop: preparing, starting, killing, taking down.
//! Each job runs to its end and says how it went.

use super::{
    Context,
    check::Target,
    container::{self, Given, ephemeral_target, shape},
    env, files,
    sources::Needs,
};
use crate::{
    images::{self, Credentials, Image},
    runtime::{Error, SandboxSpec, State},
};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Secret};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Killing waits this long for the runtime's hint before it looks itself.
const LOOK: Duration = Duration::from_millis(250);
/// What SIGKILL may take before the kill is called failed (and planned again).
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// How a job ended; `container` is `None` for work on the whole pod.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) container: Option<String>,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Prepared { ip: String },
    NotPrepared,
    TornDown,
    Reset,
    Started,
    NotStarted(Trouble),
    Killed,
    Refreshed,
    Finished,
}

/// Why a container is not running.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// Of `state.waiting`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) image: bool,
    /// Id of the container that itself could not be started, as opposed to what it needs.
    pub(crate) started: Option<String>,
}

impl Trouble {
    fn config(message: String) -> Trouble {
        Trouble { reason: "CreateContainerConfigError", message, image: false, started: None }
    }

    fn image(reason: &'static str, message: String) -> Trouble {
        Trouble { reason, message, image: true, started: None }
    }

    fn start(id: &str, message: String) -> Trouble {
        let started = Some(id.to_string());
        Trouble { reason: "RunContainerError", message, image: false, started }
    }
}

fn pod_done(outcome: Outcome) -> Done {
    Done { container: None, outcome }
}

/// Volumes, then namespaces, then the network, then the files of `/etc`.
pub(crate) async fn prepare(context: Arc<Context>, pod: Arc<Pod>) -> Done {
    if let Err(why) = prepare_volumes(&context, &pod, String::new()).await {
        context.events.warning(&pod, "FailedMount", why);
        return pod_done(Outcome::NotPrepared);
    }
    match prepare_sandbox(&context, &pod).await {
        Ok(ip) => pod_done(Outcome::Prepared { ip }),
        Err(why) => {
            let message = format!("Failed to create pod sandbox: {why}");
            context.events.warning(&pod, "FailedCreatePodSandBox", message);
            pod_done(Outcome::NotPrepared)
        }
    }
}

async fn prepare_volumes(context: &Arc<Context>, pod: &Arc<Pod>, ip: String) -> Result<(), String> {
    let sources = context.library.of_volumes(pod).await?;
    let (context, pod) = (context.clone(), pod.clone());
    let work = move || {
        let facts = context.facts(&ip);
        context.volumes(&pod).prepare(&pod, &sources, &facts)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

async fn prepare_sandbox(context: &Arc<Context>, pod: &Arc<Pod>) -> Result<String, String> {
    let meta = &pod.metadata;
    let uid = meta.uid.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let sandbox = SandboxSpec {
        uid: uid.clone(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        hostname: files::hostname(pod),
        host_network: spec.host_network == Some(true),
        host_ipc: spec.host_ipc == Some(true),
    };
    let _timer = context.metrics.operation("run_podsandbox");
    let made = context.runtime.run_sandbox(&sandbox).await.map_err(|error| error.text())?;
    let ip = match made {
        Some(netns) => context.network.attach(pod, &netns).await?,
        None => context.node_ip.to_string(),
    };
    let directory = context.etc_directory(&uid);
    let written = files::write(&directory, pod, &ip, &context.dns);
    written.map_err(|error| format!("files of /etc: {error}"))?;
    // Volumes of the downward API may show the address.
    prepare_volumes(context, pod, ip.clone()).await?;
    Ok(ip)
}

/// ConfigMaps, Secrets and the pod's own fields into its volumes again.
pub(crate) async fn refresh(context: Arc<Context>, pod: Arc<Pod>, ip: String) -> Done {
    if let Err(why) = prepare_volumes(&context, &pod, ip).await {
        tracing::debug!(pod = pod.metadata.name, why, "volumes not refreshed");
    }
    pod_done(Outcome::Refreshed)
}

/// With `reset` only what a lost sandbox held; volumes stay for the next one.
pub(crate) async fn teardown(context: Arc<Context>, pod: Arc<Pod>, reset: bool) -> Done {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let _timer = context.metrics.operation("stop_podsandbox");
    if let Err(error) = context.runtime.remove_sandbox(&uid).await {
        context.events.warning(
            &pod,
            "FailedKillPod",
            format!("error killing pod: {}", error.text()),
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        return pod_done(Outcome::NotPrepared);
    }
    if let Err(why) = context.network.detach(&pod).await {
        tracing::warn!(pod = uid, why, "network not detached");
    }
    if reset {
        return pod_done(Outcome::Reset);
    }
    let (volumes, etc) = (context.volumes(&pod), context.etc_directory(&uid));
    let removed = tokio::task::spawn_blocking(move || {
        let _ = std::fs::remove_dir_all(etc);
        volumes.remove()
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(pod = uid, %error, "volumes not removed");
    }
    pod_done(Outcome::TornDown)
}

pub(crate) async fn finish(finish: impl Future<Output = ()>) -> Done {
    finish.await;
    pod_done(Outcome::Finished)
}

/// One start of one container.
pub(crate) struct Start {
    pub(crate) context: Arc<Context>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) attempt: u32,
    /// The container before it, whose log and exit are kept.
    pub(crate) keep: Option<String>,
    pub(crate) ip: String,
    /// Id of the running container whose processes this one is to see.
    pub(crate) processes_of: Option<String>,
}

impl Start {
    pub(crate) async fn run(self) -> Done {
        let outcome = match self.start().await {
            Ok(()) => Outcome::Started,
            Err(trouble) => Outcome::NotStarted(trouble),
        };
        Done { container: Some(self.container.name.clone()), outcome }
    }

    async fn start(&self) -> Result<(), Trouble> {
        let image = self.image().await?;
        let (uid, name) = (self.uid(), &self.container.name);
        self.remove_older(&uid).await;
        let spec = self.specification(&image).await.map_err(|why| {
            self.event(true, "Failed", format!("Error: {why}"));
            Trouble::config(why)
        })?;
        let id = spec.id.clone();
        let runtime = &self.context.runtime;
        let timer = self.context.metrics.operation("create_container");
        runtime.create(&uid, &spec).await.map_err(|error| {
            let text = error.text();
            self.event(true, "Failed", format!("Error: {text}"));
            if text.contains("runAsNonRoot") || text.contains("unable to find user") {
                return Trouble::config(text);
            }
            Trouble::start(&id, text)
        })?;
        drop(timer);
        self.event(false, "Created", "Container created".to_string());
        let timer = self.context.metrics.operation("start_container");
        if let Err(error) = runtime.start(&uid, &id).await {
            let _ = runtime.remove(&uid, &id).await;
            self.event(true, "Failed", format!("Error: {}", error.text()));
            return Err(Trouble::start(&id, error.text()));
        }
        drop(timer);
        self.event(false, "Started", "Container started".to_string());
        tracing::info!(
            pod = self.pod.metadata.name,
            container = name,
            attempt = self.attempt,
            "started"
        );
        self.post_start(&id).await
    }

    fn uid(&self) -> String {
        self.pod.metadata.uid.clone().unwrap_or_default()
    }

    fn event(&self, warning: bool, reason: &'static str, message: String) {
        let name = &self.container.name;
        self.context.events.container(&self.pod, name, warning, reason, message);
    }

    async fn image(&self) -> Result<Image, Trouble> {
        let name = self.container.image.as_deref().unwrap_or_default();
        let here = self.context.images.get(name).map_err(|error| {
            let message = format!("Failed to apply default image tag {name:?}: {error}");
            self.event(true, "InspectFailed", message.clone());
            Trouble::image("InvalidImageName", message)
        })?;
        let policy = self.container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        match (policy, here) {
            ("IfNotPresent" | "Never", Some(image)) => {
                let text = format!("Container image {name:?} already present on machine");
                self.event(false, "Pulled", text);
                Ok(image)
            }
            ("Never", None) => {
                let text =
                    format!("Container image {name:?} is not present with pull policy of Never");
                self.event(true, "ErrImageNeverPull", text.clone());
                Err(Trouble::image("ErrImageNeverPull", text))
            }
            _ => self.pull(name).await,
        }
    }

    async fn pull(&self, name: &str) -> Result<Image, Trouble> {
        self.event(false, "Pulling", format!("Pulling image {name:?}"));
        let began = Instant::now();
        let logins = self.logins().await.map_err(Trouble::config)?;
        let _timer = self.context.metrics.operation("pull_image");
        match self.context.images.pull(name, &logins).await {
            Ok(image) => {
                let took = began.elapsed().as_secs_f64();
                let text = format!("Successfully pulled image {name:?} in {took:.3}s");
                self.event(false, "Pulled", text);
                Ok(image)
            }
            Err(error) => {
                let text = error.to_string();
                self.event(true, "Failed", format!("Failed to pull image {name:?}: {text}"));
                self.event(true, "Failed", "Error: ErrImagePull".to_string());
                let invalid = matches!(error, images::Error::InvalidName { .. });
                let reason = if invalid { "InvalidImageName" } else { "ErrImagePull" };
                Err(Trouble::image(reason, text))
            }
        }
    }

    async fn logins(&self) -> Result<Vec<Credentials>, String> {
        let Some(spec) = &self.pod.spec else { return Ok(Vec::new()) };
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let needs = Needs::of_pull_secrets(spec);
        let found = self.context.library.read(&needs, namespace).await?;
        Ok(found.secrets.values().flatten().flat_map(credentials).collect())
    }

    async fn specification(&self, image: &Image) -> Result<crate::runtime::ContainerSpec, String> {
        if let (Some(target), None) =
            (ephemeral_target(&self.pod, &self.container.name), &self.processes_of)
        {
            return Err(format!("unable to find target container {target:?}"));
        }
        if let Some(why) = container::refusal(&self.pod, &self.container) {
            return Err(why);
        }
        if container::wants_default_seccomp(&self.pod, &self.container) {
            let text = "seccompProfile RuntimeDefault: this runtime filters no system calls yet";
            self.event(true, "SeccompUnavailable", text.to_string());
        }
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let needs = Needs::of_environment(&self.container);
        let sources = self.context.library.read(&needs, namespace).await?;
        let facts = self.context.facts(&self.ip);
        let mut variables = env::environment(&self.pod, &self.container, &sources, &facts)?;
        if !variables.iter().any(|(name, _)| name == "HOSTNAME") {
            variables.push(("HOSTNAME".to_string(), files::hostname(&self.pod)));
        }
        let known: BTreeMap<String, String> = variables.iter().cloned().collect();
        let (volumes, pod) = (self.context.volumes(&self.pod), self.pod.clone());
        let own = self.container.clone();
        let bound = tokio::task::spawn_blocking(move || volumes.mounts(&pod, &own, &known));
        let mut mounts = bound.await.map_err(|error| error.to_string())??;
        let etc = self.context.etc_directory(&self.uid());
        mounts.extend(files::mounts(&etc, &self.pod, &self.container, &mounts));
        let id = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let given = Given {
            id,
            attempt: self.attempt,
            image,
            env: variables,
            mounts,
            log: self.context.log_file(&self.pod, &self.container.name, self.attempt),
            node_memory_bytes: self.context.capacity.memory_bytes,
            processes_of: self.processes_of.clone(),
        };
        Ok(container::specification(&self.pod, &self.container, given))
    }

    /// Only the last dead container of a name is kept.
    async fn remove_older(&self, uid: &str) {
        let Ok(found) = self.context.runtime.sandbox(uid).await else { return };
        let same = found.containers.into_iter().filter(|one| one.name == self.container.name);
        for old in same.filter(|one| Some(&one.id) != self.keep.as_ref()) {
            if !old.state.is_running() {
                let _ = self.context.runtime.remove(uid, &old.id).await;
                let _ = tokio::fs::remove_file(old.log).await;
            }
        }
    }

    async fn post_start(&self, id: &str) -> Result<(), Trouble> {
        let hook = self.container.lifecycle.as_ref().and_then(|hooks| hooks.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let target = Target {
            runtime: self.context.runtime.clone(),
            pod_uid: self.uid(),
            container_id: id.to_string(),
            ip: self.ip.clone(),
            container: Arc::new(self.container.clone()),
        };
        let Err(why) = call(&target, hook).await else { return Ok(()) };
        self.event(true, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
        let name = self.container.name.clone();
        let grace = shape(&self.pod.spec.clone().unwrap_or_default()).grace;
        let kill = Kill {
            context: self.context.clone(),
            pod: self.pod.clone(),
            why: format!("FailedPostStartHook of container {name}"),
            grace,
            deadline: watch::Sender::new(None).subscribe(),
            target,
        };
        let _ = kill.run().await;
        // It ran, and its end has been seen: nothing more to say of it.
        Ok(())
    }
}

/// A hook's handler, to its end.
async fn call(target: &Target, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        return target.exec(action).await;
    }
    if let Some(action) = &hook.http_get {
        return target.http(action).await;
    }
    if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(action.seconds.max(0).unsigned_abs())).await;
    }
    Ok(())
}

/// `kubernetes.io/dockerconfigjson`.
fn credentials(secret: &Secret) -> Vec<Credentials> {
    let parse = || -> Option<Vec<Credentials>> {
        let text = &secret.data.as_ref()?.get(".dockerconfigjson")?.0;
        let value: serde_json::Value = serde_json::from_slice(text).ok()?;
        let mut list = Vec::new();
        for (registry, entry) in value.get("auths")?.as_object()? {
            let text = |field: &str| entry.get(field).and_then(|value| value.as_str());
            let pair = match (text("username"), text("password")) {
                (Some(user), Some(password)) => Some((user.to_string(), password.to_string())),
                _ => text("auth").and_then(decode_auth),
            };
            let Some((user, password)) = pair else { continue };
            let host = registry.rsplit("://").next().unwrap_or(registry);
            let registry = host.split('/').next().unwrap_or(host).to_string();
            list.push(Credentials { registry, user, password });
        }
        Some(list)
    };
    parse().unwrap_or_default()
}

fn decode_auth(text: &str) -> Option<(String, String)> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_string(), password.to_string()))
}

/// One graceful kill: hook, signal, wait, SIGKILL.
pub(crate) struct Kill {
    pub(crate) context: Arc<Context>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) why: String,
    pub(crate) grace: Duration,
    /// The pod's own end, which may come nearer while this runs.
    pub(crate) deadline: watch::Receiver<Option<Instant>>,
    pub(crate) target: Target,
}

impl Kill {
    pub(crate) async fn run(mut self) -> Done {
        let name = self.target.container.name.clone();
        self.context.events.container(&self.pod, &name, false, "Killing", self.why.clone());
        let timer = self.context.metrics.operation("stop_container");
        self.kill().await;
        drop(timer);
        Done { container: Some(name), outcome: Outcome::Killed }
    }

    async fn kill(&mut self) {
        let end = Instant::now() + self.grace;
        let container = self.target.container.clone();
        let hook = container.lifecycle.as_ref().and_then(|hooks| hooks.pre_stop.as_ref());
        if let Some(hook) = hook.filter(|_| !self.grace.is_zero()) {
            let target = self.target.clone();
            tokio::select! {
                result = call(&target, hook) => if let Err(why) = result {
                    let text = format!("PreStopHook failed: {why}");
                    self.context.events.container(
                        &self.pod, &container.name, true, "FailedPreStopHook", text);
                },
                () = self.over(end) => {}
            }
        }
        if !self.grace.is_zero() {
            self.signal(self.stop_signal()).await;
            if self.ended_before(end).await {
                return;
            }
        }
        self.signal(libc::SIGKILL).await;
        let patience = Instant::now() + KILL_PATIENCE;
        self.deadline = watch::Sender::new(None).subscribe();
        if !self.ended_before(patience).await {
            tracing::error!(pod = self.target.pod_uid, container = container.name, "does not die");
        }
    }

    /// The image's `STOPSIGNAL`, else SIGTERM.
    fn stop_signal(&self) -> i32 {
        let name = self.target.container.image.as_deref().unwrap_or_default();
        let image = self.context.images.get(name).ok().flatten();
        let text = image.and_then(|image| image.config.stop_signal);
        text.and_then(|text| signal_number(&text)).unwrap_or(libc::SIGTERM)
    }

    async fn signal(&self, signal: i32) {
        let target = &self.target;
        let sent = self.context.runtime.signal(&target.pod_uid, &target.container_id, signal).await;
        if let Err(error) = sent {
            tracing::debug!(pod = target.pod_uid, signal, error = error.text(), "not signalled");
        }
    }

    async fn ended_before(&mut self, end: Instant) -> bool {
        let mut changes = self.context.runtime.changes();
        loop {
            if self.has_ended().await {
                return true;
            }
            let look = tokio::time::timeout(LOOK, changes.recv());
            tokio::select! {
                () = self.over(end) => return self.has_ended().await,
                _ = look => {}
            }
        }
    }

    async fn has_ended(&self) -> bool {
        match self.context.runtime.sandbox(&self.target.pod_uid).await {
            Ok(found) => {
                let same = found.containers.iter().find(|one| one.id == self.target.container_id);
                same.is_none_or(|one| matches!(one.state, State::Exited { .. }))
            }
            Err(Error::NotFound(_)) => true,
            Err(_) => false,
        }
    }

    /// Until `end` or the pod's deadline, whichever is first.
    async fn over(&self, end: Instant) {
        let mut deadline = self.deadline.clone();
        loop {
            let now_known = *deadline.borrow_and_update();
            let until = now_known.map_or(end, |deadline| deadline.min(end));
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = deadline.changed() => if changed.is_err() {
                    return tokio::time::sleep_until(until).await;
                },
            }
        }
    }
}

/// `SIGINT`, `INT` or a number.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let name = if text.starts_with("SIG") { text.to_string() } else { format!("SIG{text}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}
