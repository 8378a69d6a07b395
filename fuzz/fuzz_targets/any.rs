//! The one body of every target: what runs is the target of the binary's name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile::run(env!("CARGO_BIN_NAME"), data));
