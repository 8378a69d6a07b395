//! Work that only masters can do, because it needs a key that no controller has: done by the one that
//! leads, object by object, through the API and under an identity of its own.

use crate::{
    Identity, Server,
    authn::{bootstrap_token, legacy, service_account},
    certificates, memo,
};
use futures::future::BoxFuture;
use k8s::{Api, Object, Status};
use raft_store::{Term, Watch};
use std::{sync::Arc, time::Duration};

/// Everything is looked at again this often, so that what failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// One kind of such work.
pub(crate) struct Chore {
    pub(crate) name: &'static str,
    /// Whose objects it looks at.
    pub(crate) space: &'static str,
    /// Its service account in kube-system.
    pub(crate) account: &'static str,
    pub(crate) work: Work,
}

/// Brings one object to where it should be; called again for each of its versions.
pub(crate) type Work = for<'a> fn(&'a Desk, Arc<Object>) -> BoxFuture<'a, Result<(), Status>>;

/// What a chore works with.
pub(crate) struct Desk {
    pub(crate) server: Server,
    /// The API under the chore's identity.
    pub(crate) api: Arc<dyn Api>,
    pub(crate) term: Term,
}

/// All of them.
const CHORES: &[Chore] = &[
    bootstrap_token::CLEAN,
    certificates::CHORE,
    certificates::serving::CHORE,
    legacy::FILL,
    legacy::FOLLOW,
];

impl Server {
    /// Does the work of the leading master while this member leads. Runs until dropped; once a
    /// process.
    pub async fn chores(&self) {
        let each = CHORES.iter().map(|chore| run(self.clone(), chore));
        futures::future::join_all(each).await;
    }
}

/// Ends with the store.
async fn run(server: Server, chore: &'static Chore) {
    let mut leadership = server.core.store.leadership();
    loop {
        let leading = leadership.borrow_and_update().leading;
        let Some(term) = leading else {
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        };
        let user = service_account::username("kube-system", chore.account);
        let groups = service_account::groups("kube-system");
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let api = server.client(Identity::authenticated(&user, &groups));
        let desk = Desk { server: server.clone(), api, term };
        tokio::select! {
            () = round(chore, &desk) => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// All objects, then every change for a while.
async fn round(chore: &Chore, desk: &Desk) {
    let store = &desk.server.core.store;
    let since = store.revision();
    for stored in store.range(chore.space, "", None, None).items {
        one(chore, desk, memo::object(&stored)).await;
    }
    let follow = async {
        let Ok(mut changes) = store.watch(chore.space, "", since) else { return };
        while let Some(objects) = next(&mut changes).await {
            for object in objects {
                one(chore, desk, object).await;
            }
        }
    };
    if tokio::time::timeout(AGAIN, follow).await.is_ok() {
        // The watch ended by itself; not at once again.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn next(changes: &mut Watch) -> Option<Vec<Arc<Object>>> {
    let changes = changes.next().await.ok()?;
    let new = changes.iter().filter_map(|change| change.new.as_ref());
    Some(new.map(|stored| memo::object(stored)).collect())
}

async fn one(chore: &Chore, desk: &Desk, object: Arc<Object>) {
    let name = object.name().to_string();
    match (chore.work)(desk, object).await {
        Ok(()) => {}
        // Somebody else changed or removed it: its next version comes by.
        Err(status) if status.is_conflict() || status.is_not_found() => {}
        Err(status) => tracing::warn!(chore = chore.name, name, %status, "not done; tried again"),
    }
}
