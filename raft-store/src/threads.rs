//! The thread that a member's Raft has for itself, and those it hands long work to: heartbeats, votes and appends do
//! not wait behind clients' requests in a runtime they share.

use futures::future::BoxFuture;
use std::io;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// Two would wake each other for every message, which costs more than most of them. What would hold up heartbeats
/// is done by `block_here`, or elsewhere.
// It is as nice as the rest of the process: with a higher priority it interrupts whoever is about
// to bring it more, and does it all in smaller parts, at a third more cost.
const WORKERS: usize = 1;

/// A runtime of its own, or that of whoever calls. It ends with this, and whatever still runs in it.
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    pub(crate) fn start() -> io::Result<Threads> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(WORKERS).thread_name("raft").enable_all();
        Ok(Threads(Some(builder.build()?)))
    }

    /// No threads: what is to run is run by the caller, as in a simulation.
    #[cfg(test)]
    pub(crate) fn of_caller() -> Threads {
        Threads(None)
    }

    /// Runs `work` and all that it spawns here. `None`: these threads have ended.
    pub(crate) async fn run<T: Send + 'static>(&self, work: BoxFuture<'static, T>) -> Option<T> {
        let Some(runtime) = &self.0 else { return Some(work.await) };
        match AbortOnDropHandle::new(runtime.spawn(work)).await {
            Ok(done) => Some(done),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever lets go of a member may be a task, which must not wait for others.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn what_is_spawned_there_stays_there() {
        let threads = Threads::start().expect("a runtime");
        let name = || std::thread::current().name().map(str::to_owned);
        let work = async move { tokio::spawn(async move { name() }).await };
        let spawned = threads.run(work.boxed()).await.expect("it runs").expect("no panic");
        assert_eq!(spawned.as_deref(), Some("raft"));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_takes_its_work_along() {
        let threads = Threads::start().expect("a runtime");
        let (held, dropped) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = threads.run(work.boxed()) => panic!("it never ends"),
            () = std::future::ready(()) => {}
        }
        assert!(dropped.await.is_err());
    }
}
