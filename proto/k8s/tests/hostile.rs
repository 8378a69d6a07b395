//! The fuzz targets on stable: some thousands of damaged inputs for each decoder.

#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

/// How many changed inputs each decoder gets.
// About a second for all of them together in a debug build.
const CASES: usize = 2000;

#[test]
fn no_decoder_breaks() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in targets::TARGETS {
        mutate::run(name, *target, &corpus, CASES);
    }
}
