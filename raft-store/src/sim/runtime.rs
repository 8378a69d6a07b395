//! What openraft's tasks run on in tests: Tokio, or the simulation if the thread runs one.

use super::scheduler;
use crate::time::{self, Instant};
use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand_0_10::SeedableRng;
use std::{
    fmt,
    future::Future,
    ops::{AddAssign, SubAssign},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;

/// Never made; only its associated types and functions are used.
#[derive(Debug)]
pub(crate) struct Runtime;

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

/// On the clock of one member.
impl openraft::Instant for Instant {
    fn now() -> Instant {
        Instant::now()
    }
}

/// The task was killed, or panicked.
#[derive(Debug)]
pub(crate) struct Ended(String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) enum Join<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Simulated(oneshot::Receiver<T>),
}

impl<T> Future for Join<T> {
    type Output = Result<T, Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Join::Tokio(task) => {
                Pin::new(task).poll(context).map_err(|error| Ended(error.to_string()))
            }
            Join::Simulated(task) => {
                Pin::new(task).poll(context).map_err(|_| Ended("killed".into()))
            }
        }
    }
}

pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, time::Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(output) = this.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.as_mut().poll(context).map(|()| Err(time::Elapsed))
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = Ended;
    type JoinHandle<T: OptionalSend + 'static> = Join<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = time::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = rand_0_10::rngs::SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Join<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        if !scheduler::active() {
            return Join::Tokio(tokio::spawn(future));
        }
        let (sender, receiver) = oneshot::channel();
        scheduler::spawn_on(scheduler::current(), async move {
            let _ = sender.send(future.await);
        });
        Join::Simulated(receiver)
    }

    fn sleep(duration: Duration) -> Sleep {
        Self::sleep_until(Instant::now() + duration)
    }

    fn sleep_until(moment: Instant) -> Sleep {
        Box::pin(time::sleep_until(moment))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        Self::timeout_at(Instant::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Instant,
        future: F,
    ) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(_: &Ended) -> bool {
        false
    }

    fn thread_rng() -> rand_0_10::rngs::SmallRng {
        let seed = match scheduler::active() {
            true => scheduler::random(rand::Rng::random),
            false => rand::random(),
        };
        rand_0_10::rngs::SmallRng::seed_from_u64(seed)
    }

    fn new(_: usize) -> Runtime {
        Runtime
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        futures::executor::block_on(future)
    }
}
