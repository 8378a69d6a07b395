//! Keeps one certificate good for as long as the agent runs: asks for the next in time, takes up what is
//! written, whoever wrote it, and shows it to whoever connects from then on.

use super::{Clock, Metrics, Place, Wanted, files::Facts, obtain};
use crate::{
    authority::Authorities,
    credentials::{self, Newest, PERIOD, Pair},
};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use k8s::Api;
use rand::Rng as _;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    convert::Infallible,
    io,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// The part of a certificate's life after which the next is asked for, as client-go draws it: nodes that
/// came together do not ask together.
const DUE: Range<f64> = 0.7..0.9;
/// Pauses after failures: the first, doubled each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5 * 60));

/// At least so long one is used.
const PAUSE_SECONDS: i64 = 10;

/// The certificate of a server that may have none yet. Until then it answers no handshake, as a kubelet
/// with `serverTLSBootstrap`: nobody who checks would believe one it made itself.
#[derive(Debug, Default)]
pub(crate) struct Shown(OnceLock<Arc<Newest>>);

impl Shown {
    pub(super) fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.get().map(|newest| newest.current())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// Of one certificate.
pub(crate) struct Keeper {
    /// As the node: with the client certificate that there is.
    pub(crate) api: Arc<dyn Api>,
    pub(crate) wanted: Wanted,
    pub(crate) place: Place,
    /// What is in use; `None`: there is none yet.
    pub(crate) pair: Option<Pair>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) metrics: Metrics,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) clock: Clock,
    /// Called when another one is in use.
    pub(crate) on_new: Box<dyn Fn() + Send + Sync>,
}

/// When the next certificate is asked for.
#[derive(Debug, PartialEq)]
struct Plan {
    at: Timestamp,
    failures: u32,
}

impl Place {
    /// The pair that is there; `None` if there is none.
    pub(crate) fn open(&self) -> Result<Option<Pair>, credentials::Error> {
        self.heal().map_err(|source| credentials::Error::Read(self.key.clone(), source))?;
        match Pair::open(&self.cert, &self.key, None) {
            Ok(pair) => Ok(Some(pair)),
            Err(credentials::Error::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Keeper {
    /// Until dropped.
    pub(crate) async fn keep(mut self) -> Infallible {
        self.show();
        let mut turn = tokio::time::interval(PERIOD);
        let mut asking: Option<BoxFuture<'static, Result<Facts, obtain::Error>>> = None;
        let mut plan = self.plan();
        loop {
            let pause = self.until(plan.at);
            tokio::select! {
                _ = turn.tick() => {
                    let new = self.look();
                    let by_another = plan.failures == 0 && self.is_signed_by_another();
                    if new || by_another && asking.is_none() {
                        asking = None;
                        plan = self.plan();
                    }
                }
                () = tokio::time::sleep(pause), if asking.is_none() => asking = Some(self.ask()),
                done = answered(&mut asking) => {
                    asking = None;
                    plan = match done {
                        Ok(facts) => self.renewed(&facts, plan.failures),
                        Err(error) => self.failed(&error, plan.failures + 1),
                    };
                }
            }
        }
    }

    fn facts(&self) -> Option<Facts> {
        Facts::of(&self.pair.as_ref()?.files().cert)
    }

    /// For what is in use.
    fn plan(&self) -> Plan {
        let at = match self.facts() {
            Some(facts) if self.wanted.is_met_by(&facts) && !self.is_signed_by_another() => {
                due(&facts, rand::rng().random_range(DUE))
            }
            _ => (self.clock)(),
        };
        Plan { at, failures: 0 }
    }

    /// By an authority that no longer signs: it will go, and what it signed with it.
    fn is_signed_by_another(&self) -> bool {
        let pair = self.pair.as_ref();
        pair.is_some_and(|pair| !self.authorities.sign(&pair.files().cert))
    }

    fn until(&self, at: Timestamp) -> Duration {
        // In the past is now.
        at.duration_since((self.clock)()).try_into().unwrap_or_default()
    }

    fn ask(&self) -> BoxFuture<'static, Result<Facts, obtain::Error>> {
        let (api, clock) = (self.api.clone(), self.clock.clone());
        let (wanted, place) = (self.wanted.clone(), self.place.clone());
        async move { obtain::obtain(&*api, &wanted, &place, &clock).await }.boxed()
    }

    fn renewed(&mut self, new: &Facts, failures: u32) -> Plan {
        let before = self.facts();
        if let (Some(before), Some(rotation)) = (before, &self.metrics.rotation) {
            rotation.observe(((self.clock)().as_second() - before.from) as f64);
        }
        let until = text(new.until);
        tracing::info!(what = self.wanted.what(), until, "signed");
        self.look();
        if self.is_signed_by_another() {
            // Whoever signs has not heard of it yet.
            let pause = jiff::SignedDuration::try_from(pause(failures + 1)).unwrap_or_default();
            return Plan { at: (self.clock)() + pause, failures: failures + 1 };
        }
        let plan = self.plan();
        // Signed for a moment only, or not to be read back: no reason to ask without a pause.
        Plan {
            at: plan.at.max((self.clock)() + jiff::SignedDuration::from_secs(PAUSE_SECONDS)),
            ..plan
        }
    }

    fn failed(&self, error: &obtain::Error, failures: u32) -> Plan {
        self.metrics.errors.inc();
        let pause = pause(failures).mul_f64(rand::rng().random_range(1.0..1.1));
        let error: &dyn std::error::Error = error;
        let (what, now) = (self.wanted.what(), (self.clock)());
        let until = self.facts().map(|facts| facts.until);
        let state = match until {
            None => "there is none".to_string(),
            Some(until) if until <= now.as_second() => format!("it ended at {}", text(until)),
            Some(until) => format!("it ends at {}", text(until)),
        };
        let remedy = self.wanted.remedy();
        tracing::error!(what, error, "not renewed: {state}; next try in {pause:.0?}. {remedy}");
        let pause = jiff::SignedDuration::try_from(pause).unwrap_or_default();
        Plan { at: now + pause, failures }
    }

    /// Takes up what is written; true if something else is in use now.
    fn look(&mut self) -> bool {
        let new = match &mut self.pair {
            Some(pair) => pair.look(),
            None => match self.place.open() {
                Ok(found) => {
                    self.pair = found;
                    self.pair.is_some()
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(what = self.wanted.what(), error, "cannot be used");
                    false
                }
            },
        };
        if new {
            self.show();
            (self.on_new)();
        }
        new
    }

    fn show(&self) {
        if let Some(pair) = &self.pair {
            // Set once: the pair replaces what is in it.
            self.shown.0.get_or_init(|| pair.newest());
        }
        self.metrics.good_until(self.facts().map(|facts| facts.until));
    }
}

/// When a certificate is in that part of its life.
fn due(facts: &Facts, part: f64) -> Timestamp {
    let life = (facts.until - facts.from) as f64;
    Timestamp::from_second(facts.from + (life * part) as i64).unwrap_or(Timestamp::MAX)
}

fn pause(failures: u32) -> Duration {
    RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY.1)
}

/// Never, while nothing is asked.
async fn answered(
    asking: &mut Option<BoxFuture<'static, Result<Facts, obtain::Error>>>,
) -> Result<Facts, obtain::Error> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Seconds since 1970 as people read them.
pub(super) fn text(seconds: i64) -> String {
    Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_else(|_| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_is_asked_for_between_70_and_90_percent_of_a_life() {
        let facts = Facts { from: 1_000, until: 2_000, ..Facts::default() };
        let at = |part| due(&facts, part).as_second();
        assert_eq!((at(DUE.start), at(DUE.end)), (1_700, 1_900));
        let forever = Facts { from: i64::MIN / 4, until: i64::MAX / 4, ..Facts::default() };
        assert_eq!(due(&forever, 0.9), Timestamp::MAX);
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses = [1, 2, 3, 8, 9, 1_000].map(|failures| pause(failures).as_secs());
        assert_eq!(pauses, [2, 4, 8, 256, 300, 300]);
    }
}
