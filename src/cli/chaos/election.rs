//! A client that wants to hold the run's Lease, as client-go's leader election does; now and then it
//! gives it back, or falls silent while it holds it and forgets everything.

use super::api::{Client, Write};
use ::chaos::{
    history::{Guard, Told},
    lease::{BELIEF, LEASE, LENGTH, value},
};
use rand::{Rng as _, rngs::StdRng};

#[derive(Default)]
pub(super) struct Elector {
    /// The revision of the lease that it saw last, and when it saw that first.
    seen: Option<(u64, u64)>,
    /// On top of which revision it may write without looking, and until when it holds the lease.
    holds: Option<(u64, u64)>,
    silent_until: u64,
}

/// Of so many turns as the holder it gives the lease back in one, and falls silent in one.
const TURNS: u32 = 16;

fn nanoseconds(length: std::time::Duration) -> u64 {
    length.as_nanos() as u64
}

impl Elector {
    pub(super) async fn step(&mut self, client: &mut Client<'_>, random: &mut StdRng, turn: u64) {
        let now = client.now();
        if now < self.silent_until {
            return;
        }
        match self.holds.filter(|(_, until)| now < *until) {
            Some((revision, _)) => match random.random_range(0..TURNS) {
                0 => {
                    let (value, guard) = (value(None, client.number(), turn), Guard::At(revision));
                    client.write(Write { key: LEASE, value: Some(value), guard }).await;
                    *self = Elector::default();
                    // The others are to have a chance.
                    self.silent_until = client.now() + nanoseconds(LENGTH) / 2;
                }
                1 => {
                    *self = Elector::default();
                    self.silent_until = now + nanoseconds(LENGTH) * 2;
                }
                _ => self.take(client, revision, turn).await,
            },
            None => self.look(client, turn).await,
        }
    }

    /// Takes it if nobody holds it, if it is its own, or if it was not renewed for its length.
    async fn look(&mut self, client: &mut Client<'_>, turn: u64) {
        let Some((holder, revision)) = client.lease().await else { return };
        let now = client.now();
        let since = match self.seen {
            Some((seen, since)) if seen == revision => since,
            _ => now,
        };
        self.seen = Some((revision, since));
        let anothers = holder.is_some_and(|holder| holder != client.number());
        if !anothers || since + nanoseconds(LENGTH) <= now {
            self.take(client, revision, turn).await;
        }
    }

    async fn take(&mut self, client: &mut Client<'_>, revision: u64, turn: u64) {
        let (called, number) = (client.now(), client.number());
        let value = Some(value(Some(number), number, turn));
        let write = Write { key: LEASE, value, guard: Guard::At(revision) };
        self.holds = match client.write(write).await {
            Some(Told::Done(Some(revision))) => Some((revision, called + nanoseconds(BELIEF))),
            // It looks first, before it writes again.
            _ => None,
        };
    }
}
