//! Leadership as the runner sees it: a term to write in, or none.

use std::sync::Arc;
use tokio::sync::watch;

/// `Some(term)` while this process leads. Plans are made and writes go out only then, and each write
/// carries the term as its fence.
#[derive(Clone)]
pub struct Gate {
    term: watch::Receiver<Option<u64>>,
    fenced: bool,
    /// Keeps the channel of [`Gate::open`] alive.
    _sender: Option<Arc<watch::Sender<Option<u64>>>>,
}

impl Gate {
    pub fn new(term: watch::Receiver<Option<u64>>) -> Gate {
        Gate { term, fenced: true, _sender: None }
    }

    /// Always open, and claims no term: for tests and for agents, which lead nothing.
    pub fn open() -> Gate {
        let (sender, term) = watch::channel(Some(0));
        Gate { term, fenced: false, _sender: Some(Arc::new(sender)) }
    }

    /// The term this process leads in.
    pub fn term(&self) -> Option<u64> {
        *self.term.borrow()
    }

    /// What a write made in `term` claims.
    pub fn fence(&self, term: u64) -> Option<u64> {
        self.fenced.then_some(term)
    }

    /// Waits for the next change of [`Gate::term`]; for ever once its source is gone.
    pub async fn changed(&mut self) {
        if self.term.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The term now; a later [`Gate::changed`] waits for another.
    pub fn observe(&mut self) -> Option<u64> {
        *self.term.borrow_and_update()
    }
}
