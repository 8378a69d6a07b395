//! Strings and lists that live as long as the process, as the fields of a `KindDef` do. Each distinct
//! one is kept once: what definitions name grows with what was ever defined, not with how often.

use crate::kinds::Subresource;
use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
};

static TEXTS: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
static LISTS: LazyLock<Mutex<HashSet<&'static [&'static str]>>> = LazyLock::new(Mutex::default);
static SUBRESOURCES: Mutex<Vec<&'static [Subresource]>> = Mutex::new(Vec::new());

pub(super) fn text(text: &str) -> &'static str {
    let mut known = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(text) {
        return known;
    }
    let kept: &'static str = Box::leak(text.into());
    known.insert(kept);
    kept
}

pub(super) fn list<'a>(list: impl Iterator<Item = &'a str>) -> &'static [&'static str] {
    let list: Vec<&'static str> = list.map(text).collect();
    let mut known = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(&list[..]) {
        return known;
    }
    let kept: &'static [&'static str] = Box::leak(list.into());
    known.insert(kept);
    kept
}

pub(super) fn subresources(list: Vec<Subresource>) -> &'static [Subresource] {
    let mut known = SUBRESOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.iter().find(|known| ***known == list[..]) {
        return known;
    }
    let kept: &'static [Subresource] = Box::leak(list.into());
    known.push(kept);
    kept
}
