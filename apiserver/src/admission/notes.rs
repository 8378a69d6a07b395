//! What is said of a request besides yes and no: warnings for the client, annotations for the audit.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Of one request; shared by all who decide on it.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<BTreeMap<String, String>>,
    settled: AtomicBool,
}

impl Notes {
    /// Goes out as a `Warning` header, once, whatever becomes of the request.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.is_empty() && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// For the audit event (`annotations`); the first value of a key stays, as upstream has it.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut annotations = self.annotations.lock().unwrap_or_else(PoisonError::into_inner);
        annotations.entry(key.into()).or_insert_with(|| value.into());
    }

    /// The warnings said so far, taken out. Who sends them cuts them.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the audit event is annotated with.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The decision came from outside: asking again on a newer state would only ask them twice.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_said_once() {
        let notes = Notes::default();
        ["a", "", "a", "b"].iter().for_each(|text| notes.warn(*text));
        assert_eq!(notes.take_warnings(), ["a", "b"]);
        assert!(notes.take_warnings().is_empty());
    }

    #[test]
    fn the_first_annotation_of_a_key_stays() {
        let notes = Notes::default();
        notes.annotate("k", "1");
        notes.annotate("k", "2");
        assert_eq!(notes.annotations().get("k").map(String::as_str), Some("1"));
    }
}
