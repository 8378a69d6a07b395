//! The clients that list and watch, as client-go's informers do: a list of any age first, a watch from
//! its revision on, from master to master; a list again when the watch has lost its place, and now and
//! then for no reason.

use super::{
    api::{CONNECT_PAUSE, Client, Shared},
    watching::{Ended, read, watch},
};
use ::chaos::{
    informer::{Step, reached},
    scenario::Kind,
    watched::Seen,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// From one list to the next, in seconds.
const LIST_AFTER: std::ops::Range<u64> = 3..9;
/// Another master is asked after that, also while all is well.
const MOVE_AFTER: Duration = Duration::from_secs(2);
/// A list in pages of so many.
const PAGE: usize = 4;

/// Starts them; they go on until the tasks are ended.
pub(super) fn start(shared: &Arc<Shared>, count: usize, tasks: &mut JoinSet<()>) {
    for number in 0..count {
        let shared = shared.clone();
        tasks.spawn(async move { inform(&shared, number).await });
    }
}

async fn inform(shared: &Shared, number: usize) {
    let mut client = Client::patient(shared, Kind::ListAndWatch, number as u64);
    let mut random = StdRng::seed_from_u64(shared.seed ^ ((number as u64) << 32));
    // As client-go: whatever a master has in memory.
    let (mut version, mut limit) = ("0".to_owned(), 0);
    let mut server = number;
    loop {
        let Some((found, revision)) = client.list_all(&version, limit).await else {
            tokio::time::sleep(CONNECT_PAUSE).await;
            continue;
        };
        shared.record().informers[number].push(Step::Listed { revision, found });
        let until = Instant::now() + Duration::from_secs(random.random_range(LIST_AFTER));
        let lost = follow(shared, number, until, &mut server).await;
        // As new as can be, or not older than what it has; whatever has lost its place needs the first.
        (version, limit) = match lost || random.random_bool(0.5) {
            true => (String::new(), if random.random_bool(0.5) { PAGE } else { 0 }),
            false => (reached(&shared.record().informers[number]).to_string(), 0),
        };
    }
}

/// Watches until then, on one master after the other; whether it has lost its place.
async fn follow(shared: &Shared, number: usize, until: Instant, server: &mut usize) -> bool {
    let servers = &shared.target.servers;
    while Instant::now() < until {
        let after = reached(&shared.record().informers[number]);
        let take = &mut |seen| {
            let step = match seen {
                Seen::From(_) => return,
                Seen::Event(event) => Step::Event(event),
                Seen::UpTo(revision) => Step::UpTo(revision),
            };
            shared.record().informers[number].push(step);
        };
        let lasts = MOVE_AFTER.min(until.saturating_duration_since(Instant::now()));
        let at = &servers[*server % servers.len()];
        match watch(shared, at, (&shared.path(), after, None), lasts, read, take).await {
            Ok(Ended::GoOn) => {}
            Ok(Ended::Lost(_)) => return true,
            Err(error) => tracing::debug!(%error, number, "an informer's watch ended"),
        }
        *server += 1;
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
    false
}
