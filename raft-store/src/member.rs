//! One member of the group: its parts, started in order and stopped in order.

#[cfg(test)]
use crate::mutants::{self, Mutant};
use crate::{
    backup,
    barrier::{self, Barriers},
    codec,
    config::{Config, OpenError, OwnTls, Peer, Retention, Timers},
    disk::StateDisk,
    durable,
    founding::{self, Founder, Introduce},
    hub::RingLimits,
    inbox::Inbox,
    levels::{self, Raising},
    members::{Leadership, MemberStatus},
    membership,
    metrics::Metrics,
    peers::{Hints, Peers, Statuses},
    proposer::Proposer,
    quarantine,
    questions::{Answer, Answers},
    raft::{
        self, LogId, Payload, Raft, index_of,
        log::{FLUSHED, Log, Promises, mark::MarkSync},
        machine::{Dirs, Machine, disk_now},
        network::{self, Link, Links},
        read_index::ReadIndex,
        server::{self, Service},
        term_of,
        wire::{Dial, Grpc},
    },
    room::{Disk, Measuring, Room},
    roster::Roster,
    seal::Unopened,
    shared::Shared,
    state::Session,
    state_engine::{Engines, rocks},
    steward::{self, MemberError, Steward},
    succession::{Signs, Succession},
    time::{Alarm, Instant, Ticks, blocking, sleep, timeout, timeout_at},
    types::{Cluster, Error, MemberId, Revision, Term},
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use openraft::async_runtime::WatchReceiver as _;
use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How often retention, metrics and sweeping have their turn.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// Revisions swept per turn, in steps: about 40,000 per second at most, a fraction of a core.
const SWEEP_STEP: u64 = 2_000;
const SWEEP_STEPS_MAX: usize = 20;
/// Each member in the order of ids waits this many election timeouts longer before it starts the
/// group, so that normally the first does.
const BOOTSTRAP_STEP: u32 = 3;

/// In the data directory: whose it is.
pub(crate) const OWNER: &str = "member";

/// A running member.
pub(crate) struct Member {
    id: MemberId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Metrics,
    raft: Raft,
    timers: Timers,
    proposer: Arc<Proposer>,
    barriers: Barriers,
    leadership: watch::Receiver<Leadership>,
    answers: Answers,
    steward: Steward,
    stopping: CancellationToken,
    #[cfg(test)]
    pub(crate) read_index: ReadIndex,
    /// Whose files must be closed at the end.
    disk: Mutex<Option<Arc<Mutex<Arc<StateDisk>>>>>,
    parts: Mutex<Option<Parts>>,
}

/// What has to end before the disk may be opened again.
struct Parts {
    tasks: JoinSet<()>,
    server: tokio::task::JoinHandle<()>,
    writer: thread::JoinHandle<()>,
}

/// What the tasks of a member need.
#[derive(Clone)]
struct Context {
    id: MemberId,
    raft: Raft,
    shared: Arc<Shared>,
    metrics: Metrics,
    links: Links,
    timers: Timers,
    retention: Retention,
    disk: Arc<Mutex<Arc<StateDisk>>>,
    leadership: watch::Receiver<Leadership>,
    promises: Promises,
}

/// What runs a member, each for as long as the member does.
pub(crate) type Work = Vec<BoxFuture<'static, ()>>;

/// A member with everything that is to be run for it.
pub(crate) struct Assembled {
    pub(crate) member: Arc<Member>,
    /// Answers its peers.
    pub(crate) service: Service,
    pub(crate) work: Work,
    /// The same, but better run where those are who read: no thread of Raft is woken for them then.
    pub(crate) reads: BoxFuture<'static, ()>,
}

impl Member {
    /// Starts one on the threads of whoever calls; `users` have theirs.
    pub(crate) async fn open(config: Config, users: Handle) -> Result<Arc<Member>, OpenError> {
        let metrics = Metrics::new(&config.registry);
        let metrics = metrics.map_err(|error| OpenError::Config(format!("metrics: {error}")))?;
        validate(&config)?;
        let listener = server::listen(config.listen).await?;
        let (opened, writer) = open_disks(&config, &metrics).await?;
        let tls = config.tls.clone();
        let dial = Arc::new(Grpc::new(&config, Introduce::new(&opened.shared)));
        let name = Cluster::new(1);
        let Assembled { member, service, work, reads } =
            Member::assemble(config, metrics, opened, dial, name).await?;
        let server = tokio::spawn(serve(listener, tls, service));
        let mut tasks = JoinSet::new();
        for each in work {
            tasks.spawn(each);
        }
        tasks.spawn_on(reads, &users);
        let parts = Parts { tasks, server, writer };
        *member.parts.lock().expect("only taken") = Some(parts);
        Ok(member)
    }

    /// Puts a member together from its disks and what connects it to the others; nothing of it runs
    /// yet. `name` is what it calls the cluster if it is to say so.
    pub(crate) async fn assemble(
        config: Config,
        metrics: Metrics,
        opened: Opened,
        dial: Arc<dyn Dial>,
        name: Cluster,
    ) -> Result<Assembled, OpenError> {
        let me = validate(&config)?;
        let settings = raft::settings(&config)?;
        let Opened { shared, machine, dirs, mut log } = opened;
        let (disk, applied, roster) = (machine.disk(), machine.applied_id(), machine.roster());
        let (done, path) = (*applied.borrow(), config.data_dir.join("log"));
        let broken = |source| OpenError::Disk { path, source };
        log.cut_superseded(done).await.map_err(broken)?;
        let (mark, promises) = (log.mark(), log.promises());
        let links = Links::new(dial, config.timers, metrics.clone());
        let raft = Raft::new(config.member.0, settings, links.clone(), log, machine).await;
        let raft = raft.map_err(|error| OpenError::Raft(error.to_string()))?;
        let (announce, leadership) = watch::channel(Leadership::default());
        let context = Context {
            id: config.member,
            raft: raft.clone(),
            shared: shared.clone(),
            metrics: metrics.clone(),
            links,
            timers: config.timers,
            retention: config.retention,
            disk: disk.clone(),
            leadership: leadership.clone(),
            promises,
        };
        let steward = context.steward(&config, me, roster);
        let service = context.service(&config, &steward, dirs);
        let proposer = proposer(&config, &shared, &metrics, &leadership, &service.signs);
        let (barriers, callers) = Barriers::new(config.timers.request);
        let member = Member {
            id: config.member,
            shared,
            metrics: metrics.clone(),
            raft: raft.clone(),
            timers: config.timers,
            proposer: proposer.clone(),
            barriers,
            leadership,
            answers: service.answers.clone(),
            steward: steward.clone(),
            stopping: service.stopping.clone(),
            #[cfg(test)]
            read_index: context.read_index(),
            disk: Mutex::new(Some(disk)),
            parts: Mutex::new(None),
        };
        let measuring = measuring(&config.disk, &steward, &metrics);
        let (inbox, hints) = (service.inbox.clone(), service.hints.clone());
        let work = vec![
            Peers::new(hints, &steward, &metrics).run().boxed(),
            steward.run().boxed(),
            measuring.run().boxed(),
            context.clone().keep(mark).boxed(),
            context.clone().track_leadership(applied, announce).boxed(),
            inbox.clone().run(raft, metrics).boxed(),
            context.succession(service.signs.clone()).run().boxed(),
            context.clone().propose(proposer, inbox).boxed(),
            context.clone().upkeep().boxed(),
            context.raising().run().boxed(),
            context.clone().begin(config.initial_members, config.joins, name).boxed(),
        ];
        let reads = context.read_indexes(callers).boxed();
        Ok(Assembled { member: Arc::new(member), service, work, reads })
    }

    pub(crate) async fn txn(&self, txn: crate::Txn) -> Result<crate::Committed, Error> {
        let timer = self.metrics.txn_seconds.start_timer();
        let result = match self.admit(&txn).await {
            Ok(()) => self.proposer.propose(txn).await,
            Err(refused) => Err(refused),
        };
        timer.observe_duration();
        self.metrics.count(&result);
        result
    }

    /// Whether there is room for it, and everybody can read it.
    async fn admit(&self, txn: &crate::Txn) -> Result<(), Error> {
        self.steward.room.admit(txn)?;
        levels::reached(&self.shared, codec::version_for(txn)).await
    }

    pub(crate) async fn barrier(&self) -> Result<Revision, Error> {
        #[cfg(test)]
        if mutants::on(Mutant::StaleRead) {
            return Ok(self.shared.position().revision);
        }
        tokio::select! {
            biased;
            error = self.shared.until_stopped() => Err(error),
            done = self.barriers.wait() => done,
        }
    }

    pub(crate) fn answer(&self, topic: &'static str, answer: Answer) {
        self.answers.set(topic, answer);
    }

    /// `None`: no answer in time.
    pub(crate) async fn ask(&self, of: MemberId, topic: &str, question: Bytes) -> Option<Bytes> {
        let link = self.steward.links.to_member(&self.raft, of.0)?;
        network::ask(&link, topic, question, self.timers.election_max * 2).await
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    pub(crate) async fn compact(&self, to: Revision) -> Result<(), Error> {
        let deadline = Instant::now() + self.timers.request;
        // Only a leader proposes compaction; on others it is the leader's own that counts.
        let mut leadership = self.leadership.clone();
        let leading = leadership.wait_for(|leadership| leadership.leader.is_some());
        let leading = timeout_at(deadline, leading).await;
        let unavailable = Error::Unavailable { unknown: true };
        let leading = leading.map_err(|_| unavailable.clone())?.map(|l| l.leading.is_some());
        if !leading.unwrap_or(false) {
            return Err(Error::Unavailable { unknown: false });
        }
        let written = self.raft.client_write(Payload(codec::encode_compact(to)));
        match timeout_at(deadline, written).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(unavailable),
        }
    }

    /// Begins a backup of what this member has; see `backup`.
    pub(crate) async fn backup(
        &self,
        now: u64,
        since: Option<backup::Since>,
    ) -> Result<backup::Taken, backup::Error> {
        let confirmed = match self.barrier().await {
            Ok(revision) => Some(revision),
            Err(Error::Stopped(why)) => return Err(Error::Stopped(why).into()),
            Err(_) => None,
        };
        let disk = self.disk.lock().expect("only taken").as_deref().map(disk_now);
        let disk = disk.ok_or_else(|| Error::Stopped("shut down".into()))?;
        let cluster = self.shared.cluster().get().cloned();
        let cluster = cluster.ok_or(backup::Error::Unnamed)?;
        let member = |member: MemberStatus| backup::Member {
            id: member.id,
            voter: member.voter,
            peer: Peer {
                name: member.name,
                peer_address: member.peer_address,
                api_address: member.api_address,
            },
        };
        let members = self.members().into_iter().map(member).collect();
        let keys = disk.seal().keys();
        let facts = backup::Facts { cluster, member: self.id, members, keys, now, confirmed };
        backup::take(disk, facts, since).await
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let mut raft = self.raft.metrics();
        let applied = index_of(&raft.borrow_watched().last_applied);
        let stopped = || Error::Stopped("Raft has stopped".into());
        // Raft does not wait for one that asks for what is there, and has a queue without an end.
        if index_of(&raft.borrow_watched().snapshot) < applied {
            self.raft.trigger().snapshot().await.map_err(|_| stopped())?;
        }
        while index_of(&raft.borrow_watched().snapshot) < applied {
            raft.changed().await.map_err(|_| stopped())?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> &Room {
        &self.steward.room
    }

    #[cfg(test)]
    pub(crate) fn raft_metrics(&self) -> raft::Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(crate) fn id(&self) -> MemberId {
        self.id
    }

    pub(crate) fn members(&self) -> Vec<MemberStatus> {
        let raft = self.raft.metrics().borrow_watched().clone();
        let leadership = *self.leadership.borrow();
        let peers = self.steward.statuses.all();
        let membership = raft.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let status = |(id, peer): (&u64, &Peer)| {
            let own = MemberId(*id) == self.id;
            let heard = peers.get(id);
            let applied = heard.map(|status| Revision(status.applied_revision));
            let term = heard.map_or(Term(0), |status| Term(status.term));
            MemberStatus {
                id: MemberId(*id),
                name: peer.name.clone(),
                peer_address: peer.peer_address.clone(),
                api_address: peer.api_address.clone(),
                leader: leadership.leader == Some(MemberId(*id)),
                voter: voters.contains(id),
                term: if own { leadership.term } else { term },
                applied: if own { Some(self.shared.position().revision) } else { applied },
                reachable: own || heard.is_some(),
            }
        };
        membership.nodes().map(status).collect()
    }

    /// A change of the members, or of the leader; for which member it was made.
    pub(crate) async fn change(
        &self,
        request: membership::Request,
    ) -> Result<MemberId, MemberError> {
        self.steward.ask(&request).await
    }

    /// What this member itself makes of a request, leader or not.
    #[cfg(test)]
    pub(crate) async fn execute(&self, request: &membership::Request) -> steward::Answer {
        self.steward.execute(request).await
    }

    /// Hands leadership over, if it has it and another can take it.
    pub(crate) async fn hand_over(&self) {
        if self.leadership.borrow().leading.is_none() {
            return;
        }
        let answer = self.steward.execute(&membership::Request::Transfer { to: None }).await;
        if !matches!(answer, steward::Answer::Done(_)) {
            tracing::info!(?answer, "leadership was not handed over");
        }
    }

    /// Stops everything and lets go of the disk. `gracefully`: leadership is handed over first.
    pub(crate) async fn stop(&self, gracefully: bool, reason: &str) {
        if gracefully {
            self.hand_over().await;
        }
        self.shared.stop(reason);
        self.stopping.cancel();
        let parts = self.parts.lock().expect("only taken").take();
        let disk = self.disk.lock().expect("only taken").take();
        let (Some(Parts { mut tasks, server, writer }), Some(disk)) = (parts, disk) else { return };
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly");
        }
        tasks.shutdown().await;
        let abort = server.abort_handle();
        if timeout(Duration::from_secs(2), server).await.is_err() {
            abort.abort();
        }
        self.shared.clear_history();
        let open = disk_now(&disk).while_open();
        drop(disk);
        let ended = async {
            while open.strong_count() > 0 || !writer.is_finished() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(Duration::from_secs(10), ended).await.is_err() {
            tracing::warn!("the disk is still in use");
        }
        tracing::info!(reason, member = %self.steward.own.name, "stopped");
    }
}

impl Drop for Member {
    /// Whoever lets a member go without stopping it leaves no task behind.
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// Checks the configuration; this member's own entry.
fn validate(config: &Config) -> Result<Peer, OpenError> {
    let timers = &config.timers;
    if timers.heartbeat * 2 > timers.election_min || timers.election_min >= timers.election_max {
        let detail = "timers: twice the heartbeat must fit into the shortest election timeout, \
                      and that must be below the longest";
        return Err(OpenError::Config(detail.into()));
    }
    let mut ids: Vec<_> = config.initial_members.iter().map(|(id, _)| *id).collect();
    ids.sort();
    ids.dedup();
    if ids.len() != config.initial_members.len() {
        return Err(OpenError::Config("initial members: an id appears twice".into()));
    }
    let me = config.initial_members.iter().find(|(id, _)| *id == config.member);
    let missing = || OpenError::Config("initial members: this member is not among them".into());
    me.map(|(_, peer)| peer.clone()).ok_or_else(missing)
}

/// The directory belongs to one member for ever.
fn claim(dir: &Path, member: MemberId) -> Result<(), OpenError> {
    let disk = |source| OpenError::Disk { path: dir.into(), source };
    fs::create_dir_all(dir).map_err(disk)?;
    if let Some(why) = steward::why_removed(dir).map_err(disk)? {
        return Err(OpenError::Removed { why, path: dir.into() });
    }
    let Some(text) = durable::read(dir, OWNER).map_err(disk)? else {
        return durable::write(dir, OWNER, &format!("{member}\n")).map_err(disk);
    };
    let found = text.parse().map(MemberId).map_err(|_| OpenError::Damaged {
        file: dir.join(OWNER),
        offset: 0,
        detail: "no member id".into(),
    })?;
    match found == member {
        true => Ok(()),
        false => Err(OpenError::OtherMember { path: dir.into(), found, asked: member }),
    }
}

async fn serve(listener: tokio::net::TcpListener, tls: OwnTls, service: Service) {
    let shared = service.shared.clone();
    if let Err(error) = server::serve(listener, tls, service).await {
        shared.stop(&format!("peer server: {error}"));
    }
}

/// What a member holds on its disks.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) machine: Machine,
    pub(crate) dirs: Dirs,
    pub(crate) log: Log,
}

fn proposer(
    config: &Config,
    shared: &Arc<Shared>,
    metrics: &Metrics,
    leadership: &watch::Receiver<Leadership>,
    signs: &Signs,
) -> Arc<Proposer> {
    let (timers, seal) = (&config.timers, config.seal.clone());
    let (shared, leadership) = (shared.clone(), leadership.clone());
    Arc::new(Proposer::new(shared, metrics.clone(), leadership, timers, signs.clone(), seal))
}

fn measuring(disk: &Disk, steward: &Steward, metrics: &Metrics) -> Measuring {
    Measuring { disk: disk.clone(), steward: steward.clone(), metrics: metrics.clone() }
}

/// Reads the state of the member whose directory this is. `session` is never used again.
pub(crate) fn open_state(
    config: &Config,
    metrics: &Metrics,
    engines: Arc<dyn Engines>,
    session: Session,
) -> Result<(Arc<Shared>, Machine, Dirs), OpenError> {
    claim(&config.data_dir, config.member)?;
    quarantine::check(&config.data_dir)?;
    let dirs = Dirs::new(config.data_dir.join("state"), engines);
    let disk = |source| OpenError::Disk { path: config.data_dir.join("state"), source };
    let dir = dirs.prepare().map_err(disk)?;
    let explained = |error| explain(&dir, error);
    let state_disk = dirs.open(&dir, config.seal.clone()).map_err(explained)?;
    let state = state_disk.load().map_err(explained)?;
    let (retention, level) = (&config.retention, state.level());
    let ring = RingLimits { changes: retention.ring_changes, bytes: retention.ring_bytes };
    let shared = Shared::new(session, state, Some(ring));
    #[cfg(test)]
    let shared = shared.knowing(config.knows);
    let shared = Arc::new(shared);
    if let Err(why) = levels::known(level, shared.knows()) {
        return Err(OpenError::Unreadable { path: dir, why });
    }
    let machine = Machine::new(shared.clone(), dirs.clone(), state_disk, metrics.clone());
    let machine = machine.map_err(explained)?;
    Ok((shared, machine, dirs))
}

/// Why a state is not opened: damaged is only what is not as it was written.
fn explain(dir: &Path, error: io::Error) -> OpenError {
    let unopened = error.get_ref().and_then(|inner| inner.downcast_ref::<Unopened>());
    match (unopened, error.kind()) {
        (Some(why), _) => OpenError::Unreadable { path: dir.into(), why: why.to_string() },
        (None, io::ErrorKind::InvalidData) => {
            let detail = format!("{error}; remove this member and let it join under a new id");
            OpenError::Damaged { file: dir.into(), offset: 0, detail }
        }
        (None, _) => OpenError::Disk { path: dir.into(), source: error },
    }
}

/// Removes what a member keeps in its directory, so that another one can begin there. Only for data
/// that can never be served again: see [`OpenError::Damaged`].
pub fn discard(data_dir: &Path) -> io::Result<()> {
    for name in ["log", "state"] {
        durable::remove_tree(&data_dir.join(name))?;
    }
    // Whose it was goes last: until then it is nobody else's.
    for name in [FLUSHED, steward::REMOVED, quarantine::FILE, OWNER] {
        durable::remove(data_dir, name)?;
    }
    Ok(())
}

async fn open_disks(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Opened, thread::JoinHandle<()>), OpenError> {
    let (config, metrics) = (config.clone(), metrics.clone());
    let open = move || {
        let session = Session(rand::random());
        let (shared, machine, dirs) = open_state(&config, &metrics, rocks(), session)?;
        let failing = shared.clone();
        let failed = Box::new(move |error: &io::Error| failing.stop(&format!("log: {error}")));
        let (log, writer) = Log::open(&config.data_dir, &metrics, failed)?;
        Ok((Opened { shared, machine, dirs, log }, writer))
    };
    match blocking(open).await {
        Ok(opened) => opened,
        Err(error) => Err(OpenError::Raft(error.to_string())),
    }
}

impl Context {
    /// Until it cannot be kept.
    async fn keep(self, mark: MarkSync) {
        let error = mark.run().await;
        self.shared.stop(&format!("log: {error}"));
    }

    /// What others may know about leadership, from Raft's own view and what is applied here.
    async fn track_leadership(
        self,
        mut applied: watch::Receiver<Option<LogId>>,
        announce: watch::Sender<Leadership>,
    ) {
        let mut raft = self.raft.metrics();
        // A leader cut off from the others hears of no new term: it must notice the time itself.
        let mut tick = Ticks::every(self.timers.heartbeat * 2);
        loop {
            let seen = {
                let now = raft.borrow_watched();
                let seen = self.leadership_in(&now, *applied.borrow_and_update());
                now.running_state.clone().map(|()| seen)
            };
            let seen = match seen {
                Ok(seen) => seen,
                Err(fatal) => {
                    self.shared.stop(&format!("Raft: {fatal}"));
                    announce.send_modify(|leadership| leadership.leading = None);
                    return;
                }
            };
            announce.send_if_modified(|known| {
                let changed = *known != seen;
                if changed && known.leader != seen.leader && seen.leader.is_some() {
                    self.metrics.leader_changes.inc();
                }
                *known = seen;
                changed
            });
            self.metrics.term.set(seen.term.0 as i64);
            self.metrics.is_leader.set(i64::from(seen.leading.is_some()));
            tokio::select! {
                biased;
                changed = raft.changed() => if changed.is_err() { return self.raft_is_gone(&announce) },
                changed = applied.changed() => if changed.is_err() { return self.raft_is_gone(&announce) },
                _ = tick.tick() => {}
            }
        }
    }

    fn raft_is_gone(&self, announce: &watch::Sender<Leadership>) {
        announce.send_modify(|leadership| leadership.leading = None);
        self.shared.stop("Raft has stopped");
    }

    fn leadership_in(&self, raft: &raft::Metrics, applied: Option<LogId>) -> Leadership {
        let term = raft.current_term;
        let own_entry_applied = applied.is_some_and(|id| term_of(&id) == term);
        let alone = raft.membership_config.voter_ids().count() <= 1;
        let acknowledged = raft.last_quorum_acked.as_ref().map(|acked| raft::since(acked));
        let cut_off = !alone && acknowledged.is_none_or(|ago| ago > self.timers.election_max * 2);
        let leads = raft.state.is_leader() && own_entry_applied && !cut_off;
        Leadership {
            term: Term(term),
            leader: raft.current_leader.map(MemberId),
            leading: leads.then_some(Term(term)),
        }
    }

    fn link_to(&self, id: u64) -> Option<Link> {
        self.links.to_member(&self.raft, id)
    }

    fn succession(&self, signs: Signs) -> Succession {
        Succession {
            id: self.id,
            raft: self.raft.clone(),
            links: self.links.clone(),
            timers: self.timers,
            leadership: self.leadership.clone(),
            signs,
        }
    }

    fn raising(&self) -> Raising {
        Raising {
            raft: self.raft.clone(),
            links: self.links.clone(),
            shared: self.shared.clone(),
            leadership: self.leadership.clone(),
            own: self.id,
        }
    }

    fn steward(&self, config: &Config, own: Peer, roster: watch::Receiver<Roster>) -> Steward {
        Steward {
            id: self.id,
            own,
            data_dir: config.data_dir.clone(),
            raft: self.raft.clone(),
            shared: self.shared.clone(),
            links: self.links.clone(),
            timers: self.timers,
            leadership: self.leadership.clone(),
            roster,
            statuses: Statuses::default(),
            awaited: Arc::default(),
            room: Arc::new(Room::new(config.disk.reserve)),
        }
    }

    fn service(&self, config: &Config, steward: &Steward, dirs: Dirs) -> Service {
        Service {
            raft: self.raft.clone(),
            inbox: Inbox::default(),
            shared: self.shared.clone(),
            leadership: self.leadership.clone(),
            dirs,
            steward: steward.clone(),
            hints: Hints::new(config),
            signs: Signs::default(),
            answers: Answers::default(),
            stopping: CancellationToken::new(),
            read_index: self.read_index(),
        }
    }

    async fn propose(self, proposer: Arc<Proposer>, inbox: Inbox) {
        let me = self.id;
        proposer.run(me, inbox, move |leader| self.link_to(leader.0)).await;
    }

    fn read_index(&self) -> ReadIndex {
        ReadIndex {
            own: self.id,
            raft: self.raft.clone(),
            links: self.links.clone(),
            shared: self.shared.clone(),
            promises: self.promises.clone(),
            leadership: self.leadership.clone(),
            deadline: self.timers.election_max,
        }
    }

    /// Holds nothing of the disk: whoever stops the member waits for that.
    fn read_indexes(
        &self,
        callers: mpsc::Receiver<barrier::Caller>,
    ) -> impl Future<Output = ()> + use<> {
        let (shared, metrics) = (self.shared.clone(), self.metrics.clone());
        let (pause, late) = (self.timers.heartbeat / 2, Alarm::default());
        let reads = self.read_index().elsewhere();
        async move { barrier::run(callers, shared, metrics, pause, || reads.find(&late)).await }
    }

    /// Compaction, snapshots, sweeping, metrics.
    async fn upkeep(self) {
        let mut tick = Ticks::every(UPKEEP_EVERY);
        let Some(mut ages) = self.with_disk(StateDisk::ages).await else { return };
        let (before, begun) = (ages.until(), Instant::now());
        let mut flushed = begun;
        loop {
            tick.tick().await;
            let (revision, floor) = {
                let core = self.shared.read();
                (core.state.revision(), core.state.floor())
            };
            self.report(floor);
            if ages.note(before + begun.elapsed(), revision, &self.retention) {
                let noted = ages.clone();
                if self.with_disk(move |disk| disk.note_ages(&noted)).await.is_none() {
                    return;
                }
            }
            let target = ages.target(revision, &self.retention);
            if self.leadership.borrow().leading.is_some()
                && let Some(target) = target.filter(|target| *target > floor)
            {
                let payload = Payload(codec::encode_compact(target));
                if let Err(fatal) = self.raft.client_write_ff(payload, None).await {
                    tracing::warn!(%fatal, "Raft has stopped");
                    return;
                }
            }
            if self.flush_is_due(flushed) {
                flushed = Instant::now();
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            self.sweep(floor).await;
        }
    }

    fn flush_is_due(&self, flushed: Instant) -> bool {
        let raft = self.raft.metrics().borrow_watched().clone();
        let behind = index_of(&raft.last_applied).saturating_sub(index_of(&raft.snapshot));
        let late = flushed.elapsed() >= self.retention.flush && behind > 0;
        late || behind > self.retention.log_entries
    }

    async fn sweep(&self, floor: Revision) {
        for _ in 0..SWEEP_STEPS_MAX {
            match self.with_disk(move |disk| disk.sweep(floor, SWEEP_STEP)).await {
                None | Some(0) => return,
                Some(_) => {}
            }
        }
    }

    /// What the disk says. `None`: the member stops, and why was said.
    async fn with_disk<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&StateDisk) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let disk = disk_now(&self.disk);
        match blocking(move || ask(&disk)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                self.shared.stop(&format!("state: {error}"));
                None
            }
            Err(_) => None,
        }
    }

    fn report(&self, floor: Revision) {
        let raft = self.raft.metrics().borrow_watched().clone();
        let index = |id| index_of(id) as i64;
        let metrics = &self.metrics;
        metrics.last_log_index.set(raft.last_log_index.unwrap_or(0) as i64);
        metrics.committed_index.set(index(&raft.local_committed));
        metrics.applied_index.set(index(&raft.last_applied));
        metrics.snapshot_index.set(index(&raft.snapshot));
        metrics.purged_index.set(index(&raft.purged));
        metrics.compacted_revision.set(floor.0 as i64);
        let core = self.shared.read();
        metrics.revision.set(core.state.revision().0 as i64);
        metrics.level.set(core.state.level().into());
        metrics.watchers.set(core.hub.watchers() as i64);
        for (space, objects) in core.state.spaces() {
            metrics.objects.with_label_values(&[&*space]).set(objects as i64);
        }
    }

    /// Sees to it that there is a group, and that it is known which.
    async fn begin(self, initial: Vec<(MemberId, Peer)>, joins: bool, name: Cluster) {
        if !joins {
            self.clone().bootstrap(initial).await;
        }
        let Context { id: own, raft, links, shared, leadership, .. } = self;
        Founder { raft, links, shared, leadership, own, name }.run().await;
    }

    /// Starts the group, if nobody has: all members would start the same one.
    async fn bootstrap(self, initial: Vec<(MemberId, Peer)>) {
        let before = initial.iter().filter(|(id, _)| *id < self.id).count() as u32;
        let patience = self.timers.election_max * BOOTSTRAP_STEP * before;
        let mut raft = self.raft.metrics();
        let begun = async {
            while raft.borrow_watched().membership_config.log_id().is_none() {
                if raft.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(patience, begun).await.is_ok() && before > 0 {
            return;
        }
        if !matches!(self.raft.is_initialized().await, Ok(false)) {
            return;
        }
        let others = initial.iter().filter(|(id, _)| *id != self.id).cloned().collect::<Vec<_>>();
        if let Some((peer, cluster)) =
            founding::known_to(&self.links, &others, self.timers.election_max).await
        {
            // If this member is in it, it will hear from its leader.
            tracing::warn!(peer, %cluster, "there is a group already, none is started; if this member \
                is not in it, let it join");
            return;
        }
        let members: BTreeMap<u64, Peer> =
            initial.into_iter().map(|(id, peer)| (id.0, peer)).collect();
        tracing::info!(members = members.len(), "starting the group");
        if let Err(error) = self.raft.initialize(members).await {
            tracing::info!(%error, "the group was started by another member");
        }
    }
}
