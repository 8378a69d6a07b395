use super::*;
use crate::{
    Guard, Key, LogIndex, Op, Revision,
    mutants::{self, Mutant},
    state::{Command, Session, State},
};

struct Alone {
    proposer: Arc<Proposer>,
    shared: Arc<Shared>,
    _leadership: watch::Sender<Leadership>,
}

/// A member's requests with nobody to take them.
fn alone(request: Duration) -> Alone {
    let shared = Arc::new(Shared::new(Session(7), State::default(), None));
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a new registry");
    let (sender, leadership) = watch::channel(Leadership { term: Term(5), ..Default::default() });
    let timers = Timers { request, ..Timers::default() };
    let proposer = Arc::new(Proposer::new(
        shared.clone(),
        metrics,
        leadership,
        &timers,
        Signs::default(),
        Arc::new(crate::Plain),
    ));
    Alone { proposer, shared, _leadership: sender }
}

fn put(path: &str, body: usize) -> Txn {
    Txn::one(Key::new("pods", path), Guard::Any, Op::Put(vec![b'x'; body].into()))
}

fn serials(batch: Option<Batch>) -> (u64, Vec<u64>) {
    let batch = batch.expect("something to send");
    (batch.settled, batch.requests.iter().map(|request| request.serial).collect())
}

#[tokio::test]
async fn what_was_never_sent_is_known_not_to_be_applied() {
    let alone = alone(Duration::from_millis(20));
    let late = alone.proposer.propose(put("p", 1)).await;
    assert!(matches!(late, Err(Error::Unavailable { unknown: false })), "{late:?}");
    let (late, batch) =
        tokio::join!(alone.proposer.propose(put("p", 1)), async { alone.proposer.take_batch() });
    assert_eq!(serials(batch), (2, vec![2]));
    assert!(matches!(late, Err(Error::Unavailable { unknown: true })), "{late:?}");
    assert!(alone.proposer.take_batch().is_none(), "given up requests are not sent");
}

#[tokio::test]
async fn too_much_waiting_is_refused_before_it_is_proposed() {
    let alone = alone(Duration::from_secs(60));
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..8 {
        let proposer = alone.proposer.clone();
        waiting.spawn(async move { proposer.propose(put(&format!("p{n}"), 8 << 20)).await });
    }
    while alone.proposer.queue().pending.len() < 8 {
        tokio::task::yield_now().await;
    }
    let refused = alone.proposer.propose(put("one more", 1)).await;
    assert!(matches!(refused, Err(Error::Overloaded { .. })), "{refused:?}");
    waiting.shutdown().await;
    assert_eq!(alone.proposer.queue().bytes, 0, "callers that go away free their room");
}

#[tokio::test]
async fn a_request_is_sent_again_until_it_is_applied_and_then_settled() {
    let alone = alone(Duration::from_secs(60));
    let proposer = alone.proposer.clone();
    let first = tokio::spawn(async move { proposer.propose(put("a", 1)).await });
    while alone.proposer.queue().pending.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(serials(alone.proposer.take_batch()), (1, vec![1]));
    assert!(alone.proposer.take_batch().is_none(), "sent once");
    let soon = Instant::now() + alone.proposer.resend_after / 2;
    alone.proposer.forget_long_sent(soon);
    assert!(alone.proposer.take_batch().is_none(), "not yet");
    let later = Instant::now() + alone.proposer.resend_after * 3 / 2;
    alone.proposer.forget_long_sent(later);
    let again = alone.proposer.take_batch().expect("again");
    alone.proposer.forget_long_sent(later);
    assert!(alone.proposer.take_batch().is_none(), "more patience the second time");
    // Both copies reach the log; the second changes nothing.
    let encoded = codec::encode_batches(vec![again.clone(), again]);
    let command: Command =
        codec::decode(encoded, &crate::Plain, codec::VERSION).expect("a command");
    let applied = alone.shared.apply(Term(5), LogIndex(1), &command);
    assert_eq!(applied.changes.len(), 1);
    alone.shared.announce(LogIndex(1), &applied);
    let done = first.await.expect("a task").expect("applied");
    assert_eq!(done.revision, Revision(1));
    let proposer = alone.proposer.clone();
    let _second = tokio::spawn(async move { proposer.propose(put("b", 1)).await });
    while alone.proposer.queue().pending.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(serials(alone.proposer.take_batch()), (2, vec![2]), "the first is settled");
}

#[tokio::test]
async fn an_old_fence_is_refused_without_asking_anyone() {
    let alone = alone(Duration::from_secs(60));
    let old = Txn { fence: Some(Term(4)), ..put("p", 1) };
    let refused = alone.proposer.propose(old).await;
    assert!(matches!(refused, Err(Error::Fenced { fence: Term(4), current: Term(5) })));
}

/// What a leader took and lost (it could not reach a quorum for a moment) nobody will ever answer.
#[test]
fn a_lost_request_is_sent_again_however_much_there_is_to_do() {
    let times = times_the_first_is_sent();
    assert!(times > 1, "sent {times} times in five seconds");
    mutants::switch(Some(Mutant::LostWhileBusy));
    assert_eq!(times_the_first_is_sent(), 1, "this test finds the mistake");
    mutants::switch(None);
}

fn times_the_first_is_sent() -> usize {
    let serials = crate::sim::simulated(async {
        let (alone, inbox) = (alone(Duration::from_secs(60)), Inbox::default());
        let mut serials = Vec::new();
        let proposing = async {
            let mut waiting = futures::stream::FuturesUnordered::new();
            for n in 0..100 {
                waiting.push(alone.proposer.propose(put(&format!("p{n}"), 1)));
                let pause = sleep(Duration::from_millis(50));
                tokio::select! {
                    biased;
                    () = pause => {}
                    _ = waiting.next() => panic!("nobody answers"),
                }
                let taken = inbox.take_entry().into_iter().flat_map(|batch| batch.requests);
                serials.extend(taken.map(|request| request.serial));
            }
        };
        tokio::select! {
            biased;
            () = proposing => {}
            () = alone.proposer.send_to_inbox(&inbox) => {}
        }
        serials
    });
    serials.iter().filter(|serial| **serial == 1).count()
}
