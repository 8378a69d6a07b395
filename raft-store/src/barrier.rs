//! Linearizable reads on any member: one round of ReadIndex for everyone who asked before it
//! began, then a wait until this member has applied that far.

use crate::{
    metrics::Metrics,
    shared::Shared,
    time::{Instant, sleep, sleep_until, timeout},
    types::{Error, LogIndex, Revision},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Callers waiting for the next round.
const CALLERS_MAX: usize = 65_536;

/// Where more than these ask at the same time, so many times as long as a round took nobody is asked:
/// those who come meanwhile share the next one. A third of the rounds cost a third. Fewer would wait for
/// nothing: they do not keep the processors busy, and a timer is coarser than a round.
const FEW: usize = 24;
const REST: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(5);

pub(crate) type Caller = oneshot::Sender<Result<Revision, Error>>;

/// Asks for barriers; clones share the rounds.
#[derive(Clone)]
pub(crate) struct Barriers {
    callers: mpsc::Sender<Caller>,
    deadline: Duration,
}

impl Barriers {
    pub(crate) fn new(deadline: Duration) -> (Barriers, mpsc::Receiver<Caller>) {
        let (callers, queue) = mpsc::channel(CALLERS_MAX);
        (Barriers { callers, deadline }, queue)
    }

    /// Returns once the state here is at least as new as the cluster's was at the call.
    pub(crate) async fn wait(&self) -> Result<Revision, Error> {
        let (caller, answer) = oneshot::channel();
        self.callers.try_send(caller).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Error::Overloaded { retry_after: Duration::from_secs(1) }
            }
            mpsc::error::TrySendError::Closed(_) => Error::Stopped("shut down".into()),
        })?;
        match timeout(self.deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Stopped("shut down".into())),
            Err(_) => Err(Error::Unavailable { unknown: false }),
        }
    }
}

/// Serves rounds for ever. `read_index` is the leader's answer, or `None` if there was none.
pub(crate) async fn run<F: Future<Output = Option<u64>>>(
    mut queue: mpsc::Receiver<Caller>,
    shared: Arc<Shared>,
    metrics: Metrics,
    retry_after: Duration,
    read_index: impl Fn() -> F,
) {
    let mut callers: Vec<Caller> = Vec::new();
    while queue.recv_many(&mut callers, CALLERS_MAX).await > 0 {
        metrics.barriers.inc();
        let round = Instant::now();
        let index = loop {
            let began = Instant::now();
            if let Some(index) = read_index().await {
                break index;
            }
            callers.retain(|caller| !caller.is_closed());
            if callers.is_empty() {
                break 0;
            }
            sleep_until(began + retry_after).await;
        };
        let mut applied = shared.applied();
        let reached = applied.wait_for(|position| position.index >= LogIndex(index));
        let Ok(revision) = reached.await.map(|position| position.revision) else { return };
        let many = callers.len() > FEW;
        for caller in callers.drain(..) {
            // The caller may have given up.
            let _ = caller.send(Ok(revision));
        }
        if many {
            sleep((round.elapsed() * REST).min(REST_MAX)).await;
        }
    }
}
