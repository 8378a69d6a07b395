//! Who uses the store: writers that note what they were told, readers, and watchers that go on
//! elsewhere when a member is gone.

use super::{
    scheduler::{Node, Sleep, now_ns, one_in, random, spawn_on},
    witness::{self, event, name, text},
    world::World,
};
use crate::{Error, Guard, Key, Op, Revision, Store, Txn, Write, backup};
use chaos::{
    Violation,
    history::{self, Told, What},
    watched::Seen,
};
use rand::Rng;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// What everybody fights over.
const SPACE: &str = "kv";
const KEYS: u64 = 10;

/// Has a running member do something for a client; `None` if it died over it, or the client left.
async fn ask<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    world: &Arc<World>,
    node: Node,
    what: impl FnOnce(Store) -> F,
) -> Option<T> {
    let store = world.store(node)?;
    let (sender, answer) = oneshot::channel();
    let doing = what(store);
    // A client that leaves takes its request with it.
    let impatient = one_in(30).then(|| random(|random| random.random_range(1..300)));
    spawn_on(node, async move {
        let leaving = async {
            match impatient {
                Some(ms) => Sleep::ms(ms).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = doing => drop(sender.send(done)),
            () = leaving => {}
        }
    });
    answer.await.ok()
}

fn any_node(world: &World) -> Option<Node> {
    let stores = world.stores();
    let n = random(|random| random.random_range(0..stores.len().max(1)));
    stores.get(n).map(|(node, _)| *node)
}

/// One client, until the end.
pub(super) async fn client(world: Arc<World>, id: u64) {
    let mut client = Client { world, id, next: 0, known: BTreeMap::new() };
    while !client.world.is_over() {
        Sleep::ms(random(|random| random.random_range(1..80))).await;
        let Some(node) = any_node(&client.world) else { continue };
        match random(|random| random.random_range(0..100)) {
            0..45 => client.write(node, None).await,
            45..57 => client.write_as_leader(node).await,
            57..78 => client.read(node, true).await,
            78..90 => client.read(node, false).await,
            _ => client.read_the_past(node).await,
        }
    }
}

struct Client {
    world: Arc<World>,
    id: u64,
    next: u64,
    /// What it last saw of each key.
    known: BTreeMap<String, u64>,
}

/// A write, and what it will be remembered as.
struct Tried {
    write: Write,
    guard: history::Guard,
    value: Option<String>,
}

impl Client {
    fn draw(&mut self) -> Tried {
        let path = format!("k{}", random(|random| random.random_range(0..KEYS)));
        let key = Key::new(SPACE, path);
        let known = self.known.get(&name(&key)).copied();
        let (guard, remembered) = match (random(|random| random.random_range(0..4)), known) {
            (0, _) => (Guard::Any, history::Guard::Nothing),
            (1, _) | (_, None) => (Guard::Absent, history::Guard::Absent),
            (_, Some(at)) => (Guard::At(Revision(at)), history::Guard::At(at)),
        };
        let delete = one_in(5) && guard != Guard::Absent;
        self.next += 1;
        let value = (!delete).then(|| format!("{}.{}", self.id, self.next));
        let op = match &value {
            Some(value) => Op::Put(value.clone().into()),
            None => Op::Delete,
        };
        Tried { write: Write { key, guard, op }, guard: remembered, value }
    }

    fn remember(&self, called: u64, what: What) {
        let op = history::Op { client: self.id, called, returned: now_ns(), what };
        self.world.ops.lock().expect("never held across a panic").push(op);
    }

    /// One to three writes in a transaction.
    async fn write(&mut self, node: Node, fence: Option<crate::Term>) {
        let mut tried = vec![self.draw()];
        while one_in(5) && tried.len() < 3 {
            let more = self.draw();
            if tried.iter().all(|it| it.write.key != more.write.key) {
                tried.push(more);
            }
        }
        let mut writes: Vec<Write> = tried.iter().map(|it| it.write.clone()).collect();
        let one_revision = one_in(4);
        if one_in(40) {
            // Much at once; what is deleted needs no one to remember it.
            let (key, guard) = (Key::new(SPACE, "k3"), Guard::Any);
            writes.push(Write { key, guard, op: Op::DeleteUntil(Some("k6".into())) });
        }
        let (txn, called) = (Txn { writes, fence, one_revision }, now_ns());
        let transaction = self.next;
        let answer = ask(&self.world, node, |store| async move { store.txn(txn).await }).await;
        let (count, told): (_, Vec<Told>) = match answer {
            Some(Ok(done)) => ("writes", done.revisions.iter().map(|r| at(*r)).collect()),
            Some(Err(Error::Unavailable { unknown: true } | Error::Stopped(_))) | None => {
                ("writes unknown", vec![Told::Unknown; tried.len()])
            }
            Some(Err(error)) => (refusal(&error), vec![Told::Refused; tried.len()]),
        };
        self.world.count(count, 1);
        for (Tried { write, guard, value }, told) in tried.into_iter().zip(told) {
            let key = name(&write.key);
            match &told {
                Told::Done(Some(revision)) if value.is_some() => {
                    self.known.insert(key.clone(), *revision);
                }
                // Better to look again.
                _ if one_in(2) => drop(self.known.remove(&key)),
                _ => {}
            }
            let fence = fence.map(|term| term.0);
            self.remember(called, What::Write { key, value, guard, fence, transaction, told });
        }
    }

    /// As a leader's controllers do: they may be slow, and another may lead meanwhile.
    async fn write_as_leader(&mut self, node: Node) {
        let node = self.world.leader().unwrap_or(node);
        let Some(store) = self.world.store(node) else { return };
        let term = store.leadership().borrow().leading;
        let Some(term) = term else { return };
        drop(store);
        if one_in(2) {
            Sleep::ms(random(|random| random.random_range(0..1_500))).await;
        }
        let node = if one_in(3) { any_node(&self.world).unwrap_or(node) } else { node };
        self.write(node, Some(term)).await;
    }

    async fn read(&mut self, node: Node, linearizable: bool) {
        let (prefix, called) = (prefix(), now_ns());
        let path = prefix.clone();
        let read = ask(&self.world, node, |store| async move {
            if linearizable {
                store.barrier().await?;
            }
            Ok::<_, Error>(store.range(SPACE, &path, None, None))
        });
        match read.await {
            Some(Ok(page)) => self.found(called, &prefix, page, linearizable),
            Some(Err(_)) | None => self.world.count("reads failed", 1),
        }
    }

    /// At some revision that the member has had.
    async fn read_the_past(&mut self, node: Node) {
        let (prefix, called) = (prefix(), now_ns());
        let path = prefix.clone();
        let back = random(|random| random.random_range(0..200));
        let read = ask(&self.world, node, |store| async move {
            let at = Revision(store.revision().0.saturating_sub(back));
            (at, store.range_at(SPACE, &path, None, None, at).await)
        });
        match read.await {
            Some((_, Ok(page))) => self.found(called, &prefix, page, false),
            Some((at, Err(Error::Compacted { oldest }))) if at < oldest => {}
            Some((_, Err(Error::Stopped(_)))) | None => {}
            Some((at, Err(error))) => {
                let what = format!("member {node} at {at}: {error:?}");
                witness::accuse(Violation::new("the past is kept", what));
            }
        }
    }

    fn found(&mut self, called: u64, prefix: &str, page: crate::Page, linearizable: bool) {
        self.world.count("reads", 1);
        let item = |it: &Arc<crate::Stored>| (name(&it.key), text(&it.body), it.revision.0);
        let found: Vec<_> = page.items.iter().map(item).collect();
        if linearizable {
            self.known.extend(found.iter().map(|(key, _, at)| (key.clone(), *at)));
        }
        let (prefix, revision) = (format!("{SPACE}/{prefix}"), page.revision.0);
        self.remember(called, What::Read { prefix, revision, found, linearizable });
    }
}

fn at(revision: Option<Revision>) -> Told {
    Told::Done(revision.map(|revision| revision.0))
}

fn refusal(error: &Error) -> &'static str {
    match error {
        Error::GuardFailed { .. } => "guards failed",
        Error::Fenced { .. } => "writes fenced",
        Error::DiskFull { .. } => "writes without room",
        _ => "writes refused",
    }
}

/// Of all keys, or one.
fn prefix() -> String {
    match random(|random| random.random_range(0..KEYS * 2)) {
        n if n < KEYS => format!("k{n}"),
        _ => String::new(),
    }
}

/// What a watcher hears from the member it is at.
enum Heard {
    /// A revision comes as a whole.
    Changes(Vec<history::Event>),
    UpTo(u64),
    Failed(Error),
}

/// Takes backups now and then, of whichever member.
pub(super) async fn operator(world: Arc<World>) {
    while !world.is_over() {
        Sleep::ms(random(|random| random.random_range(500..4_000))).await;
        let Some(node) = any_node(&world) else { continue };
        let seconds = now_ns() / 1_000_000_000;
        let taken = ask(&world, node, |store| async move { store.backup(seconds, None).await });
        let mut taken = match taken.await {
            Some(Ok(taken)) => taken,
            Some(Err(backup::Error::Unnamed | backup::Error::Member(_))) | None => {
                world.count("backups not taken", 1);
                continue;
            }
            Some(Err(error)) => {
                let what = format!("member {node}: {error}");
                witness::accuse(Violation::new("backups are whole", what));
                continue;
            }
        };
        let mut bytes = Vec::new();
        while let Some(piece) = taken.stream.recv().await {
            match piece {
                Ok(piece) => bytes.extend(piece),
                Err(error) => {
                    let what = format!("member {node} began a backup, and then: {error}");
                    witness::accuse(Violation::new("backups are whole", what));
                }
            }
        }
        world.count("backups taken", 1);
        world.backups.lock().expect("never held across a panic").push(bytes);
    }
}

/// Follows a prefix from the revision with which `seen` begins to the end of the run.
pub(super) async fn watcher(
    world: Arc<World>,
    prefix: String,
    mut cursor: u64,
    seen: Arc<std::sync::Mutex<Vec<Seen>>>,
) {
    let note = |each: Seen| seen.lock().expect("never held across a panic").push(each);
    while !world.is_over() {
        Sleep::ms(random(|random| random.random_range(1..50))).await;
        let Some(node) = any_node(&world) else { continue };
        let Some(store) = world.store(node) else { continue };
        let (sender, mut heard) = mpsc::channel(4);
        spawn_on(node, follow(store, prefix.clone(), cursor, sender));
        while let Some(each) = heard.recv().await {
            match each {
                Heard::Changes(events) => {
                    world.count("events watched", events.len() as u64);
                    for event in events {
                        cursor = cursor.max(event.revision);
                        note(Seen::Event(event));
                    }
                }
                Heard::UpTo(revision) => {
                    cursor = cursor.max(revision);
                    note(Seen::UpTo(revision));
                }
                Heard::Failed(Error::Compacted { oldest }) => {
                    if cursor >= oldest.0 || oldest.0 > witness::floor() {
                        let what = format!("after {cursor} on member {node}: {oldest} is oldest");
                        witness::accuse(Violation::new("watches resume", what));
                    }
                    world.count("watches compacted", 1);
                    if let Some(store) = world.store(node) {
                        cursor = store.revision().0.max(oldest.0);
                        note(Seen::From(cursor));
                    }
                    break;
                }
                Heard::Failed(_) => break,
            }
        }
    }
}

/// On the member: everything after `after`, for as long as the client stays.
async fn follow(store: Store, prefix: String, after: u64, sender: mpsc::Sender<Heard>) {
    let waited = store.wait_for(Revision(after), Duration::from_millis(500)).await;
    let watch = waited.and_then(|()| store.watch(SPACE, &prefix, Revision(after)));
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => return drop(sender.send(Heard::Failed(error)).await),
    };
    let stay = Duration::from_millis(random(|random| random.random_range(50..3_000)));
    let watching = async {
        loop {
            let changes = match watch.next().await {
                Ok(changes) => changes,
                Err(error) => return drop(sender.send(Heard::Failed(error)).await),
            };
            // Which term wrote it a watcher is not told; the truth knows.
            let events = changes.iter().map(|change| event(change, 0)).collect();
            if sender.send(Heard::Changes(events)).await.is_err() {
                return;
            }
            if sender.send(Heard::UpTo(watch.position().0)).await.is_err() {
                return;
            }
        }
    };
    // Even if it is in the middle of something.
    let _ = crate::time::timeout(stay, watching).await;
}
