//! Watches: one task for each, all of a stream into one channel, in which a revision is never torn
//! apart unless the client can put it together again.

use crate::{
    compaction,
    keys::Span,
    kv::Door,
    proto::{
        mvccpb::{Event, KeyValue, event::EventType},
        rpc::{
            WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
            watch_request::RequestUnion, watch_server::Watch,
        },
    },
    record::{KEYS, key_value},
    status,
};
use futures::FutureExt as _;
use raft_store::{Change, Error, Revision};
use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// Answers that a client has not taken yet; then its watches wait.
const ANSWERS_AHEAD: usize = 64;
/// Questions that one watch has not answered yet; then its stream waits.
const QUESTIONS_AHEAD: usize = 16;
/// An answer carries about so many bytes of events.
const ANSWER_BYTES: usize = 1 << 20;
/// A watch with `progress_notify` that has nothing to tell says so this often.
// kube-apiserver asks for five seconds where etcd lets it choose.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// What an answer about all watches of a stream has for an id.
const ALL_WATCHES: i64 = -1;

type Answer = Result<WatchResponse, Status>;
type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

/// Tells the asker when everything up to a revision has been sent.
struct Question {
    revision: Revision,
    sent: oneshot::Sender<()>,
}

#[tonic::async_trait]
impl Watch for Door {
    type WatchStream = Answers;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (sender, answers) = mpsc::channel(ANSWERS_AHEAD);
        let requests = request.into_inner();
        let conversation = Conversation {
            door: self.clone(),
            answers: sender,
            watches: BTreeMap::new(),
            tasks: JoinSet::new(),
            next_id: 0,
        };
        let stopping = self.stopping().clone();
        // Ends with its client: what it sends then fails, and so does what it reads.
        tokio::spawn(async move {
            let _ = stopping.run_until_cancelled(conversation.hold(requests)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// The watches of one stream.
struct Conversation {
    door: Door,
    answers: mpsc::Sender<Answer>,
    watches: BTreeMap<i64, (mpsc::Sender<Question>, tokio::task::AbortHandle)>,
    tasks: JoinSet<()>,
    next_id: i64,
}

/// The client has gone.
struct Gone;

impl Conversation {
    async fn hold(mut self, mut requests: Streaming<WatchRequest>) {
        loop {
            let request = tokio::select! {
                () = self.answers.closed() => return,
                request = requests.next() => request,
            };
            let Some(Ok(WatchRequest { request_union: Some(request) })) = request else {
                return;
            };
            while self.tasks.try_join_next().is_some() {}
            let done = match request {
                RequestUnion::CreateRequest(create) => self.create(create).await,
                RequestUnion::CancelRequest(cancel) => self.cancel(cancel.watch_id).await,
                RequestUnion::ProgressRequest(_) => self.progress().await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }

    fn about(&self, watch_id: i64) -> WatchResponse {
        let header = self.door.header(self.door.store().revision());
        WatchResponse { header, watch_id, ..WatchResponse::default() }
    }

    fn choose_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.watches.contains_key(&asked)).then_some(asked);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        let Some(id) = self.choose_id(create.watch_id) else {
            let refused = WatchResponse {
                created: true,
                canceled: true,
                cancel_reason: "mvcc: duplicate watch ID provided on the WatchStream".into(),
                ..self.about(ALL_WATCHES)
            };
            return self.send(refused).await;
        };
        let store = self.door.store();
        let (now, oldest) = store.look(|view| (view.revision(), compaction::oldest(view)));
        let start = u64::try_from(create.start_revision).ok().filter(|start| *start > 0);
        let start = Revision(start.unwrap_or(now.0 + 1));
        let created = WatchResponse { created: true, ..self.about(id) };
        self.send(created).await?;
        if start < oldest {
            return self.send(compacted(self.about(id), oldest)).await;
        }
        let after = Revision(start.0 - 1).min(now);
        let watch = match store.watch(KEYS, Span::of(&create).prefix(), after) {
            Ok(watch) => watch,
            Err(Error::Compacted { oldest }) => {
                return self.send(compacted(self.about(id), Revision(oldest.0 + 1))).await;
            }
            Err(error) => {
                let _ = self.answers.send(Err(status::of(error))).await;
                return Err(Gone);
            }
        };
        let (questions, asked) = mpsc::channel(QUESTIONS_AHEAD);
        let one = One {
            door: self.door.clone(),
            id,
            selection: Selection::new(&create, start),
            answers: self.answers.clone(),
            questions: asked,
            waiting: Vec::new(),
            progress_notify: create.progress_notify,
            fragment: create.fragment,
        };
        let task = self.tasks.spawn(one.follow(watch));
        self.watches.insert(id, (questions, task));
        Ok(())
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        let Some((_, task)) = self.watches.remove(&id) else { return Ok(()) };
        task.abort();
        let canceled = WatchResponse { canceled: true, ..self.about(id) };
        self.send(canceled).await
    }

    /// Says up to which revision every watch of the stream has been told everything, as soon as that
    /// is what there is now.
    async fn progress(&mut self) -> Result<(), Gone> {
        let revision = self.door.store().revision();
        let mut sent = Vec::new();
        for (questions, _) in self.watches.values() {
            let (done, answer) = oneshot::channel();
            // One that has ended has nothing more to say.
            if questions.send(Question { revision, sent: done }).await.is_ok() {
                sent.push(answer);
            }
        }
        let answer = WatchResponse {
            header: self.door.header(revision),
            watch_id: ALL_WATCHES,
            ..WatchResponse::default()
        };
        let answers = self.answers.clone();
        // Not waited for here: a watch may be far behind, and the client may cancel it meanwhile.
        self.tasks.spawn(async move {
            for sent in sent {
                let _ = sent.await;
            }
            let _ = answers.send(Ok(answer)).await;
        });
        Ok(())
    }
}

fn compacted(about: WatchResponse, oldest: Revision) -> WatchResponse {
    WatchResponse {
        canceled: true,
        compact_revision: oldest.0.cast_signed(),
        cancel_reason: "etcdserver: mvcc: required revision has been compacted".into(),
        ..about
    }
}

impl Span {
    /// What a watch is about; nothing at all means everything from the beginning.
    fn of(create: &WatchCreateRequest) -> Span {
        match &create.key[..] {
            [] => Span::new(&[0], &create.range_end),
            key => Span::new(key, &create.range_end),
        }
    }
}

/// Which events a watch is told.
struct Selection {
    span: Span,
    start: Revision,
    puts: bool,
    deletes: bool,
    prev_kv: bool,
}

impl Selection {
    fn new(create: &WatchCreateRequest, start: Revision) -> Selection {
        Selection {
            span: Span::of(create),
            start,
            puts: create.filters().all(|filter| filter != FilterType::Noput),
            deletes: create.filters().all(|filter| filter != FilterType::Nodelete),
            prev_kv: create.prev_kv,
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let wanted = if change.new.is_some() { self.puts } else { self.deletes };
        if !wanted || change.revision < self.start || !self.span.contains(&change.key().path) {
            return None;
        }
        let old = change.old.as_ref().filter(|_| self.prev_kv);
        let prev_kv = old.map(|old| key_value(old, false));
        let (kind, kv) = match &change.new {
            Some(new) => (EventType::Put, key_value(new, false)),
            None => {
                let key = crate::keys::key(&change.key().path);
                let mod_revision = change.revision.0.cast_signed();
                (EventType::Delete, KeyValue { key, mod_revision, ..KeyValue::default() })
            }
        };
        Some(Event { r#type: kind.into(), kv: Some(kv), prev_kv })
    }
}

/// One watch.
struct One {
    door: Door,
    id: i64,
    selection: Selection,
    answers: mpsc::Sender<Answer>,
    questions: mpsc::Receiver<Question>,
    waiting: Vec<Question>,
    progress_notify: bool,
    fragment: bool,
}

impl One {
    async fn follow(mut self, mut watch: raft_store::Watch) {
        let mut quiet_since = Instant::now();
        loop {
            if !self.waiting.is_empty() {
                // Looks at what has happened; without that the position may be an old one.
                if let Some(next) = watch.next().now_or_never() {
                    quiet_since = Instant::now();
                    if self.tell(next).await.is_err() {
                        return;
                    }
                }
                let position = watch.position();
                for question in self.waiting.extract_if(.., |it| it.revision <= position) {
                    let _ = question.sent.send(());
                }
            }
            let next_progress = quiet_since + PROGRESS_EVERY;
            tokio::select! {
                biased;
                next = watch.next() => {
                    quiet_since = Instant::now();
                    if self.tell(next).await.is_err() {
                        return;
                    }
                }
                Some(question) = self.questions.recv() => self.waiting.push(question),
                () = tokio::time::sleep_until(next_progress), if self.progress_notify => {
                    quiet_since = Instant::now();
                    let mut progress = self.about(watch.position());
                    progress.watch_id = self.id;
                    if self.answers.send(Ok(progress)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn about(&self, revision: Revision) -> WatchResponse {
        let header = self.door.header(revision);
        WatchResponse { header, watch_id: self.id, ..WatchResponse::default() }
    }

    async fn send(&self, answer: Answer) -> Result<(), Gone> {
        self.answers.send(answer).await.map_err(|_| Gone)
    }

    /// Sends what is to be seen of some changes. An error ends the watch.
    async fn tell(&self, next: Result<Vec<Arc<Change>>, Error>) -> Result<(), Gone> {
        let changes = match next {
            Ok(changes) => changes,
            Err(Error::Compacted { oldest }) => {
                let next = Revision(oldest.0 + 1);
                let about = self.about(self.door.store().revision());
                self.send(Ok(compacted(about, next))).await?;
                return Err(Gone);
            }
            Err(error) => {
                self.send(Err(status::of(error))).await?;
                return Err(Gone);
            }
        };
        let mut answer = self.about(Revision(0));
        let mut bytes = 0;
        for of_one in changes.chunk_by(|a, b| a.revision == b.revision) {
            let revision = of_one[0].revision;
            for event in of_one.iter().filter_map(|change| self.selection.event(change)) {
                if self.fragment && bytes > ANSWER_BYTES {
                    let header = self.door.header(revision);
                    let part = WatchResponse { fragment: true, header, ..answer };
                    self.send(Ok(part)).await?;
                    (answer, bytes) = (self.about(Revision(0)), 0);
                }
                bytes += prost::Message::encoded_len(&event);
                answer.events.push(event);
            }
            answer.header = self.door.header(revision);
            if bytes > ANSWER_BYTES {
                self.send(Ok(answer)).await?;
                (answer, bytes) = (self.about(Revision(0)), 0);
            }
        }
        match answer.events.is_empty() {
            true => Ok(()),
            false => self.send(Ok(answer)).await,
        }
    }
}
