//! Work inside another network namespace: on a thread of its own, which enters it and then ends,
//! so that no other thread is ever in the wrong one.

use nix::sched::{CloneFlags, setns};
use std::{fs::File, future::Future, io, thread};
use tokio::sync::oneshot;

/// Runs `work` to its end in `namespace` (an open `/proc/…/ns/net` or a bind mount of one).
/// Netlink sockets opened there stay there.
pub(crate) async fn inside<T, F, W>(namespace: File, work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = T>,
{
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("netns".into()).spawn(move || {
        // The receiver may be gone: whoever asked was cancelled.
        let _ = sender.send(enter_and_run(&namespace, work));
    })?;
    let lost = |_| io::Error::other("the thread in the network namespace panicked");
    receiver.await.map_err(lost)?
}

fn enter_and_run<T, F, W>(namespace: &File, work: F) -> io::Result<T>
where
    F: FnOnce() -> W,
    W: Future<Output = T>,
{
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work()))
}

/// Runs a test body in a fresh namespace, which vanishes with it.
#[cfg(test)]
pub(crate) fn in_fresh(work: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("tests of the network run as root");
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A fresh namespace, alive as long as the file is open.
#[cfg(test)]
pub(crate) fn fresh() -> File {
    let thread = thread::spawn(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("tests of the network run as root");
        File::open("/proc/thread-self/ns/net").expect("procfs")
    });
    thread.join().expect("the thread only unshares")
}
