//! How bodies are hidden from whoever can read the log, the disk or a backup. The store only says
//! where; what is hidden, and with which key, is the embedding program's.

use crate::types::Key;
use bytes::Bytes;
use std::fmt;

/// Hides and opens bodies. In memory they are open.
///
/// `open(key, seal(key, body)) == body`, on every member and for as long as anything sealed is kept.
pub trait Seal: fmt::Debug + Send + Sync {
    /// As the log and the disk are to have it; unchanged if it is not to be hidden.
    fn seal(&self, key: &Key, body: &Bytes) -> Bytes;

    /// What [`Seal::seal`] was given. An error stops the member: it cannot go on without the body.
    fn open(&self, key: &Key, body: Bytes) -> Result<Bytes, Unopened>;

    /// The names of the keys without which what is sealed now cannot be opened, for whoever keeps a
    /// backup. Never the keys.
    fn keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// Told of every version on this member, in order of revisions, before anything later is opened:
    /// a program that keeps its keys in the store learns them here.
    fn learn(&self, key: &Key, body: &Bytes);
}

/// This member cannot read what others wrote: give it the keys they have.
#[derive(Debug, thiserror::Error)]
#[error("the sealed version of {space}/{path}: {why}")]
pub struct Unopened {
    pub space: String,
    pub path: String,
    pub why: String,
}

/// Hides nothing.
#[derive(Debug)]
pub struct Plain;

impl Seal for Plain {
    fn seal(&self, _: &Key, body: &Bytes) -> Bytes {
        body.clone()
    }

    fn open(&self, _: &Key, body: Bytes) -> Result<Bytes, Unopened> {
        Ok(body)
    }

    fn learn(&self, _: &Key, _: &Bytes) {}
}
