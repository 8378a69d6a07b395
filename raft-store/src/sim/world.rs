//! The machines, what runs on them, and what is between them.

use super::{
    disks::{Health, LogDisk, StateDisks, write_log},
    network::{Cable, Listening, Weather, address},
    run::dies_over_its_vote,
    scheduler::{self, Node, Sleep, WORLD, one_in, random, spawn_on},
    witness,
};
use crate::{
    Config, MemberId, OpenError, Peer, Retention, Store, Timers, Tls,
    founding::{Doorkeeper, Introduce},
    member::{Assembled, Member, Opened, open_state},
    metrics::Metrics,
    raft::log::{FLUSHED, Log, mark::Mark},
    room::{Disk, FreeSpace},
    state::Session,
    threads::Threads,
    types::Cluster,
};
use chaos::{Violation, history::Op};
use rand::Rng;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// What is free on a disk where nobody fills anything.
const ROOM: u64 = 1 << 40;
const RESERVE: u64 = 1 << 20;

/// What became of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Serves,
    /// The group let it go.
    Removed,
    /// Its disk is not what it was: rightly not served again.
    Damaged,
}

/// One machine.
struct Host {
    log: LogDisk,
    dir: PathBuf,
    joins: bool,
    running: Option<Running>,
    /// Without power: nobody there to refuse a connection.
    dark: bool,
    fate: Fate,
    free: Arc<AtomicU64>,
    /// A failure of its disk was arranged since it last started.
    excused: bool,
    /// Its log was damaged on purpose.
    damaged: bool,
    starts: u64,
}

#[derive(Clone)]
struct Running {
    store: Store,
    listening: Listening,
}

/// How one run's cluster is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) members: u64,
    pub(super) timers: Timers,
    pub(super) retention: Retention,
}

impl Setup {
    pub(super) fn draw() -> Setup {
        random(|random| {
            let ms = Duration::from_millis;
            let election_min = random.random_range(150..400);
            Setup {
                members: if random.random_ratio(1, 3) { 5 } else { 3 },
                timers: Timers {
                    // Slower ones make runs a tenth shorter, and hide mistakes (a vote given too early
                    // from 300 seeds).
                    heartbeat: ms(50),
                    election_min: ms(election_min),
                    election_max: ms(election_min * random.random_range(12..25) / 10),
                    request: ms(random.random_range(800..5_000)),
                    joiner_silence: ms(random.random_range(2_000..20_000)),
                },
                retention: Retention {
                    history: ms(random.random_range(500..8_000)),
                    history_changes: random.random_range(50..2_000),
                    ring_changes: random.random_range(64..300),
                    ring_bytes: 1 << 20,
                    flush: ms(random.random_range(300..4_000)),
                    log_entries: random.random_range(0..200),
                },
            }
        })
    }
}

/// Clones of the `Arc` see the same world.
pub(super) struct World {
    pub(super) setup: Setup,
    dir: tempfile::TempDir,
    hosts: Mutex<BTreeMap<Node, Host>>,
    weather: Mutex<Weather>,
    pub(super) ops: Mutex<Vec<Op>>,
    /// As whoever asked for them got them.
    pub(super) backups: Mutex<Vec<Vec<u8>>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    pub(super) over: AtomicBool,
    /// Shared by everybody who uses the cluster.
    pub(super) users: Arc<()>,
    /// Members die after one in so many answers; 0: they do not.
    pub(super) dying: AtomicU64,
    /// Members die over votes that they gave.
    pub(super) contested: AtomicBool,
    /// How many removals were asked for lately.
    pub(super) removing: AtomicU64,
}

#[derive(Debug)]
struct Space(Arc<AtomicU64>);

impl FreeSpace for Space {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}

/// Memory, if there is such a file system: nothing here needs to outlive the process.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a directory")
}

/// What was written to the mark after it was last synced may be lost with the power.
fn forget_mark(dir: &Path) {
    let (mark, synced) = (dir.join(FLUSHED), dir.join("log.flushed.synced"));
    if one_in(2) && synced.exists() {
        fs::copy(synced, mark).expect("a readable copy");
    }
}

/// Remembers what of a mark a power cut cannot take.
pub(crate) fn mark_synced(mark: &Path) {
    if scheduler::active() {
        fs::copy(mark, mark.with_extension("flushed.synced")).expect("a readable mark");
    }
}

impl World {
    pub(super) fn new(setup: Setup) -> Arc<World> {
        let world = Arc::new(World {
            setup,
            dir: scratch(),
            hosts: Mutex::default(),
            weather: Mutex::default(),
            ops: Mutex::default(),
            backups: Mutex::default(),
            counts: Mutex::default(),
            over: AtomicBool::new(false),
            users: Arc::default(),
            dying: AtomicU64::new(0),
            contested: AtomicBool::new(false),
            removing: AtomicU64::new(0),
        });
        (1..=setup.members).for_each(|node| world.add(node, false));
        world
    }

    pub(super) fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().expect("never held across a panic")
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<Node, Host>> {
        self.hosts.lock().expect("never held across a panic")
    }

    pub(super) fn count(&self, what: &'static str, n: u64) {
        *self.counts.lock().expect("never held across a panic").entry(what).or_default() += n;
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().expect("never held across a panic").clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A machine without a member on it yet.
    pub(super) fn add(&self, node: Node, joins: bool) {
        let host = Host {
            log: LogDisk::default(),
            dir: self.data_dir(node),
            joins,
            running: None,
            dark: false,
            fate: Fate::Serves,
            free: Arc::new(AtomicU64::new(ROOM)),
            excused: false,
            damaged: false,
            starts: 0,
        };
        self.hosts().insert(node, host);
    }

    pub(super) fn data_dir(&self, node: Node) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.hosts().keys().copied().collect()
    }

    pub(super) fn fate(&self, node: Node) -> Option<Fate> {
        self.hosts().get(&node).map(|host| host.fate.clone())
    }

    pub(super) fn peer(&self, node: Node) -> Peer {
        Peer {
            name: format!("node-{node}"),
            peer_address: address(node),
            api_address: format!("https://node-{node}:6443"),
        }
    }

    pub(super) fn listening(&self, node: Node) -> Option<Listening> {
        self.hosts().get(&node)?.running.as_ref().map(|running| running.listening.clone())
    }

    pub(super) fn is_dark(&self, node: Node) -> bool {
        self.hosts().get(&node).is_some_and(|host| host.dark)
    }

    pub(super) fn store(&self, node: Node) -> Option<Store> {
        self.hosts().get(&node)?.running.as_ref().map(|running| running.store.clone())
    }

    pub(super) fn stores(&self) -> Vec<(Node, Store)> {
        let hosts = self.hosts();
        let running = hosts.iter().filter_map(|(id, it)| Some((*id, it.running.clone()?.store)));
        running.collect()
    }

    pub(super) fn leader(&self) -> Option<Node> {
        let stores = self.stores().into_iter();
        let leading = stores.filter_map(|(node, store)| {
            let term = store.leadership().borrow().leading?;
            Some((term, node))
        });
        leading.max().map(|(_, node)| node)
    }

    pub(super) fn health(&self, node: Node) -> Option<Health> {
        self.hosts().get(&node).map(|host| host.log.health.clone())
    }

    /// Its disk is about to fail; it may stop for that.
    pub(super) fn excuse(&self, node: Node) {
        if let Some(host) = self.hosts().get_mut(&node) {
            host.excused = true;
        }
    }

    pub(super) fn fill_disk(&self, node: Node, full: bool) {
        if let Some(host) = self.hosts().get(&node) {
            host.free.store(if full { RESERVE / 2 } else { ROOM }, Ordering::Relaxed);
        }
    }

    /// A member answered: a good moment to die.
    pub(super) fn said_something(self: &Arc<Self>, node: Node) {
        let dying = self.dying.load(Ordering::Relaxed) as u32;
        if dying > 0 && one_in(dying) {
            let (world, down) = (self.clone(), random(|random| random.random_range(1..500)));
            spawn_on(WORLD, async move { world.crash(node, true, Some(down)) });
        }
    }

    /// A member gave a vote: the best moment of all.
    pub(super) fn voted(self: &Arc<Self>, voter: Node, candidate: Node) {
        if self.contested.load(Ordering::Relaxed) && one_in(2) {
            let world = self.clone();
            spawn_on(WORLD, async move { dies_over_its_vote(&world, voter, candidate) });
        }
    }

    fn config(&self, node: Node, host: &Host) -> Config {
        let founders = (1..=self.setup.members).map(|id| (MemberId(id), self.peer(id)));
        let own = (node > self.setup.members).then(|| (MemberId(node), self.peer(node)));
        Config {
            member: MemberId(node),
            data_dir: host.dir.clone(),
            initial_members: founders.chain(own).collect(),
            joins: host.joins,
            listen: ([127, 0, 0, 1], 0).into(),
            tls: Tls { ca: Vec::new(), cert: Vec::new(), key: Vec::new() }.into(),
            timers: self.setup.timers,
            retention: self.setup.retention,
            disk: Disk { reserve: RESERVE, free_space: Arc::new(Space(host.free.clone())) },
            seal: Arc::new(crate::Plain),
            registry: prometheus::Registry::new(),
            knows: crate::codec::VERSION,
        }
    }

    /// Starts the member of a machine, unless it runs or must not.
    pub(super) fn start(self: &Arc<Self>, node: Node) {
        {
            let mut hosts = self.hosts();
            let Some(host) = hosts.get_mut(&node) else { return };
            if host.running.is_some() || host.fate != Fate::Serves {
                return;
            }
            (host.dark, host.excused) = (false, false);
            host.starts += 1;
        }
        // What a start before this one left half done.
        scheduler::kill(node);
        let world = self.clone();
        spawn_on(node, async move {
            if let Err(error) = world.boot(node).await {
                spawn_on(WORLD, async move { world.did_not_start(node, error) });
            }
        });
    }

    async fn boot(self: &Arc<Self>, node: Node) -> Result<(), OpenError> {
        let (config, disk) = {
            let hosts = self.hosts();
            let host = hosts.get(&node).expect("a machine that was added");
            (self.config(node, host), host.log.clone())
        };
        disk.health.repaired();
        let metrics = Metrics::new(&config.registry).expect("a new registry");
        let session = Session(random(|random| random.random()));
        let engines = Arc::new(StateDisks(disk.health.clone()));
        let (shared, machine, dirs) = open_state(&config, &metrics, engines, session)?;
        let path = config.data_dir.join(FLUSHED);
        let broken = |source| OpenError::Disk { path: path.clone(), source };
        let mark = Mark::open(&path).map_err(broken)?;
        let recovered = disk.recover(&mark)?;
        let failing = shared.clone();
        let failed = Box::new(move |error: &io::Error| failing.stop(&format!("log: {error}")));
        let engine = Arc::new(disk.clone());
        let (log, writer, jobs) =
            Log::on(engine, recovered, mark, &metrics, failed).map_err(broken)?;
        spawn_on(node, write_log(disk, writer, jobs));
        let introduce = Introduce::new(&shared);
        let dial = Arc::new(Cable { world: self.clone(), from: node, introduce });
        let id = random(|random| random.random::<u128>());
        let name = Cluster { id: format!("{id:032x}").into(), epoch: 1 };
        let door = Doorkeeper::new(&shared, &format!("node-{node}"));
        let opened = Opened { shared, machine, dirs, log };
        let Assembled { member, service, work, reads } =
            Member::assemble(config, metrics, opened, dial, name).await?;
        work.into_iter().chain([reads]).for_each(|each| spawn_on(node, each));
        let store = Store::of(member, Threads::of_caller());
        let listening = Listening { service: Arc::new(service), door };
        if let Some(host) = self.hosts().get_mut(&node) {
            host.running = Some(Running { store: store.clone(), listening });
        }
        let world = self.clone();
        spawn_on(node, async move {
            let why = store.stopped().await.to_string();
            spawn_on(WORLD, async move { world.stopped(node, &why) });
        });
        Ok(())
    }

    /// The member stopped by itself: its process ends, and a supervisor starts it again.
    fn stopped(self: &Arc<Self>, node: Node, why: &str) {
        let (dir, excused) = {
            let hosts = self.hosts();
            let Some(host) = hosts.get(&node).filter(|host| host.running.is_some()) else { return };
            (host.dir.clone(), host.excused)
        };
        let marked = |name: &str| dir.join(name).exists();
        if marked("removed") {
            self.count("removed members", 1);
            self.set_fate(node, Fate::Removed);
        } else if marked("quarantined") {
            self.set_fate(node, Fate::Damaged);
            witness::accuse(Violation::new("members agree", format!("member {node}: {why}")));
        } else if !excused {
            witness::accuse(Violation::new(
                "members serve",
                format!("member {node} stopped: {why}"),
            ));
        }
        self.count("stops", 1);
        let down = random(|random| random.random_range(50..1_000));
        self.crash(node, false, Some(down));
    }

    fn set_fate(&self, node: Node, fate: Fate) {
        if let Some(host) = self.hosts().get_mut(&node) {
            host.fate = fate;
        }
    }

    fn did_not_start(self: &Arc<Self>, node: Node, error: OpenError) {
        let (damaged, excused) = {
            let hosts = self.hosts();
            hosts.get(&node).map_or((false, false), |host| (host.damaged, host.excused))
        };
        match error {
            OpenError::Removed { .. } => self.set_fate(node, Fate::Removed),
            OpenError::Damaged { .. } if damaged => self.set_fate(node, Fate::Damaged),
            OpenError::Quarantined { .. } => self.set_fate(node, Fate::Damaged),
            _ if excused => self.crash(node, false, Some(100)),
            other => {
                let what = format!("member {node} refuses to start: {other}");
                witness::accuse(Violation::new("members start", what));
                self.set_fate(node, Fate::Damaged);
            }
        }
    }

    /// Ends the member of a machine, with the machine if `power`; it comes back after `down` ms.
    pub(super) fn crash(self: &Arc<Self>, node: Node, power: bool, down: Option<u64>) {
        let (running, log, start) = {
            let mut hosts = self.hosts();
            let Some(host) = hosts.get_mut(&node) else { return };
            host.dark |= power;
            if power {
                forget_mark(&host.dir);
            }
            (host.running.take(), host.log.clone(), host.starts)
        };
        scheduler::kill(node);
        drop(running);
        match power {
            true => log.power_cut(),
            false => log.killed(),
        }
        self.count(if power { "power cuts" } else { "kills" }, 1);
        let Some(down) = down else { return };
        let world = self.clone();
        spawn_on(WORLD, async move {
            Sleep::ms(down).await;
            let again = world.hosts().get(&node).is_some_and(|host| host.starts == start);
            if again {
                world.start(node);
            }
        });
    }

    /// Cuts the power, and what was on the disk's end is gone too.
    pub(super) fn damage(self: &Arc<Self>, node: Node, entries: usize) {
        self.crash(node, true, None);
        if let Some(host) = self.hosts().get_mut(&node) {
            let mark = Mark::open(&host.dir.join(FLUSHED));
            let marked = mark.map_or(0, |mark| mark.current().index);
            host.damaged |= host.log.lose_tail(entries, marked);
        }
        self.start(node);
    }

    /// Everything works again.
    pub(super) fn heal(self: &Arc<Self>) {
        *self.weather() = Weather::default();
        self.dying.store(0, Ordering::Relaxed);
        self.contested.store(false, Ordering::Relaxed);
        scheduler::resume_all();
        for node in self.nodes() {
            self.fill_disk(node, false);
            if let Some(health) = self.health(node) {
                health.slow_for(0);
            }
            self.start(node);
        }
    }

    /// Ends everything and lets go of it, so that nothing keeps itself alive.
    pub(super) fn clear(&self) {
        self.nodes().into_iter().for_each(scheduler::kill);
        scheduler::kill(WORLD);
        let hosts = std::mem::take(&mut *self.hosts());
        let lost = hosts.values().map(|host| host.log.lost()).sum();
        self.count("writes lost in power cuts", lost);
        drop(hosts);
        let _ = fs::remove_dir_all(self.dir.path());
    }
}
