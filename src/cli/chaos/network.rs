//! Cuts in the network between masters: rules in the packet filter of the master's own network
//! namespace, in a table of our own. The table belongs to a process that ends with this program,
//! however that ends, and the kernel drops it then. The machine's own namespace is never touched.

use super::{
    processes::{Process, is_of_master},
    undo::DEAD_MAN,
};
use crate::{cli::members, dev::fabric::spawn_in};
use ::chaos::cut::Cut;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const TABLE: &str = "coxswain_chaos";

/// Until the packet filter has the rules, at most.
const RULES_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What every master must be for its network to be cut, and what that needs; asked before anything is
/// broken.
pub(super) fn check(members: &[Value]) -> Result<()> {
    addresses(members)?;
    for member in members {
        let process = Process::of_member(member)?;
        let namespace = namespace_of(&process, members::name(member))?;
        let listed = run_in(&namespace, &["list", "tables"])?;
        ensure!(listed.0, "cannot see the packet filter's tables: {}", listed.1);
    }
    Ok(())
}

/// Where each master is dialled by the others.
pub(super) fn addresses(members: &[Value]) -> Result<BTreeMap<u64, IpAddr>> {
    let address = |member: &Value| {
        let text = member["peerAddress"].as_str().unwrap_or_default();
        let address: SocketAddr = text.parse().with_context(|| {
            let name = members::name(member);
            format!("master {name} is dialled at {text:?}, which is no address: cannot cut it off")
        })?;
        Ok((members::id(member), address.ip()))
    };
    let found: BTreeMap<u64, IpAddr> = members.iter().map(address).collect::<Result<_>>()?;
    let different: BTreeSet<&IpAddr> = found.values().collect();
    ensure!(different.len() == found.len(), "{}", shared("masters share an address"));
    Ok(found)
}

fn shared(what: &str) -> String {
    format!(
        "{what}: their network cannot be cut without cutting this machine's own. Start the cluster \
         with `coxswain dev --isolate` (needs root), which gives each master a network of its own"
    )
}

/// The network namespace of a master, if nobody else is in it: this machine's own has many in it, this
/// program's has this one, and that of several masters has another master.
pub(super) fn namespace_of(process: &Process, name: &str) -> Result<PathBuf> {
    let path = Path::new("/proc").join(process.pid().to_string()).join("ns/net");
    let own = fs::read_link(&path).with_context(|| {
        format!("{} cannot be read: cutting networks needs root", path.display())
    })?;
    for entry in fs::read_dir("/proc")? {
        let other = entry?.path();
        // Neither those that have just ended nor those that even root may not look at say where they are.
        let there = fs::read_link(other.join("ns/net")).is_ok_and(|namespace| namespace == own);
        if there && !is_of_master(&other, name) {
            let pid = other.file_name().unwrap_or_default().display();
            bail!(shared(&format!("pid {pid} is in the network namespace of master {name} too")));
        }
    }
    Ok(path)
}

/// The table that makes a cut, for `nft`; `owner` means that it goes with the process that made it.
pub(super) fn rules(cut: &Cut, addresses: &BTreeMap<u64, IpAddr>) -> Result<String> {
    let mut text = format!("table inet {TABLE} {{ flags owner; ");
    // Before connections are tracked: a connection that is there is cut as well.
    for (chain, ids, field) in [("input", &cut.from, "saddr"), ("output", &cut.to, "daddr")] {
        write!(text, "chain {chain} {{ type filter hook {chain} priority -300; ")?;
        for id in ids {
            let address =
                addresses.get(id).with_context(|| format!("master {id} has no address"))?;
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            write!(text, "{family} {field} {address} ")?;
            if cut.percent < 100 {
                write!(text, "numgen random mod 100 < {} ", cut.percent)?;
            }
            write!(text, "counter drop; ")?;
        }
        write!(text, "}}; ")?;
    }
    Ok(text + "}\n")
}

/// A cut that lasts until it is dropped, until this program ends, or so long as it may last.
pub(super) struct CutOff {
    /// Owns the table, and ends when its input does.
    nft: Child,
}

impl CutOff {
    /// Returns when the packet filter has the rules.
    pub(super) fn begin(namespace: &Path, rules: &str, hold: Duration) -> Result<CutOff> {
        let mut command = Command::new("timeout");
        command.args([&(hold + DEAD_MAN).as_secs().to_string(), "nft", "-i"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // In a group of its own: Ctrl-C is not for it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let nft = spawn_in(namespace, command).context(CANNOT_START)?;
        let mut cut_off = CutOff { nft };
        let input = cut_off.nft.stdin.as_mut().context("piped")?;
        input.write_all(rules.as_bytes()).context("cannot tell nft the rules")?;
        let since = Instant::now();
        while !run_in(namespace, &["list", "table", "inet", TABLE])?.0 {
            let ended = cut_off.nft.try_wait()?.is_some();
            if ended || since.elapsed() > RULES_TIMEOUT {
                bail!("nft does not take the rules: {}", cut_off.end());
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        Ok(cut_off)
    }

    /// What it had to say.
    fn end(&mut self) -> String {
        drop(self.nft.stdin.take());
        let mut said = String::new();
        if let Some(mut errors) = self.nft.stderr.take() {
            // What cannot be read is not known.
            let _ = errors.read_to_string(&mut said);
        }
        let _ = self.nft.wait();
        said
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        let said = self.end();
        if !said.is_empty() {
            tracing::warn!(said, "nft, which held a cut");
        }
    }
}

const CANNOT_START: &str = "cannot start nft in a master's network (Debian package nftables; root)";

/// Whether `nft` with these words succeeds there, and what it has to say if not.
fn run_in(namespace: &Path, words: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new("nft");
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = spawn_in(namespace, command).context(CANNOT_START)?.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::fabric::{Fabric, Namespace, bind_in, inside};
    use serde_json::json;
    use std::{io, net::TcpStream};

    fn cut(from: &[u64], to: &[u64], percent: u32) -> Cut {
        Cut { from: from.into(), to: to.into(), percent, detail: String::new() }
    }

    #[test]
    fn a_cut_is_a_table_of_its_own() {
        let addresses: BTreeMap<u64, IpAddr> =
            [(1, "10.90.0.11".parse().unwrap()), (3, "fd00::3".parse().unwrap())].into();
        assert_eq!(
            rules(&cut(&[1], &[1, 3], 100), &addresses).unwrap(),
            "table inet coxswain_chaos { flags owner; chain input { type filter hook input priority \
             -300; ip saddr 10.90.0.11 counter drop; }; chain output { type filter hook output \
             priority -300; ip daddr 10.90.0.11 counter drop; ip6 daddr fd00::3 counter drop; }; }\n"
        );
        let loss = rules(&cut(&[1], &[], 20), &addresses).unwrap();
        assert!(loss.contains("ip saddr 10.90.0.11 numgen random mod 100 < 20 counter drop;"));
        assert!(rules(&cut(&[2], &[], 100), &addresses).is_err(), "nobody knows where 2 is");
    }

    #[test]
    fn masters_on_one_address_are_left_alone() {
        let member = |id: u64, at: &str| json!({"id": id, "name": "m", "peerAddress": at});
        let of = |one: &str, two: &str| addresses(&[member(1, one), member(2, two)]);
        assert_eq!(of("10.90.0.11:2380", "10.90.0.12:2380").unwrap().len(), 2);
        let error = of("127.0.0.1:2381", "127.0.0.1:2382").unwrap_err().to_string();
        assert!(error.contains("coxswain dev --isolate"), "{error}");
        assert!(of("10.90.0.11:2380", "m2.example:2380").is_err());
    }

    async fn reaches(from: &Namespace, to: SocketAddr) -> bool {
        let connect = move || async move {
            TcpStream::connect_timeout(&to, Duration::from_millis(300)).map(drop)
        };
        let connected: io::Result<io::Result<()>> = inside(&from.path, connect).await;
        connected.expect("in the namespace").is_ok()
    }

    /// Needs root and `nft`, as everything in namespaces here.
    #[tokio::test]
    async fn a_cut_lasts_until_it_is_dropped_and_concerns_nobody_else() {
        let parent = tempfile::tempdir().unwrap();
        let fabric = Fabric::plan(&parent.path().join("fabric"), 3, 0).unwrap();
        fabric.create().await.unwrap();
        let [one, two, three] = fabric.masters() else { panic!("three") };
        let listen = |at: &Namespace| bind_in(&at.path, (at.address, 2380).into()).unwrap();
        let _listeners = [listen(one), listen(two), listen(three)];
        let at = |it: &Namespace| SocketAddr::from((it.address, 2380));
        let addresses: BTreeMap<u64, IpAddr> =
            (1..).zip([one, two, three].map(|it| it.address.into())).collect();
        let text = rules(&cut(&[2], &[2], 100), &addresses).unwrap();
        let cut_off = CutOff::begin(&one.path, &text, Duration::from_secs(30)).unwrap();
        assert!(!reaches(one, at(two)).await && !reaches(two, at(one)).await);
        assert!(reaches(one, at(three)).await && reaches(three, at(one)).await);
        assert!(reaches(two, at(three)).await);
        drop(cut_off);
        assert!(reaches(one, at(two)).await && reaches(two, at(one)).await);
        let odd = CutOff::begin(&one.path, "table inet\n", Duration::from_secs(1));
        let odd = format!("{:#}", odd.err().expect("no rules"));
        assert!(odd.contains("nft does not take the rules"), "{odd}");
        fabric.remove().unwrap();
    }
}
