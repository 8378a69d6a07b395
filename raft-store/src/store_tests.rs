use super::*;
use crate::{Change, Guard, Op, Write};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn put(space: &str, path: &str, body: &str) -> Txn {
    Txn::one(Key::new(space, path), Guard::Any, Op::Put(body.to_owned().into()))
}

fn delete(space: &str, path: &str) -> Txn {
    Txn::one(Key::new(space, path), Guard::Any, Op::Delete)
}

fn seen(changes: &[Arc<Change>]) -> Vec<(u64, String)> {
    changes.iter().map(|c| (c.revision.0, c.key().path.to_string())).collect()
}

#[tokio::test]
async fn a_watch_waits_for_its_own_space() {
    let store = Store::in_memory();
    let mut watch = store.watch("pods", "a/", Revision(0)).expect("a watch");
    store.txn(put("nodes", "n1", "x")).await.expect("committed");
    store.txn(put("pods", "b/1", "x")).await.expect("committed");
    assert_eq!(watch.position(), Revision(1), "a pod that nobody looked at yet");
    {
        let mut next = std::pin::pin!(watch.next());
        assert!(futures::poll!(next.as_mut()).is_pending(), "nothing under a/ yet");
    }
    assert_eq!(watch.position(), Revision(2), "all looked at, nothing missed");
    store.txn(put("nodes", "n2", "x")).await.expect("committed");
    assert_eq!(watch.position(), Revision(3));
    store.txn(put("pods", "a/1", "x")).await.expect("committed");
    assert_eq!(watch.position(), Revision(3));
    assert_eq!(seen(&watch.next().await.expect("a change")), vec![(4, "a/1".into())]);
    assert_eq!(watch.position(), Revision(4));
}

#[tokio::test]
async fn a_watch_from_the_future_or_from_compacted_history_is_refused() {
    let store = Store::in_memory();
    for n in 0..5 {
        store.txn(put("pods", "p", &n.to_string())).await.expect("committed");
    }
    let future = store.watch("pods", "", Revision(6)).err();
    assert!(matches!(future, Some(Error::Future { current: Revision(5), .. })), "{future:?}");
    let mut slow = store.watch("pods", "", Revision(1)).expect("a watch");
    store.compact(Revision(3)).await.expect("compacted");
    let gone = slow.next().await.err();
    assert!(matches!(gone, Some(Error::Compacted { oldest: Revision(3) })), "{gone:?}");
    let old = store.range_at("pods", "", None, None, Revision(2)).await.err();
    assert!(matches!(old, Some(Error::Compacted { oldest: Revision(3) })), "{old:?}");
    let mut resumed = store.watch("pods", "", Revision(3)).expect("a watch");
    assert_eq!(seen(&resumed.next().await.expect("changes")).len(), 2);
}

#[tokio::test]
async fn shutdown_ends_every_wait() {
    let store = Store::in_memory();
    let mut watch = store.watch("pods", "", Revision(0)).expect("a watch");
    let (ended, ()) = tokio::join!(watch.next(), store.shutdown());
    assert!(matches!(ended, Err(Error::Stopped(_))), "{ended:?}");
    let refused = store.txn(put("pods", "p", "x")).await;
    assert!(matches!(refused, Err(Error::Stopped(_))), "{refused:?}");
}

#[tokio::test]
async fn wait_for_gives_up_at_its_deadline() {
    let store = Store::in_memory();
    let waited = store.wait_for(Revision(1), Duration::ZERO).await;
    assert!(matches!(waited, Err(Error::Unavailable { unknown: false })), "{waited:?}");
    store.txn(put("pods", "p", "x")).await.expect("committed");
    store.wait_for(Revision(1), Duration::from_secs(1)).await.expect("reached");
}

#[tokio::test]
async fn too_large_is_refused_before_it_is_proposed() {
    let store = Store::in_memory();
    let refused = store.txn(put("pods", "p", &"x".repeat(TXN_BYTES_MAX + 1))).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.revision(), Revision(0));
}

/// A transaction of the random test: which paths, and whether each is put or deleted.
fn transactions() -> impl Strategy<Value = Vec<Vec<(u8, bool)>>> {
    prop::collection::vec(prop::collection::vec((0u8..12, prop::bool::weighted(0.7)), 0..4), 1..40)
}

fn key(n: u8) -> Key {
    let space = if n.is_multiple_of(3) { "nodes" } else { "pods" };
    Key::new(space, format!("{}/{n}", if n.is_multiple_of(2) { "even" } else { "odd" }))
}

type Contents = BTreeMap<(String, String), (String, u64)>;

/// The plainest possible store: what the real one must agree with at every revision.
#[derive(Default)]
struct Model {
    now: Contents,
    at: Vec<Contents>,
    changes: Vec<(u64, String, String, bool)>,
}

impl Model {
    fn apply(&mut self, n: u8, put: bool, body: &str) {
        let Key { space, path } = key(n);
        let (key, revision) = ((space.to_string(), path.to_string()), self.at.len() as u64 + 1);
        if put {
            self.now.insert(key.clone(), (body.into(), revision));
        } else if self.now.remove(&key).is_none() {
            return;
        }
        self.changes.push((revision, key.0, key.1, put));
        self.at.push(self.now.clone());
    }

    fn page(&self, space: &str, prefix: &str, at: u64) -> Vec<(String, String, u64)> {
        let contents = at.checked_sub(1).map(|i| self.at[i as usize].clone()).unwrap_or_default();
        let within = |(key, _): &((String, String), (String, u64))| {
            key.0 == space && key.1.starts_with(prefix)
        };
        contents.into_iter().filter(within).map(|(k, (body, r))| (k.1, body, r)).collect()
    }
}

async fn fill(store: &Store, transactions: &[Vec<(u8, bool)>]) -> Model {
    let mut model = Model::default();
    for (i, txn) in transactions.iter().enumerate() {
        let body = format!("v{i}");
        let write = |&(n, put): &(u8, bool)| {
            let op = if put { Op::Put(body.clone().into()) } else { Op::Delete };
            Write { key: key(n), guard: Guard::Any, op }
        };
        let writes = txn.iter().map(write).collect();
        store.txn(Txn { writes, ..Txn::default() }).await.expect("committed");
        txn.iter().for_each(|&(n, put)| model.apply(n, put, &body));
    }
    model
}

fn items(page: &Page) -> Vec<(String, String, u64)> {
    let one = |s: &Arc<Stored>| {
        (s.key.path.to_string(), String::from_utf8_lossy(&s.body).into_owned(), s.revision.0)
    };
    page.items.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every matching change exactly once, in order, from any revision to resume at.
    #[test]
    fn a_watch_keeps_its_contract(transactions in transactions(), resume in 0u64..200) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::in_memory();
            let mut live = store.watch("pods", "even/", Revision(0)).expect("a watch");
            let model = fill(&store, &transactions).await;
            let resume = Revision(resume % (store.revision().0 + 1));
            let mut late = store.watch("pods", "even/", resume).expect("a watch");
            for (watch, after) in [(&mut live, 0), (&mut late, resume.0)] {
                let expected: Vec<_> = model.changes.iter()
                    .filter(|c| c.0 > after && c.1 == "pods" && c.2.starts_with("even/"))
                    .map(|c| (c.0, c.2.clone(), c.3)).collect();
                let mut got = Vec::new();
                while got.len() < expected.len() {
                    let changes = watch.next().await.expect("changes");
                    got.extend(changes.iter().map(|c| {
                        (c.revision.0, c.key().path.to_string(), c.new.is_some())
                    }));
                }
                prop_assert_eq!(got, expected);
                prop_assert!(futures::poll!(std::pin::pin!(watch.next())).is_pending());
                prop_assert_eq!(watch.position(), store.revision());
            }
            Ok(())
        })?;
    }

    /// A read at any revision, in pages, is what was there then.
    #[test]
    fn a_read_at_a_revision_is_what_was_there(
        transactions in transactions(), at in 0u64..200, limit in 1usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::in_memory();
            let model = fill(&store, &transactions).await;
            let at = Revision(at % (store.revision().0 + 1));
            let expected = model.page("pods", "", at.0);
            let (mut got, mut after): (Vec<_>, Option<String>) = (Vec::new(), None);
            loop {
                let page = store.range_at("pods", "", after.as_deref(), Some(limit), at).await
                    .expect("a page");
                prop_assert_eq!(page.revision, at);
                got.extend(items(&page));
                prop_assert_eq!(page.remaining as usize, expected.len() - got.len());
                if page.remaining == 0 { break }
                after = page.items.last().map(|item| item.key.path.to_string());
            }
            prop_assert_eq!(got, expected);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_deleted_key_starts_anew() {
    let store = Store::in_memory();
    store.txn(put("pods", "p", "1")).await.expect("committed");
    store.txn(delete("pods", "p")).await.expect("committed");
    store.txn(put("pods", "p", "2")).await.expect("committed");
    let stored = store.get(&Key::new("pods", "p")).expect("there");
    assert_eq!((stored.created, stored.revision), (Revision(3), Revision(3)));
    assert_eq!(store.spaces(), vec![("pods".into(), 1)]);
}

#[tokio::test]
async fn a_revision_is_seen_as_a_whole_or_not_at_all() {
    const KEYS: usize = 600;
    let store = Store::in_memory();
    store.txn(put("kv", "000", "before")).await.expect("committed");
    let write = |n: usize| Write {
        key: Key::new("kv", format!("{n:03}")),
        guard: Guard::Any,
        op: Op::Put("after".into()),
    };
    let writes = (0..KEYS).map(write).collect();
    let txn = Txn { writes, one_revision: true, ..Txn::default() };
    let committed = store.txn(txn).await.expect("committed");
    assert_eq!(committed.revision, Revision(2));
    assert!(committed.revisions.iter().all(|revision| *revision == Some(Revision(2))));
    let mut watch = store.watch("kv", "", Revision(1)).expect("a watch");
    let changes = watch.next().await.expect("changes");
    let places: Vec<usize> = changes.iter().map(|change| change.place as usize).collect();
    assert_eq!(places, (0..KEYS).collect::<Vec<_>>(), "more than one call takes otherwise");
    let before = store.range_at("kv", "", None, None, Revision(1)).await.expect("a page");
    assert_eq!(before.items.len(), 1);
    let (keys, versions) = store.look(|view| {
        let items: Vec<_> = view.between("kv", "000", Some("599")).collect();
        (items.len(), items[0].version)
    });
    assert_eq!((keys, versions), (KEYS - 1, 2));
}
