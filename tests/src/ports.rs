//! Ports for processes that tests start.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below those that the kernel gives to outgoing connections (32768 and up): one that nobody listens on
/// for a while, as a dead master's, is still free when it starts again.
const FIRST: u32 = 12_000;
const BLOCK: u32 = 128;
const BLOCKS: u32 = 160;

/// A port with the five above it, and those from 101 to 105 above it, free; each call has its own.
pub fn free_ports() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    for _ in 0..BLOCKS {
        // What an earlier process of tests left may linger: each begins elsewhere.
        let nth =
            std::process::id().wrapping_mul(37).wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed));
        let base = (FIRST + nth % BLOCKS * BLOCK) as u16;
        let mut wanted = (0..6).chain(101..106).map(|offset| base + offset);
        if wanted.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no free ports")
}

/// Where nobody listens.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_ports())
}
