//! SPDY/3.1 as Kubernetes' streaming clients speak it: many streams over one connection. Knows
//! frames and streams; never what is said in them.
//!
//! Framing after draft-mbelshe-httpbis-spdy-00 (version 3). Flow-control windows are read and not
//! enforced, because the clients in the field (moby/spdystream) never open one again: what bounds a
//! sender is the connection itself, and what bounds memory here are the queues in [`session`].

pub mod frame;
pub mod header;
pub mod session;

pub use header::Headers;
pub use session::{Reader, Session, Stream, Writer};

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer broke the protocol; the session ends.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}
