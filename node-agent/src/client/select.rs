//! Which master to talk to: a choice that sticks to a healthy master and leaves a failing one. It
//! never dials and never reads a clock; time comes in as the time since the client was made.

use std::{fmt, str::FromStr, time::Duration};

/// First pause before a master that failed is tried again; doubles per failure in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest such pause: a master that comes back is noticed within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Host and port of one API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A DNS name or an IP address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    /// Reads `https://host:port`, `host:port` or `https://host` (port 443).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = if text.contains("://") { text.to_string() } else { format!("https://{text}") };
        let url = url::Url::parse(&url).map_err(|error| format!("{text:?}: {error}"))?;
        if url.scheme() != "https" {
            return Err(format!("{text:?}: only https is spoken"));
        }
        let host = url.host_str().ok_or_else(|| format!("{text:?}: no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        Ok(Endpoint { host, port: url.port().unwrap_or(443) })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What to do for the next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Use(Endpoint),
    /// Every master failed a moment ago.
    Wait(Duration),
}

#[derive(Clone, Debug)]
struct Master {
    endpoint: Endpoint,
    /// Named by the operator: kept even if the cluster does not list it.
    configured: bool,
    /// Failures in a row; 0 is healthy.
    failures: u32,
    /// Not to be tried before.
    retry_at: Duration,
}

/// Every known master and what became of it. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    masters: Vec<Master>,
    current: usize,
}

impl Selection {
    /// `seed` spreads clients over the masters; each client starts at another one.
    pub(super) fn new(configured: Vec<Endpoint>, seed: u64) -> Selection {
        assert!(!configured.is_empty(), "a client needs a master");
        let current = (seed % configured.len() as u64) as usize;
        let masters = configured.into_iter().map(|endpoint| Master::new(endpoint, true)).collect();
        Selection { masters, current }
    }

    /// The current master while it is healthy, else the one with the fewest failures that may be
    /// tried now, in ring order after the current one.
    pub(super) fn pick(&mut self, now: Duration) -> Choice {
        if self.masters[self.current].failures == 0 {
            return Choice::Use(self.masters[self.current].endpoint.clone());
        }
        let count = self.masters.len();
        let ring = (1..=count).map(|step| (self.current + step) % count);
        let ready = ring.filter(|&at| self.masters[at].retry_at <= now);
        match ready.min_by_key(|&at| self.masters[at].failures) {
            Some(at) => {
                self.current = at;
                Choice::Use(self.masters[at].endpoint.clone())
            }
            None => {
                let soonest = self.masters.iter().map(|master| master.retry_at).min();
                Choice::Wait(soonest.unwrap_or(now).saturating_sub(now))
            }
        }
    }

    pub(super) fn succeeded(&mut self, endpoint: &Endpoint) {
        if let Some(master) = self.find(endpoint) {
            master.failures = 0;
            master.retry_at = Duration::ZERO;
        }
    }

    /// Counts a failure and returns how many there were in a row. Several requests that fail with
    /// one connection count once: those that come while the pause of the first still runs.
    pub(super) fn failed(&mut self, endpoint: &Endpoint, now: Duration) -> u32 {
        let Some(master) = self.find(endpoint) else { return 0 };
        if master.failures == 0 || now >= master.retry_at {
            master.failures += 1;
            let doubled = BACKOFF_MIN.saturating_mul(1 << (master.failures - 1).min(10));
            master.retry_at = now + doubled.min(BACKOFF_MAX);
        }
        master.failures
    }

    /// Replaces the masters learned from the cluster; those configured stay as a last resort.
    pub(super) fn learn(&mut self, listed: &[Endpoint]) {
        let current = self.masters[self.current].endpoint.clone();
        self.masters.retain(|master| master.configured || listed.contains(&master.endpoint));
        for endpoint in listed {
            if self.find(endpoint).is_none() {
                self.masters.push(Master::new(endpoint.clone(), false));
            }
        }
        let at = self.masters.iter().position(|master| master.endpoint == current);
        self.current = at.unwrap_or(0);
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.masters.iter().map(|master| &master.endpoint)
    }

    pub(super) fn current(&self) -> &Endpoint {
        &self.masters[self.current].endpoint
    }

    fn find(&mut self, endpoint: &Endpoint) -> Option<&mut Master> {
        self.masters.iter_mut().find(|master| master.endpoint == *endpoint)
    }
}

impl Master {
    fn new(endpoint: Endpoint, configured: bool) -> Master {
        Master { endpoint, configured, failures: 0, retry_at: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &str) -> Vec<Endpoint> {
        names.chars().map(|name| Endpoint { host: name.into(), port: 6443 }).collect()
    }

    /// Runs a script of `ok X`, `fail X`, `learn XYZ`, `at MS`, `pick` and returns what `pick` said.
    fn check(masters: &str, seed: u64, script: &str) -> String {
        let mut selection = Selection::new(endpoints(masters), seed);
        let mut now = Duration::ZERO;
        let mut said = Vec::new();
        for step in script.split(';').map(str::trim) {
            let (verb, argument) = step.split_once(' ').unwrap_or((step, ""));
            let at = endpoints(argument);
            match verb {
                "ok" => selection.succeeded(&at[0]),
                "fail" => drop(selection.failed(&at[0], now)),
                "learn" => selection.learn(&at),
                "at" => now = Duration::from_millis(argument.parse().unwrap()),
                "pick" => said.push(match selection.pick(now) {
                    Choice::Use(endpoint) => endpoint.host,
                    Choice::Wait(pause) => format!("wait {}", pause.as_millis()),
                }),
                other => panic!("no such step: {other}"),
            }
        }
        said.join(" ")
    }

    #[test]
    fn sticks_while_healthy_and_moves_on_failure() {
        assert_eq!(check("abc", 1, "pick; pick; fail b; pick; pick; ok c; pick"), "b b c c c");
    }

    #[test]
    fn does_not_move_back_when_the_first_recovers() {
        assert_eq!(check("abc", 0, "pick; fail a; pick; at 9000; pick"), "a b b");
    }

    #[test]
    fn waits_when_all_failed_then_tries_the_least_failed_in_ring_order() {
        let script = "fail a; fail b; pick; at 10; fail c; pick; at 50; pick; fail a; at 60; pick";
        assert_eq!(check("abc", 0, script), "c wait 40 a b");
    }

    #[test]
    fn failures_with_one_connection_count_once() {
        assert_eq!(check("a", 0, "fail a; fail a; fail a; pick"), "wait 50");
        assert_eq!(check("a", 0, "fail a; at 50; fail a; pick"), "wait 100");
    }

    #[test]
    fn the_pause_is_bounded() {
        let script = "fail a; at 10000; fail a; at 20000; fail a; at 30000; fail a; at 40000; \
                      fail a; at 50000; fail a; at 60000; fail a; at 70000; fail a; pick";
        assert_eq!(check("a", 0, script), "wait 2000");
    }

    #[test]
    fn learns_masters_and_forgets_learned_ones_only() {
        assert_eq!(
            check("a", 0, "learn bc; fail a; pick; learn c; pick; fail c; pick"),
            "b c wait 50"
        );
        assert_eq!(check("ab", 1, "learn c; pick; fail b; pick"), "b c");
    }

    #[test]
    fn endpoints_are_read_from_urls() {
        let read = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(read("https://10.90.0.11:6443"), Ok("10.90.0.11:6443".into()));
        assert_eq!(read("10.90.0.11:6443"), Ok("10.90.0.11:6443".into()));
        assert_eq!(read("https://[fd00::1]:6443"), Ok("[fd00::1]:6443".into()));
        assert_eq!(read("https://example.org"), Ok("example.org:443".into()));
        assert!(read("http://example.org").is_err());
    }
}
