//! Tasks of all members in one thread, on a clock that stands still while there is something to do.
//! Which of those that are ready is polled next is drawn from the seed, like everything else here.

use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

/// Who a task belongs to: a member by its id, or the world around them (0).
pub(super) type Node = u64;
pub(super) const WORLD: Node = 0;

type Ready = Arc<Mutex<BTreeSet<u64>>>;
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct TaskWaker {
    id: u64,
    /// Ordered, so that it does not matter in which order tasks were woken.
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.lock().expect("never held across a panic").insert(self.id);
    }
}

struct Task {
    /// `None` while it is polled.
    work: Option<Work>,
    node: Node,
    waker: Waker,
}

struct Scheduler {
    /// Nanoseconds since the beginning of the world.
    now: u64,
    /// What local clocks show at the beginning.
    begin: Instant,
    next_task: u64,
    tasks: BTreeMap<u64, Task>,
    ready: Ready,
    timers: BTreeMap<(u64, u64), Waker>,
    next_timer: u64,
    random: StdRng,
    current: Node,
    /// By how many millionths a node's clock is fast.
    skew: BTreeMap<Node, i64>,
    paused: BTreeMap<Node, u64>,
    polls: u64,
    trace: u64,
}

thread_local! {
    static SCHEDULER: RefCell<Option<Scheduler>> = const { RefCell::new(None) };
}

fn with<R>(then: impl FnOnce(&mut Scheduler) -> R) -> R {
    SCHEDULER.with(|scheduler| then(scheduler.borrow_mut().as_mut().expect("a simulation runs")))
}

pub(super) fn active() -> bool {
    SCHEDULER.with(|scheduler| scheduler.try_borrow().map_or(true, |it| it.is_some()))
}

/// Begins a world on this thread.
pub(super) fn begin(seed: u64) {
    end();
    SCHEDULER.with(|scheduler| {
        *scheduler.borrow_mut() = Some(Scheduler {
            now: 0,
            begin: Instant::now(),
            next_task: 1,
            tasks: BTreeMap::new(),
            ready: Ready::default(),
            timers: BTreeMap::new(),
            next_timer: 0,
            random: StdRng::seed_from_u64(seed),
            current: WORLD,
            skew: BTreeMap::new(),
            paused: BTreeMap::new(),
            polls: 0,
            trace: seed,
        });
    });
}

/// Drops everything that still runs, also after a panic.
pub(super) fn end() {
    while let Some(tasks) = SCHEDULER.with(|scheduler| {
        let mut scheduler = scheduler.borrow_mut();
        let tasks = std::mem::take(&mut scheduler.as_mut()?.tasks);
        (!tasks.is_empty()).then_some(tasks)
    }) {
        // Outside of the borrow: what is dropped may look at the clock.
        drop(tasks);
    }
    let gone = SCHEDULER.with(|scheduler| scheduler.borrow_mut().take());
    drop(gone);
}

/// Nanoseconds since the beginning, for the world.
pub(super) fn now_ns() -> u64 {
    with(|it| it.now)
}

pub(super) fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

pub(super) fn random<R>(draw: impl FnOnce(&mut StdRng) -> R) -> R {
    with(|it| draw(&mut it.random))
}

/// True once in `n`.
pub(super) fn one_in(n: u32) -> bool {
    random(|random| random.random_ratio(1, n))
}

fn mix(hash: u64, value: u64) -> u64 {
    let z = (hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// Something that a replay must repeat.
pub(super) fn note(value: u64) {
    with(|it| it.trace = mix(it.trace, value));
}

/// What happened, in one number, and in how many steps.
pub(super) fn trace() -> (u64, u64) {
    with(|it| (it.trace, it.polls))
}

/// For those who log: they may do so at any time.
pub(super) fn place() -> (u64, Node) {
    SCHEDULER.with(|scheduler| match scheduler.try_borrow() {
        Ok(it) => it.as_ref().map_or((0, WORLD), |it| (it.now, it.current)),
        Err(_) => (0, WORLD),
    })
}

pub(super) fn current() -> Node {
    with(|it| it.current)
}

pub(super) fn spawn_on(node: Node, work: impl Future<Output = ()> + Send + 'static) {
    let work: Work = Box::pin(work);
    with(|it| {
        let id = it.next_task;
        it.next_task += 1;
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: it.ready.clone() }));
        it.tasks.insert(id, Task { work: Some(work), node, waker });
        it.ready.lock().expect("never held across a panic").insert(id);
    });
}

/// All that a node does ends, without another line of it being run.
pub(super) fn kill(node: Node) {
    let dead: Vec<Task> = with(|it| {
        it.paused.remove(&node);
        let ids = it.tasks.iter().filter(|(_, task)| task.node == node).map(|(id, _)| *id);
        let ids: Vec<u64> = ids.collect();
        ids.iter().filter_map(|id| it.tasks.remove(id)).collect()
    });
    drop(dead);
}

/// Nothing of the node runs for so long; its clock goes on.
pub(super) fn pause(node: Node, ms: u64) {
    with(|it| it.paused.insert(node, it.now + ms * 1_000_000));
}

pub(super) fn resume_all() {
    with(|it| it.paused.clear());
}

pub(super) fn set_skew(node: Node, millionths: i64) {
    with(|it| it.skew.insert(node, millionths));
}

impl Scheduler {
    fn skew(&self) -> i128 {
        self.skew.get(&self.current).copied().unwrap_or(0).into()
    }

    fn local(&self) -> Instant {
        let nanos = i128::from(self.now) * (1_000_000 + self.skew()) / 1_000_000;
        self.begin + Duration::from_nanos(nanos as u64)
    }

    /// When the current node's clock will show that; rounded up, or it would spin.
    fn global(&self, local: Instant) -> u64 {
        let nanos = local.saturating_duration_since(self.begin).as_nanos() as i128;
        (nanos * 1_000_000 / (1_000_000 + self.skew())) as u64 + 2
    }

    fn timer(&mut self, at: u64, waker: Waker) -> (u64, u64) {
        self.next_timer += 1;
        let key = (at, self.next_timer);
        self.timers.insert(key, waker);
        key
    }

    /// One of those that are ready, drawn; `None` if there is none, or it may not run now.
    fn take(&mut self) -> Option<Result<(u64, Work, Waker), ()>> {
        let id = {
            let mut ready = self.ready.lock().expect("never held across a panic");
            let nth = match ready.len() {
                0 => return None,
                1 => 0,
                n => self.random.random_range(0..n),
            };
            let id = *ready.iter().nth(nth)?;
            ready.remove(&id);
            id
        };
        let Some(task) = self.tasks.get_mut(&id) else { return Some(Err(())) };
        let (node, waker) = (task.node, task.waker.clone());
        if let Some(until) = self.paused.get(&node).copied() {
            if until > self.now {
                self.timer(until, waker);
                return Some(Err(()));
            }
            self.paused.remove(&node);
        }
        let Some(work) = self.tasks.get_mut(&id).and_then(|task| task.work.take()) else {
            return Some(Err(()));
        };
        self.current = node;
        self.polls += 1;
        self.trace = mix(self.trace, id ^ self.now);
        Some(Ok((id, work, waker)))
    }

    /// Moves the clock to the next timer, if that is not after `until`.
    fn advance(&mut self, until: u64) -> Option<Waker> {
        match self.timers.first_key_value() {
            Some((key, _)) if key.0 <= until => {
                self.now = self.now.max(key.0);
                self.timers.pop_first().map(|(_, waker)| waker)
            }
            _ => {
                self.now = self.now.max(until);
                None
            }
        }
    }
}

pub(super) fn local_now() -> Instant {
    SCHEDULER.with(|scheduler| match scheduler.try_borrow() {
        Ok(it) => it.as_ref().map_or_else(Instant::now, Scheduler::local),
        Err(_) => Instant::now(),
    })
}

/// Runs everything until so many milliseconds after the beginning, or until `done` says so.
pub(super) fn run_until(ms: u64, mut done: impl FnMut() -> bool) {
    loop {
        match with(Scheduler::take) {
            Some(Ok((id, mut work, waker))) => {
                let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
                let over = with(|it| {
                    it.current = WORLD;
                    match polled {
                        Poll::Ready(()) => (it.tasks.remove(&id), Some(work)),
                        // It may have been killed, or have killed itself, meanwhile.
                        Poll::Pending => match it.tasks.get_mut(&id) {
                            Some(task) => {
                                task.work = Some(work);
                                (None, None)
                            }
                            None => (None, Some(work)),
                        },
                    }
                });
                drop(over);
            }
            Some(Err(())) => {}
            None if done() => return,
            None => match with(|it| it.advance(ms * 1_000_000)) {
                Some(waker) => waker.wake(),
                None => return,
            },
        }
    }
}

/// Until a moment.
pub(super) struct Sleep {
    at: u64,
    timer: Option<(u64, u64)>,
}

impl Sleep {
    pub(super) fn of(duration: Duration) -> Sleep {
        Sleep { at: now_ns() + duration.as_nanos() as u64, timer: None }
    }

    pub(super) fn ms(ms: u64) -> Sleep {
        Sleep::of(Duration::from_millis(ms))
    }

    pub(super) fn until_ns(at: u64) -> Sleep {
        Sleep { at, timer: None }
    }

    /// By the clock of the node whose task this is.
    pub(super) fn until_local(moment: Instant) -> Sleep {
        Sleep { at: with(|it| it.global(moment)), timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (at, before) = (self.at, self.timer.take());
        let timer = with(|it| {
            if let Some(before) = before {
                it.timers.remove(&before);
            }
            (it.now < at).then(|| it.timer(at, context.waker().clone()))
        });
        self.timer = timer;
        match timer {
            None => Poll::Ready(()),
            Some(_) => Poll::Pending,
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take() else { return };
        SCHEDULER.with(|scheduler| {
            if let Ok(mut scheduler) = scheduler.try_borrow_mut()
                && let Some(it) = scheduler.as_mut()
            {
                it.timers.remove(&timer);
            }
        });
    }
}
