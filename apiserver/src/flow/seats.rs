//! The seats of the priority levels, who has them, and who waits for one. Fair queuing between the
//! queues of a level by the time each would have begun to be served; a flow's requests go to the
//! shortest of a few queues that its hash deals it (shuffle sharding), so that one flow's flood
//! reaches few others.

use super::{
    SEATS,
    config::{Config, LevelKind, Queuing},
    metrics::Metrics,
};
use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// A request for seats.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) level: Arc<str>,
    pub(super) schema: Arc<str>,
    pub(super) flow: String,
    pub(super) seats: u32,
}

/// Why there is no seat (upstream's `reason` labels).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
}

impl Refused {
    fn reason(self) -> &'static str {
        match self {
            Refused::QueueFull => "queue-full",
            Refused::ConcurrencyLimit => "concurrency-limit",
            Refused::TimeOut => "time-out",
        }
    }
}

pub(super) struct Seats {
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    levels: BTreeMap<Arc<str>, Level>,
    /// Seats that levels lend: anybody's while nobody has them.
    pool: u32,
    next_waiter: u64,
}

struct Level {
    exempt: bool,
    /// Its share of all seats.
    nominal: u32,
    /// The part it does not lend.
    reserved: u32,
    /// What it may have at most, lent seats of others included.
    most: u32,
    queuing: Option<Queuing>,
    queues: Vec<Queue>,
    in_use: u32,
    /// The virtual time of the queue served last.
    now: u64,
}

#[derive(Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    /// When, in virtual time (seats handed out), the first waiter would begin.
    starts: u64,
}

struct Waiter {
    id: u64,
    seats: u32,
    grant: oneshot::Sender<()>,
}

impl Seats {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Arc<Seats> {
        let seats = Arc::new(Seats { state: Mutex::default(), metrics });
        seats.configure(config);
        seats
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over changed shares. Who has a seat keeps it; who waits in a level that is gone is
    /// refused.
    pub(super) fn configure(&self, config: &Config) {
        let mut state = self.state();
        let shares: u32 = config.levels.values().map(|level| shares_of(&level.kind)).sum();
        let old = std::mem::take(&mut state.levels);
        let mut pool = 0;
        for (name, level) in &config.levels {
            let nominal = (SEATS * shares_of(&level.kind)).div_ceil(shares.max(1));
            let mut own = made(&level.kind, nominal);
            pool += own.nominal - own.reserved;
            self.metrics.nominal(name, own.nominal);
            state.levels.insert(name.clone(), {
                own.in_use = old.get(name).map_or(0, |old| old.in_use);
                own
            });
        }
        for (name, old) in old {
            let Some(level) = state.levels.get_mut(&name) else { continue };
            let same = old.queuing.map(|old| old.queues) == level.queuing.map(|new| new.queues);
            if same {
                level.queues = old.queues;
                level.now = old.now;
            }
        }
        state.pool = pool;
        let names: Vec<Arc<str>> = state.levels.keys().cloned().collect();
        for name in names {
            state.dispatch(&name);
        }
    }

    /// Waits for the seats; `Ok(None)` at a level without limits.
    pub(super) async fn take(
        self: &Arc<Seats>,
        asked: Asked,
        wait_max: Duration,
    ) -> Result<Option<Ticket>, Refused> {
        let began = Instant::now();
        let result = match self.ask(&asked) {
            Ok(Place::Exempt) => Ok(None),
            Ok(Place::Now(seats)) => Ok(Some(seats)),
            Ok(Place::Queued(waiting)) => match waiting.seated(wait_max).await {
                Ok(seats) => Ok(Some(seats)),
                Err(refused) => Err(refused),
            },
            Err(refused) => Err(refused),
        };
        let waited = began.elapsed();
        match result {
            Ok(seats) => {
                self.metrics.dispatched(&asked.level, &asked.schema, waited);
                Ok(seats.map(|seats| Ticket::new(self.clone(), asked, seats)))
            }
            Err(refused) => {
                self.metrics.rejected(&asked.level, &asked.schema, refused.reason(), waited);
                Err(refused)
            }
        }
    }

    fn ask(self: &Arc<Seats>, asked: &Asked) -> Result<Place, Refused> {
        let mut state = self.state();
        let id = state.next_waiter;
        state.next_waiter += 1;
        let Some(level) = state.levels.get_mut(&asked.level) else {
            return Err(Refused::ConcurrencyLimit);
        };
        if level.exempt {
            return Ok(Place::Exempt);
        }
        // Nobody takes more than the whole level: it would wait for ever.
        let seats = asked.seats.min(level.most.max(1));
        let nobody_waits = level.queues.iter().all(|queue| queue.waiters.is_empty());
        if nobody_waits && state.fits(&asked.level, seats) {
            state.seat(&asked.level, seats);
            return Ok(Place::Now(seats));
        }
        let Some(level) = state.levels.get_mut(&asked.level) else {
            return Err(Refused::ConcurrencyLimit);
        };
        let Some(queuing) = level.queuing else { return Err(Refused::ConcurrencyLimit) };
        let hand = hand(&asked.schema, &asked.flow, queuing);
        let shortest = hand.into_iter().min_by_key(|index| level.queues[*index].waiters.len());
        let index = shortest.unwrap_or(0);
        let (queue, now) = (&mut level.queues[index], level.now);
        if queue.waiters.len() >= queuing.length_max as usize {
            return Err(Refused::QueueFull);
        }
        if queue.waiters.is_empty() {
            queue.starts = queue.starts.max(now);
        }
        let (grant, granted) = oneshot::channel();
        queue.waiters.push_back(Waiter { id, seats, grant });
        self.metrics.queued(&asked.level, 1);
        let (seats_of, level) = (self.clone(), asked.level.clone());
        Ok(Place::Queued(Waiting { seats_of, level, id, seats, granted, done: false }))
    }

    fn release(&self, level: &Arc<str>, seats: u32) {
        let mut state = self.state();
        if let Some(level) = state.levels.get_mut(level) {
            level.in_use = level.in_use.saturating_sub(seats);
        }
        // A seat from the pool is anybody's.
        let names: Vec<Arc<str>> = state.levels.keys().cloned().collect();
        for name in names {
            state.dispatch(&name);
        }
    }
}

fn shares_of(kind: &LevelKind) -> u32 {
    match kind {
        LevelKind::Exempt => 0,
        LevelKind::Limited { shares, .. } => *shares,
    }
}

fn made(kind: &LevelKind, nominal: u32) -> Level {
    let (exempt, lendable, borrowing, queuing) = match kind {
        LevelKind::Exempt => (true, 0, None, None),
        LevelKind::Limited { lendable_percent, borrowing_percent, queuing, .. } => {
            (false, *lendable_percent, *borrowing_percent, *queuing)
        }
    };
    let lent = nominal * lendable / 100;
    let borrowed = borrowing.map_or(SEATS, |percent| nominal * percent / 100);
    let count = queuing.map_or(0, |queuing| queuing.queues as usize);
    Level {
        exempt,
        nominal,
        reserved: nominal - lent,
        most: (nominal + borrowed).min(SEATS),
        queuing,
        queues: (0..count).map(|_| Queue::default()).collect(),
        in_use: 0,
        now: 0,
    }
}

impl State {
    /// Whether a level may have `seats` more now.
    fn fits(&self, name: &Arc<str>, seats: u32) -> bool {
        let Some(level) = self.levels.get(name) else { return false };
        let wanted = level.in_use + seats;
        if wanted <= level.reserved {
            return true;
        }
        let above = |level: &Level| level.in_use.saturating_sub(level.reserved);
        let drawn: u32 = self.levels.values().map(above).sum();
        let more = wanted - level.reserved.max(level.in_use);
        // One who has nothing gets something, however wide: it must end some time.
        wanted <= level.most
            && (drawn + more <= self.pool || level.in_use == 0 && level.nominal > 0)
    }

    fn seat(&mut self, name: &Arc<str>, seats: u32) {
        if let Some(level) = self.levels.get_mut(name) {
            level.in_use += seats;
        }
    }

    /// Hands out what fits, the queue first that would have begun first.
    fn dispatch(&mut self, name: &Arc<str>) {
        loop {
            let Some(level) = self.levels.get(name) else { return };
            let waiting =
                level.queues.iter().enumerate().filter(|(_, queue)| !queue.waiters.is_empty());
            let Some((index, queue)) = waiting.min_by_key(|(_, queue)| queue.starts) else {
                return;
            };
            let seats = queue.waiters.front().map_or(0, |waiter| waiter.seats);
            if !self.fits(name, seats) {
                return;
            }
            let Some(level) = self.levels.get_mut(name) else { return };
            let queue = &mut level.queues[index];
            let Some(waiter) = queue.waiters.pop_front() else { return };
            level.now = level.now.max(queue.starts);
            queue.starts += u64::from(seats);
            // One that has left meanwhile takes nothing.
            if waiter.grant.send(()).is_ok() {
                level.in_use += seats;
            }
        }
    }

    /// Takes a waiter out of its queue; `false` if it is not in one.
    fn leave(&mut self, name: &Arc<str>, id: u64) -> bool {
        let Some(level) = self.levels.get_mut(name) else { return false };
        for queue in &mut level.queues {
            let before = queue.waiters.len();
            queue.waiters.retain(|waiter| waiter.id != id);
            if queue.waiters.len() < before {
                return true;
            }
        }
        false
    }
}

/// The queues a flow may use: `hand_size` of them, dealt by its hash.
fn hand(schema: &str, flow: &str, queuing: Queuing) -> Vec<usize> {
    let mut hasher = DefaultHasher::new();
    (schema, flow).hash(&mut hasher);
    let mut entropy = hasher.finish();
    let mut deck: Vec<usize> = (0..queuing.queues as usize).collect();
    let mut hand = Vec::new();
    for _ in 0..queuing.hand_size.min(queuing.queues) {
        let left = deck.len() as u64;
        let index = (entropy % left) as usize;
        entropy /= left;
        hand.push(deck.swap_remove(index));
    }
    hand
}

/// What came of asking.
enum Place {
    Exempt,
    Now(u32),
    Queued(Waiting),
}

/// A place in a queue; dropping it leaves the queue, or gives back a seat just granted.
struct Waiting {
    seats_of: Arc<Seats>,
    level: Arc<str>,
    id: u64,
    seats: u32,
    granted: oneshot::Receiver<()>,
    done: bool,
}

impl Waiting {
    async fn seated(mut self, wait_max: Duration) -> Result<u32, Refused> {
        match tokio::time::timeout(wait_max, &mut self.granted).await {
            Ok(Ok(())) => {
                self.done = true;
                self.seats_of.metrics.queued(&self.level, -1);
                Ok(self.seats)
            }
            // The level is gone.
            Ok(Err(_)) => Err(Refused::ConcurrencyLimit),
            Err(_) => Err(Refused::TimeOut),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.seats_of.metrics.queued(&self.level, -1);
        let left = self.seats_of.state().leave(&self.level, self.id);
        if !left && self.granted.try_recv().is_ok() {
            self.seats_of.release(&self.level, self.seats);
        }
    }
}

/// Seats held; dropping it gives them back.
pub(super) struct Ticket {
    seats_of: Arc<Seats>,
    asked: Asked,
    seats: u32,
}

impl Ticket {
    fn new(seats_of: Arc<Seats>, asked: Asked, seats: u32) -> Ticket {
        seats_of.metrics.executing(&asked.level, &asked.schema, 1, i64::from(seats));
        Ticket { seats_of, asked, seats }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Ticket { seats_of, asked, seats } = self;
        seats_of.metrics.executing(&asked.level, &asked.schema, -1, -i64::from(*seats));
        seats_of.release(&asked.level, *seats);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats() -> Arc<Seats> {
        Seats::new(&Config::initial(), Metrics::new(&prometheus::Registry::new()))
    }

    fn asked(level: &str, flow: &str, seats: u32) -> Asked {
        Asked { level: level.into(), schema: "s".into(), flow: flow.into(), seats }
    }

    async fn take(seats: &Arc<Seats>, level: &str, flow: &str) -> Result<Option<Ticket>, Refused> {
        seats.take(asked(level, flow, 1), Duration::ZERO).await
    }

    #[tokio::test]
    async fn a_level_without_queues_refuses_at_once() {
        let seats = seats();
        // 600 seats by 245 shares: catch-all has ceil(600*5/245), and what others lend.
        let mut held = Vec::new();
        while let Ok(ticket) = take(&seats, "catch-all", "a").await {
            held.push(ticket);
            assert!(held.len() <= SEATS as usize, "a level has no end");
        }
        assert!(held.len() > 13, "it borrows what nobody uses: {}", held.len());
        let refused = take(&seats, "catch-all", "a").await.err();
        assert_eq!(refused, Some(Refused::ConcurrencyLimit));
        // What others do not lend is still theirs.
        assert!(take(&seats, "leader-election", "a").await.is_ok());
        assert!(take(&seats, "exempt", "a").await.is_ok_and(|ticket| ticket.is_none()));
        drop(held);
        assert!(take(&seats, "catch-all", "a").await.is_ok());
    }

    #[tokio::test]
    async fn waiters_are_served_in_turn_between_flows() {
        let seats = seats();
        let mut held = Vec::new();
        while let Ok(Some(ticket)) = take(&seats, "leader-election", "x").await {
            held.push(ticket);
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (flow, count) in [("flood", 6), ("drop", 1)] {
            for _ in 0..count {
                let (seats, order) = (seats.clone(), order.clone());
                tasks.spawn(async move {
                    let asked = asked("leader-election", flow, 1);
                    let ticket = seats.take(asked, Duration::from_secs(60)).await;
                    order.lock().unwrap().push(flow);
                    drop(ticket);
                });
                tokio::task::yield_now().await;
            }
        }
        held.truncate(held.len() - 1);
        while tasks.join_next().await.is_some() {}
        let order = order.lock().unwrap();
        let place = order.iter().position(|flow| *flow == "drop");
        assert!(
            place.is_some_and(|place| place < 6),
            "the lone request waits for the flood: {order:?}"
        );
    }

    #[tokio::test]
    async fn waiting_has_an_end_and_leaves_nothing_behind() {
        let seats = seats();
        let mut held = Vec::new();
        while let Ok(Some(ticket)) = take(&seats, "leader-election", "x").await {
            held.push(ticket);
        }
        let wait = seats.take(asked("leader-election", "x", 1), Duration::from_millis(1));
        assert_eq!(wait.await.err(), Some(Refused::TimeOut));
        let in_use = held.len();
        drop(held);
        let state = seats.state();
        let level = &state.levels["leader-election"];
        assert_eq!(level.in_use, 0, "of {in_use}");
        assert!(level.queues.iter().all(|queue| queue.waiters.is_empty()));
    }

    #[test]
    fn a_hand_is_a_few_different_queues() {
        let queuing = Queuing { queues: 64, hand_size: 6, length_max: 50 };
        let mut dealt = hand("s", "f", queuing);
        assert_eq!(dealt, hand("s", "f", queuing));
        dealt.sort_unstable();
        dealt.dedup();
        assert_eq!(dealt.len(), 6);
    }
}
