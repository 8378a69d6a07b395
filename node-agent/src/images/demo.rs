//! A small image made from this machine's own busybox, so that a cluster runs something without
//! any registry.

use super::{Error, Hashing, Result, hex_of};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::Command,
};

/// Debian's and Alpine's places.
const BUSYBOX: [&str; 4] = [
    "/bin/busybox",
    "/usr/bin/busybox",
    "/bin/busybox.static",
    "/usr/lib/initramfs-tools/bin/busybox",
];

/// Serves /www until told to stop. A first process has no default signal actions, hence the trap.
const SERVE: &str = "#!/bin/sh
trap 'echo stopping; exit 0' TERM INT
echo \"coxswain demo $DEMO_VERSION on $HOSTNAME listens on port ${PORT:-80}\"
httpd -f -v -p \"${PORT:-80}\" -h /www &
wait $!
";

const WHOAMI: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo \"version=$DEMO_VERSION pod=$(hostname) client=$REMOTE_ADDR\"
";

/// Writes an OCI archive with `coxswain.local/demo:1` and `:2`: `/bin/busybox` and its applets,
/// `/bin/serve` (the default command: HTTP on `$PORT`, 80) and a page that names the version.
pub fn build_demo_archive(dest: &Path) -> Result<()> {
    let busybox = find_busybox()?;
    let base = base_layer(&busybox)?;
    let mut files: Vec<(String, Vec<u8>)> =
        vec![("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let base = add_blob(&mut files, "application/vnd.oci.image.layer.v1.tar", base);
    let mut manifests = Vec::new();
    for version in ["1", "2"] {
        let page =
            add_blob(&mut files, "application/vnd.oci.image.layer.v1.tar", page_layer(version)?);
        let config = json!({
            "architecture": super::pull::architecture(),
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", format!("DEMO_VERSION={version}")],
                "Cmd": ["/bin/serve"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [base["digest"], page["digest"]]},
        });
        let text = config.to_string().into_bytes();
        let config = add_blob(&mut files, "application/vnd.oci.image.config.v1+json", text);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [base, page],
        });
        let text = manifest.to_string().into_bytes();
        let mut entry = add_blob(&mut files, "application/vnd.oci.image.manifest.v1+json", text);
        let name = format!("coxswain.local/demo:{version}");
        entry["annotations"] = json!({"io.containerd.image.name": name});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    files.push(("index.json".into(), index.to_string().into_bytes()));
    let mut archive = tar::Builder::new(File::create(dest)?);
    for (name, bytes) in files {
        append(&mut archive, &name, 0o644, &bytes)?;
    }
    Ok(archive.into_inner()?.sync_all()?)
}

fn find_busybox() -> Result<Vec<u8>> {
    for path in BUSYBOX {
        let Ok(bytes) = std::fs::read(path) else { continue };
        if is_static(&bytes) {
            return Ok(bytes);
        }
    }
    let tried = BUSYBOX.join(", ");
    Err(Error::Broken(format!("no static busybox (install busybox-static); tried {tried}")))
}

/// No program header of a 64-bit ELF file asks for an interpreter.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let offset = elf.get(32..40).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let (Some(offset), Some(size), Some(count)) = (offset, half(54), half(56)) else {
        return false;
    };
    elf.starts_with(b"\x7fELF\x02")
        && (0..usize::from(count)).all(|number| {
            let at = offset as usize + number * usize::from(size);
            elf.get(at..at + 4) != Some(&PT_INTERP.to_le_bytes())
        })
}

fn base_layer(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "usr", "var"] {
        append_dir(&mut layer, dir, 0o755)?;
    }
    append_dir(&mut layer, "tmp", 0o1777)?;
    append(
        &mut layer,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    append(&mut layer, "etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    append(&mut layer, "bin/busybox", 0o755, busybox)?;
    for applet in applets()? {
        let mut header = header(0, 0o777);
        header.set_entry_type(tar::EntryType::Symlink);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    append(&mut layer, "bin/serve", 0o755, SERVE.as_bytes())?;
    Ok(layer.into_inner()?)
}

fn applets() -> Result<Vec<String>> {
    for path in BUSYBOX {
        let Ok(output) = Command::new(path).arg("--list").output() else { continue };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let applets = text.lines().map(str::trim).filter(|name| !name.is_empty());
        return Ok(applets.filter(|name| *name != "busybox").map(str::to_string).collect());
    }
    Err(Error::Broken("busybox does not list its applets".into()))
}

fn page_layer(version: &str) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append_dir(&mut layer, "www", 0o755)?;
    append_dir(&mut layer, "www/cgi-bin", 0o755)?;
    append(&mut layer, "www/index.html", 0o644, format!("coxswain demo {version}\n").as_bytes())?;
    append(&mut layer, "www/cgi-bin/whoami", 0o755, WHOAMI.as_bytes())?;
    Ok(layer.into_inner()?)
}

/// The blob as a member of the archive; returns its descriptor.
fn add_blob(files: &mut Vec<(String, Vec<u8>)>, media_type: &str, bytes: Vec<u8>) -> Value {
    let mut hash = Hashing::new(io::sink());
    // A sink takes everything.
    let _ = hash.write_all(&bytes);
    let digest = hash.digest();
    let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    let name = format!("blobs/sha256/{}", hex_of(&digest));
    if !files.iter().any(|(known, _)| *known == name) {
        files.push((name, bytes));
    }
    descriptor
}

/// The same bytes every time: no time, root owns all.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append<W: Write>(to: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(bytes.len() as u64, mode);
    Ok(to.append_data(&mut header, name, bytes)?)
}

fn append_dir<W: Write>(to: &mut tar::Builder<W>, name: &str, mode: u32) -> Result<()> {
    let mut header = header(0, mode);
    header.set_entry_type(tar::EntryType::Directory);
    Ok(to.append_data(&mut header, name, io::empty())?)
}
