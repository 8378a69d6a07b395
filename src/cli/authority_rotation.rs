//! A master follows an exchange of authorities by itself, whoever began it, and one that leads begins it before an
//! authority ends. Each master says how far it is and asks the others; [`standing`](super::standing) has the rules,
//! [`exchanging`](super::exchanging) the steps.

use super::{exchanging::Exchanging, standing::Picture};
use anyhow::{Context, Result, ensure};
use apiserver::{
    Server,
    exchange::{AuthorityName, Exchange as _},
};
use bytes::Bytes;
use raft_store::{MemberStatus, Store};
use serde_json::Value;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// Of questions between masters: how far the asked one is.
const TOPIC: &str = "authorities";
/// Between two looks: what was written takes up to ten seconds until it is in use.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Until dropped.
pub(super) async fn keep(server: Server, store: Store, exchanging: Exchanging) {
    let follower = Follower { server, store, exchanging, said: Arc::default() };
    let said = follower.said.clone();
    // What it said last: whoever is asked does not read files.
    let answer = move |_: &[u8]| said.read().unwrap_or_else(PoisonError::into_inner).clone();
    follower.store.answer(TOPIC, Arc::new(answer));
    let mut waits = String::new();
    loop {
        let why = follower.look().await.err().map_or(String::new(), |error| format!("{error:#}"));
        if why != waits && !why.is_empty() {
            tracing::warn!("an exchange of authorities does not go on: {why}");
        }
        waits = why;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Follower {
    server: Server,
    store: Store,
    exchanging: Exchanging,
    said: Arc<RwLock<Bytes>>,
}

impl Follower {
    /// Makes what steps are due.
    async fn look(&self) -> Result<()> {
        let own = self.say().await?;
        let members = self.store.members();
        let mut all = vec![(self.name(&members)?, own)];
        let mut silent = Vec::new();
        for member in members.iter().filter(|member| member.id != self.store.member()) {
            let told = self.store.ask(member.id, TOPIC, Bytes::new()).await;
            match told.and_then(|told| serde_json::from_slice(&told).ok()) {
                Some(told) => all.push((member.name.clone(), told)),
                None => silent.push(member.name.as_str()),
            }
        }
        let own = all.first().map_or("", |(own, _)| own);
        let pictures = AuthorityName::ALL.map(|name| (name, Picture::of(name, &all)));
        if !silent.is_empty() {
            let on = pictures.iter().any(|(_, picture)| picture.has_begun());
            ensure!(!on, "it waits for {}", silent.join(", "));
            return Ok(());
        }
        let mut made = Ok(());
        for (name, picture) in pictures {
            // One that does not go on keeps no other.
            made = made.and(self.follow(name, own, &picture).await.context(name));
        }
        made
    }

    /// Makes the step that is due, if there is one.
    async fn follow(&self, name: AuthorityName, own: &str, picture: &Picture) -> Result<()> {
        let leads = self.store.leadership().borrow().leading.is_some();
        let Some((step, authority)) = picture.due(own, leads)? else { return Ok(()) };
        tracing::info!(%name, ?step, authority, "an exchange of authorities goes on");
        let made = self.exchanging.make(name, step, authority).await;
        made.map_err(|status| anyhow::Error::msg(status.message))
    }

    /// Says how far this master is, to whoever asks from now on.
    async fn say(&self) -> Result<Value> {
        let server = self.server.clone();
        let own = tokio::task::spawn_blocking(move || server.authorities()).await?;
        let text = Bytes::from(own.to_string());
        *self.said.write().unwrap_or_else(PoisonError::into_inner) = text;
        Ok(own)
    }

    fn name(&self, members: &[MemberStatus]) -> Result<String> {
        let own = members.iter().find(|member| member.id == self.store.member());
        Ok(own.context("this master is no member")?.name.clone())
    }
}
