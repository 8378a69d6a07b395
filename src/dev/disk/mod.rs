//! A disk that can be made to fail, for a master of a development cluster: a directory seen through
//! FUSE, in a process of its own. What was not synced is in this process only, and goes when it is told
//! that the power failed. It never touches anything but that directory.

mod control;
mod files;
mod nodes;
mod unsynced;

pub(crate) use control::{Given, Order, SOCKET, tell};

use anyhow::{Context, Result};
use files::{Disk, Faults, Files};
use fuser::{Config, MountOption, Session};
use nix::{
    mount::{MntFlags, umount2},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
    thread,
};

/// A slow sync does not keep other files waiting: the store has a log and a state.
const THREADS: usize = 8;

/// Stands before `directory`, whose files go through it, and takes orders at `socket`, until told to
/// stop; then everything is on the real disk.
pub(crate) fn run(directory: &Path, socket: &Path) -> Result<()> {
    // With whoever started us gone, nobody could stop us any more.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;
    let where_ = || directory.display().to_string();
    fs::create_dir_all(directory).with_context(where_)?;
    // Opened before it is hidden: what it holds is reached from here only.
    let disk = Arc::new(Disk::on(directory).with_context(where_)?);
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("coxswain-disk".into()), MountOption::DefaultPermissions];
    config.n_threads = Some(THREADS);
    let session = Session::new(Files(disk.clone()), directory, &config)
        .with_context(|| format!("cannot mount {} (needs root and /dev/fuse)", where_()))?;
    let mounted = session.spawn().context("cannot serve the disk")?;
    let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
    let ordered = disk.clone();
    thread::Builder::new().name("orders".into()).spawn(move || {
        // One after the other: only one fault at a time is had.
        for connection in listener.incoming().map_while(Result::ok) {
            if let Err(error) = obey(&ordered, connection) {
                tracing::warn!("{error:#}");
            }
        }
    })?;
    signals.wait()?;
    disk.nodes().sync_all().context("cannot put everything on the real disk")?;
    mounted.umount_and_join().with_context(|| format!("cannot unmount {}", where_()))
}

/// Takes away what a disk that was killed has left at `at`; nothing happens if there is nothing.
pub(crate) fn clear(at: &Path) -> Result<()> {
    match umount2(at, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", at.display())),
    }
}

/// Does what the connection's line says, and undoes it when the connection ends.
fn obey(disk: &Disk, mut connection: UnixStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(connection.try_clone()?).read_line(&mut line)?;
    let answer = Order::parse(&line).and_then(|order| begin(disk, order));
    match &answer {
        Ok(done) => writeln!(connection, "ok {done}")?,
        Err(error) => writeln!(connection, "{error:#}")?,
    }
    // Until whoever gave the order is gone, however.
    let _ = connection.read_exact(&mut [0]);
    *disk.faults() = Faults::default();
    Ok(())
}

fn begin(disk: &Disk, order: Order) -> Result<String> {
    let none = Faults::default();
    let faults = match order {
        Order::Ping => none,
        Order::PowerCut(seed) => {
            let lost = disk.nodes().power_cut(seed)?;
            tracing::warn!(lost, seed, "power cut");
            return Ok(format!("{lost} bytes lost"));
        }
        Order::Slow(slower_by) => Faults { slower_by, ..none },
        Order::Full => Faults { full: true, ..none },
        Order::NearlyFull => Faults { nearly_full: true, ..none },
        Order::FailingSync => Faults { failing_sync: true, ..none },
    };
    *disk.faults() = faults;
    tracing::warn!(?faults, "until the order ends");
    Ok(String::new())
}
