//! `coxswain certs`: what masters and administrators prove themselves with, signed anew by the
//! authorities whose keys lie in a master's directory. Nobody is asked: it works when nothing else does.

use super::{exchange, output};
use crate::{
    credentials::{self, Whom, parse, read},
    kubeconfig,
    pki::{self, Authority, Purpose},
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// The certificates of masters and administrators
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// List the certificates in a master's directory: whose they are, by whom, until when
    List {
        /// The master's --pki
        #[arg(long)]
        pki: PathBuf,
    },
    /// Sign a master's certificates anew, with new keys, ahead of time or for other addresses
    Renew {
        /// The master's --pki, with the keys of the authorities
        #[arg(long)]
        pki: PathBuf,

        /// Name of the master (default: the one in peer.crt)
        #[arg(long)]
        name: Option<String>,

        /// Addresses at which it is dialled, besides those in apiserver.crt; may be several
        #[arg(long)]
        address: Vec<IpAddr>,
    },
    #[command(subcommand)]
    Exchange(exchange::Args),
    /// Sign a certificate for an administrator and print a kubeconfig with it
    Admin {
        /// A master's --pki, with the key of the authority
        #[arg(long)]
        pki: PathBuf,

        /// Name of the administrator
        #[arg(long, default_value = "admin")]
        user: String,

        /// https://HOST:PORT of a master, or of what leads to them
        #[arg(long)]
        server: String,
    },
    /// Sign what a node proves itself with, and write all of `coxswain agent --pki` into a directory
    Node {
        /// A master's --pki, with the key of the authority
        #[arg(long)]
        pki: PathBuf,

        /// Name of the node
        #[arg(long)]
        name: String,

        /// Address at which masters and other nodes reach it; may be several
        #[arg(long, required = true)]
        address: Vec<IpAddr>,

        /// Where to write ca.crt, client.crt, client.key, server.crt and server.key
        #[arg(long)]
        out: PathBuf,
    },
}

pub(super) fn run(args: Args) -> Result<()> {
    match args {
        Args::Exchange(args) => super::block_on(exchange::run(args))?,
        Args::List { pki } => output::say(&list(&pki)?),
        Args::Renew { pki, name, address } => {
            output::say(&renew(&pki, &Whom { name, addresses: address })?);
        }
        Args::Node { pki, name, address, out } => {
            output::say(&node(&pki, &name, &address, &out)?);
        }
        Args::Admin { pki, user, server } => output::say(&admin(&pki, &user, &server)?),
    }
    Ok(())
}

fn list(pki: &Path) -> Result<String> {
    let entries = fs::read_dir(pki).with_context(|| format!("cannot read {}", pki.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()
        .with_context(|| format!("cannot read {}", pki.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    paths.sort();
    let rows = paths.iter().map(|path| {
        let pem = read(path)?;
        let cert = parse(path, &pem)?;
        let until = cert.validity().not_after.to_string();
        let state = if cert.validity().is_valid() { "valid" } else { "not valid now" };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (subject, issuer) = (cert.subject().to_string(), cert.issuer().to_string());
        Ok(vec![name, subject, issuer, until, state.into()])
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    Ok(output::table(&["FILE", "SUBJECT", "ISSUER", "UNTIL", "STATE"], &rows))
}

/// What was done, in a sentence.
fn renew(pki: &Path, whom: &Whom) -> Result<String> {
    let signed = credentials::renew(pki, whom, pki::CERTIFICATE_LIFE)?;
    let at: Vec<String> = signed.addresses.iter().map(IpAddr::to_string).collect();
    let (name, at) = (signed.name, at.join(", "));
    Ok(format!("certificates for {name} at {at} are signed; the master takes them up by itself"))
}

/// A node has the CA's certificate, never its key.
fn node(pki: &Path, name: &str, addresses: &[IpAddr], out: &Path) -> Result<String> {
    pki::issue_node(&Authority::read(pki, "ca")?, name, addresses, out)?;
    let out = out.display();
    Ok(format!(
        "certificates for node {name} are in {out}; an agent that uses them takes them up by itself"
    ))
}

fn admin(pki: &Path, user: &str, server: &str) -> Result<String> {
    let authority = Authority::read(pki, "ca")?;
    let pair = authority.issue(&Purpose::Client { user, group: "system:masters" })?;
    Ok(kubeconfig::render(&authority.pair.cert, user, &pair, server, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::{addresses_in, common_name},
        pki::write_authorities,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_master_gets_new_certificates_for_who_it_was_and_where_it_is_now() {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = directory.path();
        write_authorities(pki);
        let whom = |name: Option<&str>, addresses: &[&str]| Whom {
            name: name.map(Into::into),
            addresses: addresses.iter().map(|text| address(text)).collect(),
        };
        assert!(renew(pki, &whom(None, &[])).is_err(), "who it is is not known yet");
        renew(pki, &whom(Some("m1"), &["10.0.0.1"])).expect("signed");
        let before = fs::read(pki.join("apiserver.key")).expect("a key");
        renew(pki, &whom(None, &["10.0.0.9"])).expect("signed again");
        assert_eq!(common_name(&pki.join("peer.crt")).expect("a name"), "m1");
        assert_ne!(fs::read(pki.join("apiserver.key")).expect("a key"), before);
        let at = addresses_in(&pki.join("apiserver.crt")).expect("addresses");
        assert_eq!(at, [address("10.0.0.1"), address("10.0.0.9")]);
        let listed = list(pki).expect("listed");
        assert_eq!(listed.lines().filter(|line| line.ends_with("   valid")).count(), 7, "{listed}");
        let out = directory.path().join("n1");
        node(pki, "n1", &[address("10.0.0.5")], &out).expect("signed");
        assert_eq!(common_name(&out.join("client.crt")).expect("a name"), "system:node:n1");
        assert_eq!(addresses_in(&out.join("server.crt")).expect("read").len(), 2, "loopback too");
        assert!(!out.join("ca.key").exists());
        let config = admin(pki, "anna", "https://10.0.0.1:6443").expect("a kubeconfig");
        assert!(config.contains("anna") && config.contains("https://10.0.0.1:6443"));
    }
}
