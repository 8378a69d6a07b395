//! All masters are destroyed and one is restored from backups, with real processes and the binary's
//! own commands: an informer goes on after listing once more, what was in the backup is there, and
//! revisions go up.

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    pin::Pin,
    process::{Child, Command},
    time::{Duration, Instant},
};
use tests::{
    Cluster,
    cluster::{binary, signal},
    ports::free_address,
};

/// For anything that must come true; far beyond what a loaded machine needs.
const BOUND: Duration = Duration::from_secs(120);
const OBJECTS: usize = 300;

#[test]
fn an_informer_goes_on_after_one_list_when_all_masters_are_restored_from_a_backup() {
    let cluster = Cluster::start(3, 0);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = client(&cluster).await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        for n in 0..OBJECTS {
            create(&maps, &format!("kept-{n}")).await;
        }
        let secrets: Api<Secret> = Api::default_namespaced(client.clone());
        let secret = json!({"metadata": {"name": "password"}, "stringData": {"word": "sesame"}});
        let secret = serde_json::from_value(secret).expect("a Secret");
        secrets.create(&PostParams::default(), &secret).await.expect("created");

        let backups = tempfile::tempdir().expect("a directory");
        let begun = Instant::now();
        let full = create_backup(&cluster, backups.path(), None);
        let took = begun.elapsed();
        create(&maps, "kept-too").await;
        let more = create_backup(&cluster, backups.path(), Some(&full));
        assert!(!contains(&backups.path().join(&full), b"sesame"), "sealed in the backup");
        verify(backups.path(), &more);

        let mut informer = Informer::start(maps.clone());
        create(&maps, "lost").await;
        informer.until("lost", |informer| informer.objects.contains_key("lost")).await;
        assert_eq!(informer.lists, 1);
        let before = revision_of(&maps).await;

        let arguments = arguments(&cluster);
        // The cluster's own goes with its machines.
        let kubeconfig = backups.path().join("kubeconfig");
        fs::copy(cluster.kubeconfig(), &kubeconfig).expect("copied");
        let destroyed = Instant::now();
        destroy(&cluster);
        let data = cluster.machine("m1").join("restored");
        let said = restore(&backups.path().join(&more), &data);
        let restored = destroyed.elapsed();
        let by_the_clock = tempfile::tempdir().expect("a directory");
        let master = Master::start(&arguments, &data, by_the_clock.path());
        informer.until("the list after it", |it| it.lists == 2 && it.complete).await;
        let back = destroyed.elapsed();

        assert!(!informer.objects.contains_key("lost"), "it was made after the backup");
        assert!(informer.objects.contains_key("kept-too"), "it is in what continues the backup");
        let after = revision_of(&maps).await;
        // Far above all that was issued, also after the backup.
        assert!(before < 1_000_000 && after > 1_000_000_000_000, "{before}, then {after}");
        create(&maps, "new").await;
        informer.until("new", |informer| informer.objects.contains_key("new")).await;
        assert_eq!(informer.lists, 2, "it listed once");
        let there = maps.list(&ListParams::default()).await.expect("listed");
        let there: BTreeMap<String, u64> = there.iter().map(entry).collect();
        assert_eq!(informer.objects, there);
        let word = secrets.get("password").await.expect("there").data.expect("data");
        assert_eq!(word["word"].0, b"sesame");
        let _joined = another_joins(&cluster, &kubeconfig);
        backups_come_and_go(&cluster, by_the_clock.path(), master);
        eprintln!(
            "{}",
            json!({"bench": "restore", "objects": there.len(), "backup_ms": took.as_millis(),
                   "destroyed_to_restored_ms": restored.as_millis(),
                   "destroyed_to_listed_ms": back.as_millis(), "said": said.lines().next()})
        );
    });
}

async fn client(cluster: &Cluster) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = fs::read_to_string(cluster.kubeconfig()).expect("a kubeconfig");
    let kubeconfig: Kubeconfig = serde_json::from_str(&text).expect("our kubeconfig is JSON");
    let options = KubeConfigOptions { context: Some("m1".into()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.expect("a context for m1")).expect("a client")
}

async fn create(maps: &Api<ConfigMap>, name: &str) {
    let map = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(500)}});
    let map = serde_json::from_value(map).expect("a ConfigMap");
    maps.create(&PostParams::default(), &map).await.expect("created");
}

fn entry(map: &ConfigMap) -> (String, u64) {
    let revision = map.resource_version().and_then(|text| text.parse().ok());
    (map.name_any(), revision.expect("a revision"))
}

async fn revision_of(maps: &Api<ConfigMap>) -> u64 {
    let list = maps.list(&ListParams::default()).await.expect("listed");
    list.metadata.resource_version.and_then(|text| text.parse().ok()).expect("a revision")
}

/// What a client's cache holds, and how often it had to list.
struct Informer {
    events: Pin<Box<dyn Stream<Item = watcher::Result<Event<ConfigMap>>> + Send>>,
    objects: BTreeMap<String, u64>,
    lists: usize,
    complete: bool,
}

impl Informer {
    fn start(maps: Api<ConfigMap>) -> Informer {
        let events = Box::pin(watcher::watcher(maps, watcher::Config::default()));
        Informer { events, objects: BTreeMap::new(), lists: 0, complete: false }
    }

    /// Follows the events until the cache is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Informer) -> bool) {
        let follow = async {
            while !wanted(self) {
                match self.events.next().await.expect("a watcher never ends") {
                    Ok(event) => self.take(event),
                    // Nobody answers, or the watch was refused: it goes on by itself.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        if tokio::time::timeout(BOUND, follow).await.is_err() {
            panic!("never seen: {what}; {} lists, {} objects", self.lists, self.objects.len());
        }
    }

    fn take(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Init => {
                self.objects.clear();
                self.lists += 1;
                self.complete = false;
            }
            Event::InitApply(map) | Event::Apply(map) => {
                self.objects.extend([entry(&map)]);
            }
            Event::InitDone => self.complete = true,
            Event::Delete(map) => {
                self.objects.remove(&map.name_any());
            }
        }
    }
}

/// Runs the binary; what it printed.
fn coxswain(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(binary()).args(arguments).output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The name of the file.
fn create_backup(cluster: &Cluster, to: &Path, since: Option<&str>) -> String {
    let kubeconfig = cluster.kubeconfig();
    let since = since.map(|since| to.join(since));
    let mut arguments =
        vec!["backup", "create", "--to", path(to), "--kubeconfig", path(&kubeconfig)];
    if let Some(since) = &since {
        arguments.extend(["--since", path(since)]);
    }
    let said = coxswain(&arguments).expect("a backup");
    said.split(':').next().expect("its name").to_string()
}

fn contains(file: &Path, text: &[u8]) -> bool {
    fs::read(file).expect("readable").windows(text.len()).any(|part| part == text)
}

fn verify(backups: &Path, name: &str) {
    let file = backups.join(name);
    let said = coxswain(&["backup", "verify", path(&file)]).expect("sound");
    assert!(said.contains("can be restored"), "{said}");
    let listed = coxswain(&["backup", "list", path(backups)]).expect("listed");
    assert!(listed.contains(name), "{listed}");
    let mut bytes = fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = backups.join("damaged.cxb");
    fs::write(&damaged, bytes).expect("written");
    let refused = coxswain(&["backup", "verify", path(&damaged)]).expect_err("damaged");
    assert!(refused.contains("does not match its checksum"), "{refused}");
    fs::remove_file(damaged).expect("removed");
}

/// The command line of master m1, as the system has it.
fn arguments(cluster: &Cluster) -> Vec<String> {
    let members = cluster.members();
    let m1 = members.iter().find(|member| member["name"] == "m1").expect("m1");
    let line = fs::read(format!("/proc/{}/cmdline", m1["pid"])).expect("it runs");
    let words =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    words.skip(1).filter(|word| !word.is_empty()).collect()
}

/// The power of all masters at once, and then their disks.
fn destroy(cluster: &Cluster) {
    let masters = ["m1", "m2", "m3"];
    for name in masters {
        signal(cluster.machine_pid(name), "KILL");
    }
    for name in masters {
        cluster.eventually("the master to have ended", || {
            match fs::remove_dir_all(cluster.machine(name).join("data")) {
                Ok(()) => Ok(()),
                // It may still be writing.
                Err(error) => Err(error.to_string()),
            }
        });
    }
}

fn restore(backup: &Path, data: &Path) -> String {
    let (backup, data) = (path(backup), path(data));
    coxswain(&["restore", backup, "--data-dir", data, "--name", "m1"]).expect("restored")
}

/// A master with nothing on its disk joins the restored one, with a token, and votes.
fn another_joins(cluster: &Cluster, kubeconfig: &Path) -> (Master, tempfile::TempDir) {
    let line = coxswain(&["token", "create", "--kubeconfig", path(kubeconfig)]).expect("a token");
    let line = line.replace("\\\n", " ");
    let given = line.split(" --name ").next().expect("what goes before the machine's own");
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(binary());
    command.args(given.split_whitespace().skip(1)).args(["--name", "m2"]);
    command.args(["--listen", &free_address(), "--peer-address", &free_address()]);
    for flag in ["data-dir", "pki"] {
        command.arg(format!("--{flag}")).arg(directory.path().join(flag));
    }
    let log = fs::File::create(directory.path().join("log")).expect("a log");
    let joined = Master(command.stderr(log).spawn().expect("the binary starts"));
    cluster.eventually("the second master to vote", || {
        let members = ["members", "-o", "json", "--kubeconfig", path(kubeconfig)];
        let said = coxswain(&members).unwrap_or_else(|said| said);
        let members: Vec<Value> = serde_json::from_str(&said).unwrap_or_default();
        let votes = |member: &&Value| member["voter"] == true && member["reachable"] == true;
        let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        let both = members.iter().filter(votes).count() == 2;
        both.then_some(()).ok_or_else(|| format!("{said}\n{log}"))
    });
    (joined, directory)
}

/// The master takes one each second, every other one is full, and one full one is kept.
fn backups_come_and_go(cluster: &Cluster, place: &Path, master: Master) {
    let names = || {
        let names = fs::read_dir(place).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".cxb")).collect();
        names.sort();
        names
    };
    cluster.eventually("a first backup", || {
        names().first().map(drop).ok_or_else(|| "none is there".to_string())
    });
    let first = names().remove(0);
    cluster.eventually("the first backup to be too old", || {
        let now = names();
        (!now.is_empty() && !now.contains(&first)).then_some(()).ok_or(format!("{now:?}"))
    });
    drop(master);
    let last = names().pop().expect("one is always there");
    let said = coxswain(&["backup", "verify", path(&place.join(&last))]).expect("sound");
    assert!(said.contains("can be restored"), "{said}");
}

/// A master that this test started; it ends with it.
struct Master(Child);

impl Master {
    /// With the command line of another, but on its own data and alone; it takes backups.
    fn start(arguments: &[String], data: &Path, backups: &Path) -> Master {
        let mut arguments = arguments.to_vec();
        let after = |arguments: &[String], flag: &str| {
            arguments.iter().position(|word| word == flag).expect("a flag") + 1
        };
        let at = after(&arguments, "--data-dir");
        arguments[at] = path(data).to_string();
        let at = after(&arguments, "--initial-members");
        let own = arguments[at].split(',').find(|member| member.starts_with("1=")).expect("m1");
        arguments[at] = own.to_string();
        let schedule = "--backup-schedule 1s --backup-full-every 2 --backup-keep 1 --backup-to";
        arguments.extend(schedule.split(' ').chain([path(backups)]).map(str::to_string));
        let log = fs::File::create(data.with_extension("log")).expect("a log");
        let mut command = Command::new(binary());
        command.args(arguments).stdout(log.try_clone().expect("a log")).stderr(log);
        Master(command.spawn().expect("the binary starts"))
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
