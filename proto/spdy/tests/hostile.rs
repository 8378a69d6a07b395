//! The fuzz target on stable: some thousands of damaged sessions.

#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/src/session.rs"]
mod session;

use bytes::{Bytes, BytesMut};
use spdy::{Headers, frame::Frame, header::Packer};
use std::{fs, path::PathBuf};

fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus"))
}

#[test]
fn no_session_breaks() {
    let (name, target) = session::TARGET;
    mutate::run(name, target, &corpus(), 2000);
}

/// Writes the inputs that the fuzzer begins with.
#[test]
#[ignore = "changes the tree"]
fn write_corpus() {
    let named = |name: &str| -> Headers { vec![("streamtype".into(), name.into())] };
    let (mut packer, mut wire) = (Packer::default(), BytesMut::new());
    for frame in [
        Frame::SynStream { id: 1, fin: false, headers: named("error") },
        Frame::SynStream { id: 3, fin: false, headers: named("stdin") },
        Frame::Data { id: 3, fin: false, bytes: Bytes::from_static(b"echo hello") },
        Frame::Ping(1),
        Frame::WindowUpdate { id: 3, delta: 65_536 },
        Frame::Headers { id: 3, fin: false, headers: named("more") },
        Frame::Data { id: 3, fin: true, bytes: Bytes::new() },
        Frame::RstStream { id: 1, status: 5 },
        Frame::GoAway { last: 0, status: 0 },
    ] {
        frame.encode(&mut packer, &mut wire);
    }
    let (name, _) = session::TARGET;
    fs::create_dir_all(corpus().join(name)).expect("a directory");
    fs::write(corpus().join(name).join("exec"), &wire).expect("written");
}
