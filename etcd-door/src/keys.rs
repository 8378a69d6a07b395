//! etcd's keys are bytes, the store's are text: each byte becomes the character with its number
//! (Latin-1). ASCII stays as it is, order and prefixes are kept, and nothing is ambiguous.

use bytes::Bytes;
use std::sync::Arc;

/// The path of a key.
pub(crate) fn path(key: &[u8]) -> Arc<str> {
    match std::str::from_utf8(key) {
        Ok(text) if key.is_ascii() => text.into(),
        _ => key.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
    }
}

/// The key of a path that `path` has made.
pub(crate) fn key(path: &str) -> Bytes {
    if path.is_ascii() {
        return Bytes::copy_from_slice(path.as_bytes());
    }
    // Only characters of one byte were put in.
    path.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect::<Vec<_>>().into()
}

/// The keys that a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    One(Arc<str>),
    /// From the first up to, but not including, the second; `None`: to the end.
    Many(Arc<str>, Option<Arc<str>>),
}

impl Span {
    /// No end: one key. An end of one zero byte: everything from the key on.
    pub(crate) fn new(key: &[u8], range_end: &[u8]) -> Span {
        match range_end {
            [] => Span::One(path(key)),
            // A key of one zero byte is the first there can be.
            [0] => Span::Many(from(key), None),
            end => Span::Many(from(key), Some(path(end))),
        }
    }

    pub(crate) fn from(&self) -> &Arc<str> {
        match self {
            Span::One(path) | Span::Many(path, _) => path,
        }
    }

    pub(crate) fn contains(&self, other: &str) -> bool {
        match self {
            Span::One(path) => **path == *other,
            Span::Many(from, until) => {
                **from <= *other && until.as_ref().is_none_or(|until| *other < **until)
            }
        }
    }

    /// What all keys in it begin with.
    pub(crate) fn prefix(&self) -> &str {
        let (from, until) = match self {
            Span::One(path) => return path,
            Span::Many(_, None) => return "",
            Span::Many(from, Some(until)) => (from, until),
        };
        if successor(from).is_some_and(|next| *next == **until) {
            return from;
        }
        let same = from.chars().zip(until.chars()).take_while(|(a, b)| a == b);
        &from[..same.map(|(a, _)| a.len_utf8()).sum()]
    }

    /// Whether it is exactly the keys with the prefix that come after another key, which is given if
    /// there is one: the shape of a list and of its next pages.
    pub(crate) fn page(&self) -> Option<(String, Option<&str>)> {
        let Span::Many(from, Some(until)) = self else { return None };
        let prefix = predecessor(until)?;
        match &**from {
            all if *all == prefix => Some((prefix, None)),
            next if next.starts_with(&prefix) => {
                let after = next.strip_suffix('\0')?;
                Some((prefix, Some(after)))
            }
            _ => None,
        }
    }
}

fn from(key: &[u8]) -> Arc<str> {
    if key == [0] { "".into() } else { path(key) }
}

/// The end of the keys with a prefix: its last byte one higher.
fn successor(prefix: &str) -> Option<String> {
    let last = prefix.chars().next_back().filter(|last| *last < '\u{ff}')?;
    let next = char::from_u32(u32::from(last) + 1)?;
    Some(format!("{}{next}", &prefix[..prefix.len() - last.len_utf8()]))
}

/// The prefix whose keys end there.
fn predecessor(end: &str) -> Option<String> {
    let last = end.chars().next_back().filter(|last| *last > '\0')?;
    let before = char::from_u32(u32::from(last) - 1)?;
    Some(format!("{}{before}", &end[..end.len() - last.len_utf8()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![Just(0u8), Just(b'/'), Just(b'a'), Just(0xff), any::<u8>()],
            1..6,
        )
    }

    proptest! {
        #[test]
        fn keys_come_back_and_keep_their_order(a in bytes(), b in bytes()) {
            prop_assert_eq!(&key(&path(&a))[..], &a[..]);
            prop_assert_eq!(path(&a).cmp(&path(&b)), a.cmp(&b));
            prop_assert_eq!(path(&a).starts_with(&*path(&b)), a.starts_with(&b));
        }

        #[test]
        fn a_span_is_what_etcd_says(from in bytes(), end in bytes(), other in bytes()) {
            let span = Span::new(&from, &end);
            let text = path(&other);
            let expected = match &end[..] {
                [0] => from == [0] || other >= from,
                _ => (from == [0] || other >= from) && other < end,
            };
            prop_assert_eq!(span.contains(&text), expected);
            if expected {
                prop_assert!(text.starts_with(span.prefix()));
            }
            if let Some((prefix, after)) = span.page() {
                let there = text.starts_with(&prefix) && after.is_none_or(|after| *text > *after);
                prop_assert_eq!(there, expected);
            }
        }

        #[test]
        fn the_keys_with_a_prefix(prefix in bytes(), rest in bytes()) {
            let Some(end) = successor(&path(&prefix)) else { return Ok(()) };
            // That one means everything from the beginning.
            prop_assume!(prefix != [0]);
            let span = Span::new(&prefix, &key(&end));
            prop_assert_eq!(span.prefix(), &*path(&prefix));
            let next = [&prefix[..], &rest, b"\0"].concat();
            let span = Span::new(&next, &key(&end));
            let after = path(&next[..next.len() - 1]);
            prop_assert_eq!(span.page(), Some((path(&prefix).to_string(), Some(&*after))));
        }
    }
}
