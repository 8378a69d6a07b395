//! `coxswain backup`: take a backup of the running cluster, look at those there are, check one
//! without restoring it; and what `coxswain server` needs to take them by itself.

use super::{
    client::{Connection, Target, refused},
    output,
};
use ::chaos::scenario::duration;
use anyhow::{Context as _, Result, bail};
use backup::{HEADER_BYTES_MAX, Item, Kind, Name, Place, Plan, Schedule, Shelf, chain, checked};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use raft_store::{
    Store,
    backup::{Chain, Found, Header, Reader, Since, check},
};
use std::{
    io::Read,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Backups of the whole cluster
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Take a backup while the cluster runs, from whichever master answers
    Create {
        /// Where to: a directory, a file, or s3://BUCKET/PREFIX
        #[arg(long, default_value = ".")]
        to: String,

        /// Only what changed since this backup: a file, or s3://BUCKET/PREFIX/NAME
        #[arg(long)]
        since: Option<String>,

        /// Cluster and user; without it $KUBECONFIG or ~/.kube/config
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
    /// List the backups in a directory or bucket
    List {
        /// A directory, or s3://BUCKET/PREFIX
        #[arg(default_value = ".")]
        place: String,
    },
    /// Read a backup, and what it continues, and check everything; restores nothing
    Verify {
        /// A file, or s3://BUCKET/PREFIX/NAME
        backup: String,
    },
}

/// Backups that a master takes by itself while it leads.
#[derive(clap::Args)]
pub(super) struct Scheduled {
    /// Where backups go that are taken by the clock: a directory, or s3://BUCKET/PREFIX
    #[arg(long)]
    backup_to: Option<String>,

    /// How often, such as 1m, 6h or 24h: at whole multiples of it, in UTC
    #[arg(long, default_value = "6h", value_parser = duration, requires = "backup_to")]
    backup_schedule: Duration,

    /// Every so many backups one is full; the others hold what changed since the one before
    #[arg(long, default_value_t = 1, requires = "backup_to")]
    backup_full_every: usize,

    /// Full backups that are kept, each with what continues it
    #[arg(long, default_value_t = 7, requires = "backup_to")]
    backup_keep: usize,
}

impl Scheduled {
    /// Begins to take backups, if that is wanted.
    pub(super) fn start(
        &self,
        store: &Store,
        registry: &prometheus::Registry,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let Some(to) = &self.backup_to else { return Ok(()) };
        let place = Place::parse(to, variable).context("--backup-to")?;
        if let Some(file) = place.file {
            bail!("--backup-to {to}: {file} is one backup; name where many can be");
        }
        let schedule = Schedule { every: self.backup_schedule, full_every: self.backup_full_every };
        let plan = Plan { shelf: place.shelf, schedule, keep: self.backup_keep };
        let (store, registry, stop) = (store.clone(), registry.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = backup::run(plan, store, &registry, stop).await {
                tracing::error!(%error, "no backups are taken");
            }
        });
        Ok(())
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args {
        Args::Create { to, since, kubeconfig } => create(&to, since.as_deref(), kubeconfig).await,
        Args::List { place } => list(&place).await,
        Args::Verify { backup } => verify(&backup).await,
    }
}

async fn create(to: &str, since: Option<&str>, kubeconfig: Option<PathBuf>) -> Result<()> {
    let place = Place::parse(to, variable)?;
    let target = Target::from_kubeconfig(kubeconfig.as_deref())?;
    let base = match since {
        None => None,
        Some(since) => {
            let One { shelf, file } = one(since)?;
            Some(Since::from(&shelf.header(&file).await?))
        }
    };
    let begun = Instant::now();
    let (header, pieces) = ask(&target, base.as_ref()).await?;
    if !header.confirmed {
        output::warn(
            "this master cannot ask a quorum: what it does not have yet is not in the backup",
        );
    }
    let file = place.file.clone().unwrap_or_else(|| Name::of(&header).to_string());
    output::warn(&format!("taking {file} at revision {} to {}", header.revision, place.shelf));
    let (pieces, found) = checked(Box::pin(counted(pieces)), file.clone());
    let bytes = place.shelf.put(&file, pieces).await?;
    let Found { records, objects } = found.await.context("the backup was not checked")?;
    output::say(&format!(
        "{file}: {records} versions, {} in {:.1} s; sound{}",
        size(bytes),
        begun.elapsed().as_secs_f64(),
        match base {
            None => format!("; {objects} objects at revision {}", header.revision),
            Some(base) => format!("; continues {} from revision {}", base.id, base.revision),
        },
    ));
    for key in &header.keys {
        output::say(&format!("what is sealed in it needs key {key}: keep secrets.key elsewhere"));
    }
    Ok(())
}

type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// A backup from the first master that gives one: its header, and all of its bytes.
async fn ask(target: &Target, since: Option<&Since>) -> Result<(Header, Pieces)> {
    let path = match since {
        None => "/coxswain/backup".to_string(),
        Some(since) => {
            let since = serde_json::to_string(since)?;
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("since", &since)
                .finish();
            format!("/coxswain/backup?{query}")
        }
    };
    let mut why = anyhow::anyhow!("the kubeconfig names no server");
    for server in &target.servers {
        let begun = async {
            let mut connection = Connection::open(server, target.tls.clone()).await?;
            let (code, body) = connection.send(http::Method::GET, &path, Vec::new()).await?;
            anyhow::Ok((connection, code, body))
        };
        match begun.await {
            Ok((connection, 200, body)) => return begin(connection, body).await,
            Ok((_, code, body)) => {
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                why = refused(server, code, &body);
            }
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// Reads up to the header; what was read for it is also in the pieces.
async fn begin(connection: Connection, body: hyper::body::Incoming) -> Result<(Header, Pieces)> {
    let mut frames = Box::pin(stream::unfold((connection, body), |(connection, mut body)| async {
        loop {
            let frame = match body.frame().await? {
                Ok(frame) => frame.into_data().ok(),
                Err(error) => {
                    let why = format!("the master broke off: {error}");
                    return Some((Err(why), (connection, body)));
                }
            };
            if let Some(piece) = frame {
                return Some((Ok(piece), (connection, body)));
            }
        }
    }));
    let mut first = Vec::new();
    loop {
        match frames.next().await {
            Some(Ok(piece)) => first.extend_from_slice(&piece),
            Some(Err(why)) => bail!(why),
            None => bail!("the master sent no backup"),
        }
        match Reader::open(&first[..], "what the master sends") {
            Ok(reader) => {
                let header = reader.header().clone();
                let begin = stream::iter([Ok(Bytes::from(first))]);
                return Ok((header, Box::pin(begin.chain(frames))));
            }
            Err(error) if first.len() as u64 > HEADER_BYTES_MAX => return Err(error.into()),
            // Not all of it is there yet.
            Err(_) => {}
        }
    }
}

/// Says now and then how much has come.
fn counted(pieces: Pieces) -> impl Stream<Item = Result<Bytes, String>> {
    let (mut bytes, mut said) = (0, Instant::now());
    pieces.inspect(move |piece| {
        bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            output::warn(&format!("  {}", size(bytes)));
        }
    })
}

/// `12.3 MB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

async fn list(place: &str) -> Result<()> {
    let Place { shelf, file: None } = Place::parse(place, variable)? else {
        bail!("{place} is one backup; name where they are");
    };
    let row = |Item { name, bytes }: &Item| {
        let kind = match &name.kind {
            Kind::Full => "full".to_string(),
            Kind::After(base) => format!("after {base}"),
        };
        let revision = name.revision.to_string();
        vec![name.time(), revision, name.id.clone(), kind, size(*bytes), name.to_string()]
    };
    let rows: Vec<Vec<String>> = shelf.list().await?.iter().map(row).collect();
    output::say(&output::table(&["TAKEN", "REVISION", "ID", "KIND", "SIZE", "NAME"], &rows));
    Ok(())
}

/// One backup on a shelf.
pub(super) struct One {
    pub(super) shelf: Shelf,
    pub(super) file: String,
}

pub(super) fn one(text: &str) -> Result<One> {
    match Place::parse(text, variable)? {
        Place { shelf, file: Some(file) } => Ok(One { shelf, file }),
        Place { shelf, file: None } => {
            bail!("{shelf} is no backup; `coxswain backup list` shows them")
        }
    }
}

/// The files of a backup and all that it continues, oldest first; if something is missing, only the
/// backup itself, and what.
pub(super) async fn files(one: &One) -> Result<(Vec<String>, Option<String>)> {
    let header = one.shelf.header(&one.file).await?;
    let Some(base) = &header.base else { return Ok((vec![one.file.clone()], None)) };
    let all: Vec<Name> = one.shelf.list().await?.into_iter().map(|item| item.name).collect();
    let found = all.iter().find(|name| name.id == base.id);
    let before = match found {
        Some(found) => chain(&all, found),
        None => Err(format!("it continues {}, which is not beside it", base.id)),
    };
    Ok(match before {
        Ok(before) => {
            let before = before.iter().map(Name::to_string);
            (before.chain([one.file.clone()]).collect(), None)
        }
        Err(why) => (vec![one.file.clone()], Some(why)),
    })
}

/// Opens them; blocks. With the bytes of all together.
pub(super) fn open(shelf: &Shelf, files: &[String]) -> Result<(Chain<Box<dyn Read + Send>>, u64)> {
    let (mut readers, mut all) = (Vec::new(), 0);
    for file in files {
        let (from, bytes) = shelf.read(file)?;
        readers.push(Reader::open(from, file)?);
        all += bytes;
    }
    Ok((Chain::new(readers)?, all))
}

/// Says now and then how far the reading is.
pub(super) fn watcher() -> impl FnMut(&Chain<Box<dyn Read + Send>>) {
    let mut said = Instant::now();
    move |chain| {
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            let (file, bytes, objects) = chain.progress();
            output::warn(&format!("  {file}: {}, {objects} objects", size(bytes)));
        }
    }
}

async fn verify(backup: &str) -> Result<()> {
    let one = one(backup)?;
    let (files, missing) = files(&one).await?;
    let (shelf, count, begun) = (one.shelf.clone(), files.len(), Instant::now());
    let read = move || -> Result<(Header, Found, u64)> {
        let (mut chain, bytes) = open(&shelf, &files)?;
        let found = check(&mut chain, watcher())?;
        Ok((chain.newest().clone(), found, bytes))
    };
    let (header, found, bytes) = tokio::task::spawn_blocking(read).await??;
    let Header { cluster, oldest, revision, program, members, keys, .. } = &header;
    output::say(&format!(
        "sound: {} versions in {count} files, {} read in {:.1} s",
        found.records,
        size(bytes),
        begun.elapsed().as_secs_f64()
    ));
    output::say(&format!("of cluster {cluster}, taken by coxswain {program}"));
    let names: Vec<&str> = members.iter().map(|member| member.peer.name.as_str()).collect();
    output::say(&format!("masters then: {}", names.join(", ")));
    if !keys.is_empty() {
        output::say(&format!("what is sealed in it needs secrets.key with {}", keys.join(", ")));
    }
    match missing {
        Some(why) => bail!("it cannot be restored: {why}"),
        None => output::say(&format!(
            "any revision from {oldest} to {revision} can be restored; {} objects at the last",
            found.objects
        )),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_read_at_a_glance() {
        let sizes = [7, 12_345, 12_345_678, 12_345_678_901].map(super::size);
        assert_eq!(sizes, ["7 B", "12.3 kB", "12.3 MB", "12.3 GB"]);
    }
}
