//! `coxswain bench large`: a store with many objects. How long it takes to fill, how much memory and
//! disk it has, how long a flush, a backup and a start take, and what writes feel of them.

use super::{
    figures::{Figures, measure, note},
    process::resident_bytes,
    store::{Put, open},
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use raft_store::{Guard, Key, Op, Store, Txn};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};

const MEMBERS: u64 = 3;
/// Of a transaction that fills the store: as many objects as make an entry of some 256 KiB.
const FILL_BYTES: usize = 256 << 10;
/// Between two flushes of a member: each finds something to write.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);
/// Transactions of the filling that are on their way at once.
const FILLERS: usize = 16;

/// Measure a store with many objects: memory, flush, backup, restart, and writes during each
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the members keep their data; on the disk that is to be measured
    #[arg(long)]
    data_dir: Option<PathBuf>,

    /// Objects that the store has
    #[arg(long, default_value_t = 1_000_000)]
    objects: usize,

    /// Bytes of each
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,

    /// Concurrent writers while the store is busy otherwise
    #[arg(long, default_value_t = 64)]
    clients: usize,

    /// Seconds for each figure of the writers
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let directory = args.data_dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("coxswain-bench-large-{}", std::process::id()))
    });
    let stores = open(&directory, MEMBERS).await?;
    let result = measure_all(&args, &directory, &stores).await;
    for store in &stores {
        store.shutdown().await;
    }
    drop(stores);
    let result = match result {
        Ok(()) => start_again(&args, &directory).await,
        Err(error) => Err(error),
    };
    std::fs::remove_dir_all(&directory)
        .with_context(|| format!("cannot remove {}", directory.display()))?;
    result
}

async fn measure_all(args: &Args, directory: &Path, stores: &[Store]) -> Result<()> {
    fill(args, &stores[0]).await?;
    let flushed = flush(stores).await?;
    note(
        "large_flush",
        json!({
            "objects": args.objects,
            "seconds": flushed.as_secs_f64(),
            "resident_bytes_of_all_members": resident_bytes(std::process::id())?,
            "disk_bytes_of_all_members": size_of(directory)?,
        }),
    );
    let (file, before) = (directory.join("backup"), Instant::now());
    let bytes = backup(&stores[0], &file).await?;
    let seconds = before.elapsed().as_secs_f64();
    note("large_backup", json!({"objects": args.objects, "seconds": seconds, "bytes": bytes}));

    let base = writes(args, stores).await?;
    report(args, "nothing else", &base, &base);
    let busy: [(&str, Busy); 3] = [
        ("flushes on all members", Busy::Flush),
        ("compaction to the newest revision", Busy::Compact),
        ("backups of every member", Busy::Backup(file)),
    ];
    for (name, busy) in busy {
        let mut tasks = JoinSet::new();
        for store in stores {
            tasks.spawn(busy.clone().run(store.clone()));
        }
        let during = tokio::select! {
            during = writes(args, stores) => during?,
            Some(ended) = tasks.join_next() => {
                ended??;
                anyhow::bail!("{name}: ended before the writes did")
            }
        };
        tasks.shutdown().await;
        report(args, name, &during, &base);
    }
    Ok(())
}

fn report(args: &Args, during: &str, figures: &Figures, base: &Figures) {
    let ratio = figures.percentile_ms(99) / base.percentile_ms(99);
    let ratio = (ratio * 100.0).round() / 100.0;
    let extra = json!({
        "objects": args.objects,
        "clients": args.clients,
        "during": during,
        "p99_to_base": ratio,
    });
    figures.report("large_put", extra);
}

async fn writes(args: &Args, stores: &[Store]) -> Result<Figures> {
    let clients: Vec<Store> = stores.iter().cycle().take(args.clients).cloned().collect();
    let step = Put { value: vec![b'y'; args.bytes].into() };
    measure(clients, Duration::from_secs(args.seconds), step).await
}

/// What members do besides writing.
#[derive(Clone)]
enum Busy {
    Flush,
    Compact,
    Backup(PathBuf),
}

impl Busy {
    /// One after the other, until aborted.
    async fn run(self, store: Store) -> Result<()> {
        loop {
            match &self {
                Busy::Flush => {
                    store.flush().await?;
                    tokio::time::sleep(FLUSH_PAUSE).await;
                }
                // Only the leader can; the sweep that follows is every member's.
                Busy::Compact => {
                    let _ = store.compact(store.revision()).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Busy::Backup(file) => {
                    let file = file.with_extension(store.member().to_string());
                    backup(&store, &file).await?;
                }
            }
        }
    }
}

async fn fill(args: &Args, store: &Store) -> Result<()> {
    let (pool, began) = (noise(args.bytes), Instant::now());
    let batch = (FILL_BYTES / args.bytes.max(1)).clamp(1, 512);
    let mut filling = JoinSet::new();
    for first in (0..args.objects).step_by(batch) {
        if filling.len() == FILLERS
            && let Some(written) = filling.join_next().await
        {
            written??;
        }
        let writes = (first..args.objects.min(first + batch)).map(|number| {
            let key = Key::new("large", format!("default/object-{number:09}"));
            let from = number * 97 % (pool.len() - args.bytes);
            let body = pool.slice(from..from + args.bytes);
            raft_store::Write { key, guard: Guard::Absent, op: Op::Put(body) }
        });
        let txn = Txn { writes: writes.collect(), ..Txn::default() };
        let store = store.clone();
        filling.spawn(async move { store.txn(txn).await.map(drop) });
    }
    while let Some(written) = filling.join_next().await {
        written??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = (args.objects as f64 / seconds).round();
    let extra = json!({"objects": args.objects, "bytes": args.bytes, "seconds": seconds, "objects_per_second": rate});
    note("large_fill", extra);
    Ok(())
}

/// Bytes that no compression makes smaller, enough for bodies of `bytes` that differ.
fn noise(bytes: usize) -> Bytes {
    let mut pool = vec![0; bytes + (1 << 20)];
    rand::fill(&mut pool[..]);
    pool.into()
}

/// How long the slowest member takes to write its state out and shorten its log.
async fn flush(stores: &[Store]) -> Result<Duration> {
    let before = Instant::now();
    futures::future::try_join_all(stores.iter().map(Store::flush)).await?;
    Ok(before.elapsed())
}

async fn backup(store: &Store, file: &Path) -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut taken = store.backup(now, None).await?;
    let mut output = tokio::fs::File::create(file).await?;
    let mut bytes = 0;
    while let Some(piece) = taken.stream.recv().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        output.write_all(&piece).await?;
    }
    output.sync_all().await?;
    Ok(bytes)
}

/// Until all members, started from what is on their disks, answer linearizable reads with everything.
async fn start_again(args: &Args, directory: &Path) -> Result<()> {
    let before = Instant::now();
    let stores = open(directory, MEMBERS).await?;
    let opened = before.elapsed();
    for store in &stores {
        while store.barrier().await.is_err() {
            ensure!(
                before.elapsed() < Duration::from_secs(120),
                "no quorum two minutes after the start"
            );
        }
        let objects = store.range("large", "", None, None).items.len();
        ensure!(objects == args.objects, "{objects} of {} objects after the restart", args.objects);
    }
    let extra = json!({
        "objects": args.objects,
        "seconds_until_open": opened.as_secs_f64(),
        "seconds_until_read": before.elapsed().as_secs_f64(),
        "resident_bytes_of_all_members": resident_bytes(std::process::id())?,
    });
    note("large_restart", extra);
    for store in stores {
        store.shutdown().await;
    }
    Ok(())
}

fn size_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { size_of(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}
