//! What sets something right when this program ends, however it ends: a process of its own that waits
//! for the end of its input.

use anyhow::{Context, Result};
use std::{
    ffi::OsStr,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// It is done so long after its time by itself, should this program stand still.
pub(super) const DEAD_MAN: Duration = Duration::from_secs(10);

/// A step that is taken when this is dropped, or when this program ends.
pub(super) struct Undo {
    waits: Child,
    /// For who has to take the step by hand.
    step: String,
}

impl Undo {
    /// `script` is of the shell, with `words` as `$1`, `$2` and so on; at the latest it is run after
    /// `hold` and a little more.
    pub(super) fn new(script: &str, words: &[&OsStr], hold: Duration) -> Result<Undo> {
        let limit = (hold + DEAD_MAN).as_secs();
        let step = format!("{script} {words:?}");
        let script = format!("timeout {limit} cat > /dev/null; {script}");
        let mut waits = Command::new("sh");
        waits.arg("-c").arg(script).arg("sh").args(words);
        waits.stdin(Stdio::piped()).stdout(Stdio::null());
        // In a group of its own: Ctrl-C is not for it.
        std::os::unix::process::CommandExt::process_group(&mut waits, 0);
        let waits = waits.spawn().context("cannot start who sets right what a fault does")?;
        Ok(Undo { waits, step })
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        drop(self.waits.stdin.take());
        match self.waits.wait() {
            Ok(status) if status.success() => {}
            other => {
                tracing::warn!(?other, step = self.step, "what a fault did is not set right");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_is_done_when_it_is_dropped_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("a 'name'"), directory.path().join("b"));
        fs::write(&one, "x").unwrap();
        let words = [one.as_os_str(), two.as_os_str()];
        let undo = Undo::new("mv \"$1\" \"$2\"", &words, Duration::from_secs(60)).unwrap();
        assert!(one.exists() && !two.exists());
        drop(undo);
        assert!(!one.exists() && two.exists());
    }
}
