//! Time and work that blocks, as everything in this crate has them: one place, so that a simulation
//! can take the place of both (`sim`). Clocks are monotonic; nobody reads the wall clock.

use futures::{FutureExt as _, future::BoxFuture};
use std::{
    future::poll_fn,
    io,
    ops::{Add, Sub},
    sync::Mutex,
    task::{Poll, ready},
    time::Duration,
};
use tokio::runtime::{Handle, RuntimeFlavor};

/// A moment on this member's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(pub(crate) std::time::Instant);

impl Instant {
    pub(crate) fn now() -> Instant {
        #[cfg(test)]
        if let Some(now) = crate::sim::now() {
            return Instant(now);
        }
        Instant(std::time::Instant::now())
    }

    /// Zero for a moment that is yet to come.
    pub(crate) fn elapsed(self) -> Duration {
        Instant::now().0.saturating_duration_since(self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0 + duration)
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0 - duration)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, other: Instant) -> Duration {
        self.0.saturating_duration_since(other.0)
    }
}

/// The time was up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is up")]
pub(crate) struct Elapsed;

pub(crate) async fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration).await;
}

pub(crate) async fn sleep_until(moment: Instant) {
    #[cfg(test)]
    if crate::sim::is_simulated() {
        return crate::sim::sleep_until(moment.0).await;
    }
    tokio::time::sleep_until(moment.0.into()).await;
}

/// What `future` comes to, unless it takes longer than `limit`.
pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now() + limit, future).await
}

/// What `future` comes to, unless it takes until `deadline`.
pub(crate) async fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = sleep_until(deadline) => Err(Elapsed),
    }
}

/// A rhythm: the first tick is at once, and who comes late has the next one a whole period later.
pub(crate) struct Ticks {
    every: Duration,
    next: Instant,
}

impl Ticks {
    pub(crate) fn every(every: Duration) -> Ticks {
        Ticks { every, next: Instant::now() }
    }

    /// The first is a period from now.
    #[cfg(test)]
    pub(crate) fn after(every: Duration) -> Ticks {
        Ticks { every, next: Instant::now() + every }
    }

    /// Cancel-safe.
    pub(crate) async fn tick(&mut self) {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.every;
    }
}

/// For waits of the same length that hardly ever come to their end: it is set again only when it goes off. Each
/// time one is set that is the earliest, the thread that waits for the earliest is woken.
#[derive(Default)]
pub(crate) struct Alarm(Mutex<Option<BoxFuture<'static, ()>>>);

impl Alarm {
    /// Until `moment`; those of calls before this one are not later.
    pub(crate) async fn until(&self, moment: Instant) {
        poll_fn(|cx| {
            let mut set = self.0.lock().expect("only polled and replaced");
            loop {
                let sleeping = set.get_or_insert_with(|| sleep_until(moment).boxed());
                ready!(sleeping.poll_unpin(cx));
                *set = None;
                if moment <= Instant::now() {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

/// Runs what blocks beside everything else; nobody waits for it.
pub(crate) fn block_apart(work: impl FnOnce() + Send + 'static) {
    #[cfg(test)]
    if crate::sim::is_simulated() {
        return work();
    }
    tokio::task::spawn_blocking(work);
}

/// Runs what may block, or compute, for long; the other tasks of this thread go on on another one. It costs the
/// start of that one.
pub(crate) fn block_here<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Runs what blocks where it keeps nobody waiting. Fails if it panicked, or the program is ending.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    #[cfg(test)]
    if crate::sim::is_simulated() {
        crate::sim::disk_pause().await;
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_goes_off_for_those_after_the_one_that_set_it_too() {
        let (alarm, begun) = (Alarm::default(), Instant::now());
        let soon = Duration::from_millis(2);
        assert!(alarm.until(begun + soon).now_or_never().is_none(), "set, and not waited for");
        let later = begun + soon * 3;
        alarm.until(later).await;
        assert!(later <= Instant::now());
        alarm.until(later).await;
    }
}
