//! A certificate and its key in two files that are replaced as one: a new key waits beside the old one
//! until its certificate is there, so that the power may go off at any time.

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write as _,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use x509_parser::{extensions::GeneralName, pem::parse_x509_pem};

/// Where a certificate and its key are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Place {
    /// The key that a certificate is asked for, before it has one.
    fn next_key(&self) -> PathBuf {
        self.key.with_added_extension("next")
    }

    /// The key that waits for its certificate; `None`: nothing is asked for.
    pub(super) fn read_next_key(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.next_key()) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_next_key(&self, key: &str) -> io::Result<()> {
        if let Some(directory) = self.key.parent() {
            fs::create_dir_all(directory)?;
        }
        write_private(&self.next_key(), key)
    }

    /// No certificate will come for it.
    pub(super) fn forget_next_key(&self) -> io::Result<()> {
        match fs::remove_file(self.next_key()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts the certificate of the key that waits, and that key, in the place of the old ones.
    pub(super) fn install(&self, cert: &str) -> io::Result<()> {
        write_private(&self.cert, cert)?;
        self.take_next_key()
    }

    /// Ends an installation that was interrupted between its two files.
    pub(crate) fn heal(&self) -> io::Result<()> {
        let Some(next) = self.read_next_key()? else { return Ok(()) };
        let Ok(cert) = fs::read(&self.cert) else { return Ok(()) };
        match crate::credentials::certified(&cert, &[], next.as_bytes()) {
            Ok(_) => self.take_next_key(),
            // It still waits.
            Err(_) => Ok(()),
        }
    }

    fn take_next_key(&self) -> io::Result<()> {
        fs::rename(self.next_key(), &self.key)?;
        sync_directory(&self.key)
    }
}

/// On return the file holds the new text on disk, whole, readable by its owner alone.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let here = Path::new(".");
    let directory = path.parent().filter(|directory| *directory != Path::new("")).unwrap_or(here);
    fs::File::open(directory)?.sync_all()
}

/// What a certificate says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) common_name: String,
    /// DNS names in lower case, and addresses.
    pub(super) names: BTreeSet<String>,
    /// Seconds since 1970.
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Facts {
    /// Of the first certificate in PEM text.
    pub(super) fn of(pem: &[u8]) -> Option<Facts> {
        let (_, pem) = parse_x509_pem(pem).ok()?;
        let cert = pem.parse_x509().ok()?;
        let common_name = cert.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        let names = cert.subject_alternative_name().ok()?;
        let names = names.map(|extension| extension.value.general_names.as_slice());
        Some(Facts {
            common_name: common_name.to_string(),
            names: names.unwrap_or_default().iter().filter_map(name).collect(),
            from: cert.validity().not_before.timestamp(),
            until: cert.validity().not_after.timestamp(),
        })
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
