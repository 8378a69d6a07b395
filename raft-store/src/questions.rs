//! Questions members ask each other for the program around the store. They have nothing to do with
//! the log: an answer is what the asked member says now, and may be lost.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Answers the questions of other members about one topic. Called on a thread that serves peers: it
/// neither waits nor reads a disk.
pub type Answer = Arc<dyn Fn(&[u8]) -> Bytes + Send + Sync>;

/// What this member can be asked, by topic.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<RwLock<BTreeMap<&'static str, Answer>>>);

impl Answers {
    pub(crate) fn set(&self, topic: &'static str, answer: Answer) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(topic, answer);
    }

    /// `None`: nobody here knows the topic (yet).
    pub(crate) fn answer(&self, topic: &str, question: &[u8]) -> Option<Bytes> {
        let answer = self.0.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()?;
        Some(answer(question))
    }
}
