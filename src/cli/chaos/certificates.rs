//! Certificates of a master that end: all it proves itself with is replaced by what has ended already,
//! and one of the keys that sign it anew is out of its reach for a while. Given back, the master heals
//! itself.

use super::{processes::Process, undo::Undo};
use crate::{
    cli::members,
    credentials::{Whom, has_authorities, renew},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Without it a master signs none of its certificates, and runs all the same.
const KEY: &str = "peer-ca.key";
const HIDDEN: &str = "peer-ca.key.hidden-by-chaos";
/// For the moment in which files are written.
const WRITE_TIME: Duration = Duration::from_secs(1);

/// Every master must sign its own certificates; asked before anything is broken.
pub(super) fn check(members: &[Value]) -> Result<()> {
    for member in members {
        let name = members::name(member);
        let process = Process::of_member(member)?;
        let pki = directory(&process)?;
        let missing = || {
            format!(
                "master {name} could not sign its certificates anew: the keys of the authorities are \
                 not in {}",
                pki.display()
            )
        };
        ensure!(has_authorities(&pki), missing());
    }
    Ok(())
}

fn directory(process: &Process) -> Result<PathBuf> {
    Ok(process.word("--pki").context("a master was started without --pki")?.into())
}

/// Certificates that have ended and cannot be signed anew, until it is dropped.
pub(super) struct Ended {
    #[expect(dead_code, reason = "gives the key back")]
    key: Undo,
}

/// With `again` the master dies, and begins with the certificates that have ended: none of its old
/// connections is left. Otherwise it takes them up as it runs.
pub(super) fn begin(process: &Process, again: bool, hold: Duration) -> Result<Ended> {
    let pki = directory(process)?;
    // It must not sign anything between the two steps.
    let paused = process.pause(WRITE_TIME)?;
    process.stand_still()?;
    let ended = end(&pki, hold)?;
    drop(paused);
    if again {
        process.kill()?;
    }
    Ok(ended)
}

fn end(pki: &Path, hold: Duration) -> Result<Ended> {
    let (key, hidden) = (pki.join(KEY), pki.join(HIDDEN));
    renew(pki, &Whom::default(), Duration::ZERO)?;
    // Before there is anything to be undone.
    let words = [hidden.as_os_str(), key.as_os_str()];
    let undo = Undo::new("! test -e \"$1\" || mv -f \"$1\" \"$2\"", &words, hold)?;
    fs::rename(&key, &hidden).with_context(|| format!("cannot hide {}", key.display()))?;
    Ok(Ended { key: undo })
}

/// Whether somebody who connects was told that the certificate has ended.
pub(super) fn says_ended(error: &anyhow::Error) -> bool {
    use rustls::{CertificateError, Error};
    let io = error.chain().filter_map(|it| it.downcast_ref::<std::io::Error>());
    let mut tls = io.filter_map(|it| it.get_ref()?.downcast_ref::<Error>());
    tls.any(|it| {
        matches!(
            it,
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            )
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{self, MasterNames};

    #[test]
    fn what_has_ended_is_signed_anew_only_when_the_key_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let pki = directory.path();
        pki::write_authorities(pki);
        let names = MasterNames { name: "m1", addresses: &["10.0.0.1".parse().unwrap()] };
        pki::issue_master(pki, &names, pki::CERTIFICATE_LIFE).unwrap();
        let is_valid = || {
            let (_, until) = pki::life(&fs::read(pki.join("apiserver.crt")).unwrap()).unwrap();
            until > time::OffsetDateTime::now_utc()
        };
        assert!(is_valid() && has_authorities(pki));
        let ended = end(pki, Duration::from_secs(60)).unwrap();
        assert!(!is_valid() && !has_authorities(pki));
        drop(ended);
        assert!(!is_valid() && has_authorities(pki));
        assert!(renew(pki, &Whom::default(), pki::CERTIFICATE_LIFE).is_ok() && is_valid());
    }
}
