//! Futures that one task polls together, and that wake each other. Done by the runtime, each such wake has the
//! whole task polled once more, and another thread woken that could do it.

use futures::task::AtomicWaker;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// So often what was woken is polled before other tasks have their turn.
const ROUNDS_MAX: usize = 16;

/// Nobody polls, and nothing was woken since.
const QUIET: u8 = 0;
/// What was woken until now is being polled.
const POLLING: u8 = 1;
/// Something was woken since.
const RUNG: u8 = 2;

/// A task with bells.
#[derive(Default)]
pub(super) struct House {
    state: AtomicU8,
    task: AtomicWaker,
}

/// What wakes one of its futures.
pub(super) struct Bell {
    waker: Waker,
    clapper: Arc<Clapper>,
}

struct Clapper {
    rung: AtomicBool,
    house: Arc<House>,
}

impl House {
    /// One that has rung: what is polled for the first time has to be.
    pub(super) fn bell(self: &Arc<Self>) -> Bell {
        let clapper = Arc::new(Clapper { rung: AtomicBool::new(true), house: self.clone() });
        Bell { waker: clapper.clone().into(), clapper }
    }

    /// Goes round until no bell has rung meanwhile.
    pub(super) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        mut round: impl FnMut() -> Poll<T>,
    ) -> Poll<T> {
        self.task.register(cx.waker());
        for _ in 0..ROUNDS_MAX {
            self.state.store(POLLING, Ordering::SeqCst);
            if let Poll::Ready(end) = round() {
                return Poll::Ready(end);
            }
            if self.state.swap(QUIET, Ordering::SeqCst) == POLLING {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Bell {
    /// Whether it has rung since it was last asked.
    pub(super) fn has_rung(&self) -> bool {
        self.clapper.rung.swap(false, Ordering::SeqCst)
    }

    /// Where what is polled rings it.
    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let again = self.rung.swap(true, Ordering::SeqCst);
        if !again && self.house.state.swap(RUNG, Ordering::SeqCst) == QUIET {
            self.house.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls once as a task: how many rounds that took, and how often the task was woken by then.
    fn polled(house: &Arc<House>, mut round: impl FnMut(usize)) -> (usize, Arc<Woken>) {
        let (woken, mut rounds) = (Arc::new(Woken::default()), 0);
        let pending = house.poll(&mut Context::from_waker(&woken.clone().into()), || {
            rounds += 1;
            round(rounds);
            Poll::<()>::Pending
        });
        assert!(pending.is_pending());
        (rounds, woken)
    }

    fn times(woken: &Woken) -> usize {
        woken.0.load(Ordering::SeqCst)
    }

    #[test]
    fn what_rings_in_a_round_is_polled_in_the_next_without_the_task() {
        let house = Arc::new(House::default());
        let (one, other) = (house.bell(), house.bell());
        assert!(one.has_rung() && other.has_rung(), "at first");
        let (rounds, woken) = polled(&house, |round| match round {
            1 => other.waker.wake_by_ref(),
            _ => assert!(other.has_rung() && !one.has_rung()),
        });
        assert_eq!((rounds, times(&woken)), (2, 0));
        assert_eq!(polled(&house, |_| {}).0, 1);
    }

    #[test]
    fn what_rings_later_wakes_the_task_once() {
        let house = Arc::new(House::default());
        let (one, other) = (house.bell(), house.bell());
        assert!(one.has_rung() && other.has_rung(), "at first");
        let (_, woken) = polled(&house, |_| {});
        one.waker.wake_by_ref();
        one.waker.wake_by_ref();
        other.waker.wake_by_ref();
        assert_eq!(times(&woken), 1);
        assert!(one.has_rung() && other.has_rung());
    }

    #[test]
    fn others_have_their_turn_however_much_rings() {
        let house = Arc::new(House::default());
        let bell = house.bell();
        let (rounds, woken) = polled(&house, |_| {
            assert!(bell.has_rung());
            bell.waker.wake_by_ref();
        });
        assert_eq!((rounds, times(&woken)), (ROUNDS_MAX, 1));
    }
}
