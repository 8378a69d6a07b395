//! What is said of a request besides yes and no: warnings for the client, annotations for the audit.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Longest single warning and all of them together, in bytes (upstream's `truncateAtRunes` limits).
const WARNING_BYTES_MAX: usize = 256;
const WARNINGS_BYTES_MAX: usize = 4096;

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

    /// The warnings said so far, taken out; cut if they are too long to be sent whole.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut *warnings);
        if all.iter().map(String::len).sum::<usize>() > WARNINGS_BYTES_MAX {
            all.iter_mut().for_each(|text| cut(text, WARNING_BYTES_MAX));
            let mut total = 0;
            all.retain(|text| {
                total += text.len();
                total <= WARNINGS_BYTES_MAX
            });
        }
        all
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

fn cut(text: &mut String, bytes: usize) {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_said_once_and_cut_only_when_there_are_too_many() {
        let notes = Notes::default();
        notes.warn("a");
        notes.warn("a");
        notes.warn("é".repeat(500));
        assert_eq!(notes.take_warnings().iter().map(String::len).collect::<Vec<_>>(), [1, 1000]);
        assert!(notes.take_warnings().is_empty());
        (0..20).for_each(|n| notes.warn(format!("{n}{}", "é".repeat(300))));
        let lengths: Vec<usize> = notes.take_warnings().iter().map(String::len).collect();
        assert!(lengths.iter().all(|length| *length <= 256), "{lengths:?}");
        assert!(lengths.iter().sum::<usize>() <= 4096);
    }

    #[test]
    fn the_first_annotation_of_a_key_stays() {
        let notes = Notes::default();
        notes.annotate("k", "1");
        notes.annotate("k", "2");
        assert_eq!(notes.annotations().get("k").map(String::as_str), Some("1"));
    }
}
