//! Where a volume's data is, as pods and PersistentVolumes say it: one check for each source.

use super::{
    child, claims,
    field::{At, Errors},
    set_default, set_text,
};
use k8s::{FieldError, names as rules};
use serde_json::{Map, Value};

/// Who has the volume.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// A pod, which calls it so.
    Pod { volume: &'a str, in_pod: bool },
    /// A PersistentVolume of this name.
    Persistent { name: &'a str },
}

/// What a source is taken to mean where it says nothing.
pub(crate) fn default(sources: &mut Map<String, Value>) {
    const TEXTS: [(&str, &[(&str, &str)]); 4] = [
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("keyring", "/etc/ceph/keyring"), ("pool", "rbd"), ("user", "admin")]),
        ("scaleIO", &[("fsType", "xfs"), ("storageMode", "ThinProvisioned")]),
    ];
    for (kind, texts) in TEXTS {
        if let Some(source) = child(sources, kind) {
            texts.iter().for_each(|(field, text)| set_text(source, field, text));
        }
    }
    if let Some(disk) = child(sources, "azureDisk") {
        set_default(disk, "readOnly", false);
    }
    if let Some(path) = child(sources, "hostPath") {
        set_default(path, "type", "");
    }
}

/// A kind of source: its field, and what upstream's errors call it where there is one too many,
/// and where something inside is wrong.
struct Source {
    field: &'static str,
    twice: &'static str,
    within: &'static str,
    check: fn(&At<'_, '_>, Place<'_>, &mut Errors),
}

const fn source(field: &'static str, check: fn(&At<'_, '_>, Place<'_>, &mut Errors)) -> Source {
    Source { field, twice: field, within: field, check }
}

/// In upstream's order, which decides which of two is one too many.
const SOURCES: &[Source] = &[
    source("emptyDir", empty_dir),
    source("hostPath", host_path),
    source("gitRepo", git_repo),
    Source { within: "persistentDisk", ..source("gcePersistentDisk", gce_disk) },
    source("awsElasticBlockStore", |at, _, errors| disk(at, "volumeID", errors)),
    source("secret", |at, _, errors| files(at, "secretName", errors)),
    source("nfs", nfs),
    source("iscsi", iscsi),
    source("glusterfs", glusterfs),
    source("flocker", flocker),
    source("persistentVolumeClaim", |at, _, errors| needs(at, &["claimName"], errors)),
    source("rbd", |at, _, errors| rbd(at, errors)),
    source("cinder", cinder),
    Source { twice: "cephFS", ..source("cephfs", |at, _, errors| monitors(at, errors)) },
    source("quobyte", quobyte),
    Source { twice: "downwarAPI", ..source("downwardAPI", downward) },
    source("fc", fibre_channel),
    source("flexVolume", flex),
    source("configMap", |at, _, errors| files(at, "name", errors)),
    source("azureFile", azure_file),
    source("vsphereVolume", |at, _, errors| needs(at, &["volumePath"], errors)),
    source("photonPersistentDisk", |at, _, errors| needs(at, &["pdID"], errors)),
    source("portworxVolume", |at, _, errors| needs(at, &["volumeID"], errors)),
    source("azureDisk", azure_disk),
    source("storageos", storage_os),
    source("projected", |at, _, errors| super::projections::validate(at, errors)),
    source("scaleIO", |at, _, errors| needs(at, &["gateway", "system", "volumeName"], errors)),
    source("local", local),
    source("csi", csi),
    source("ephemeral", ephemeral),
    source("image", image),
];

/// Exactly one source, and what is wrong with it.
pub(crate) fn validate(holder: &At<'_, '_>, place: Place<'_>, errors: &mut Errors) {
    let mut found = false;
    for source in SOURCES {
        let at = holder.field(source.field);
        if !at.exists() {
            continue;
        }
        if found {
            let path = at.renamed(source.twice);
            errors.forbidden(&path, "may not specify more than 1 volume type");
        } else {
            found = true;
            (source.check)(&at.renamed(source.within), place, errors);
        }
    }
    if !found {
        errors.required(holder, "must specify a volume type");
    }
}

/// True if the field of a volume or of a PersistentVolume's spec is its source.
pub(crate) fn is_source(field: &str) -> bool {
    SOURCES.iter().any(|source| source.field == field)
}

fn needs(at: &At<'_, '_>, fields: &[&'static str], errors: &mut Errors) {
    for field in fields {
        errors.needs_text(&at.field(field));
    }
}

fn empty_dir(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    let limit = at.field("sizeLimit");
    if limit.quantity().is_some_and(|limit| limit.sign() < 0) {
        errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

fn host_path(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    let path = at.field("path");
    if !errors.needs_text(&path) {
        return;
    }
    no_back_steps(&path, errors);
    let kind = at.field("type");
    if kind.exists() && !HOST_PATH_TYPES.contains(&kind.text()) {
        errors.not_supported(&kind, &HOST_PATH_TYPES);
    }
}

fn git_repo(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    needs(at, &["repository"], errors);
    descending(&at.field("directory"), errors);
}

fn gce_disk(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    disk(at, "pdName", errors);
}

fn disk(at: &At<'_, '_>, name: &'static str, errors: &mut Errors) {
    needs(at, &[name], errors);
    let partition = at.field("partition");
    if partition.int().is_some_and(|number| !(0..=255).contains(&number)) {
        // Upstream allows 0, the whole disk, but does not say so.
        errors.invalid(&partition, "must be between 1 and 255, inclusive");
    }
}

/// `items` and `defaultMode` of a Secret or ConfigMap as a volume.
fn files(at: &At<'_, '_>, name: &'static str, errors: &mut Errors) {
    needs(at, &[name], errors);
    mode(&at.field("defaultMode"), errors);
    for item in at.field("items").items() {
        key_to_path(&item, errors);
    }
}

pub(crate) fn key_to_path(item: &At<'_, '_>, errors: &mut Errors) {
    needs(item, &["key", "path"], errors);
    unreserved(&item.field("path"), errors);
    mode(&item.field("mode"), errors);
}

pub(crate) fn mode(mode: &At<'_, '_>, errors: &mut Errors) {
    if mode.int().is_some_and(|bits| !(0..=0o777).contains(&bits)) {
        errors.invalid(mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn nfs(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    needs(at, &["server", "path"], errors);
    let path = at.field("path");
    if !path.text().starts_with('/') {
        errors.invalid_value(&path, path.text(), "must be an absolute path");
    }
}

fn iscsi(at: &At<'_, '_>, place: Place<'_>, errors: &mut Errors) {
    const LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 \
                        characters if iscsi.initiatorName is specified.";
    needs(at, &["targetPortal"], errors);
    let (portal, initiator) = (at.field("targetPortal"), at.field("initiatorName"));
    let name = match place {
        Place::Pod { volume, .. } => volume,
        Place::Persistent { name } => name,
    };
    let long = initiator.exists() && name.len() + 1 + portal.text().len() > 64;
    if let (Place::Persistent { .. }, true) = (place, long) {
        errors.invalid(&portal.renamed("targetportal"), LONG);
    }
    let iqn = at.field("iqn");
    let persistent = matches!(place, Place::Persistent { .. });
    if errors.needs_text(&iqn) {
        iscsi_name(&iqn, persistent, errors);
    }
    errors.in_range(&at.field("lun"), 0, 255);
    let (secret, chap) = (
        at.field("secretRef"),
        ["chapAuthDiscovery", "chapAuthSession"].map(|f| at.field(f).flag()),
    );
    if chap.contains(&true) && !secret.exists() {
        errors.required(&secret, "");
    }
    if persistent && secret.exists() {
        errors.needs_text(&secret.field("name"));
    }
    if initiator.exists() {
        iscsi_name(&initiator.renamed("initiatorname"), persistent, errors);
    }
    if let (Place::Pod { volume, .. }, true) = (place, long) {
        let path = at.to_string();
        let path = format!("{}.name", path.trim_end_matches(".iscsi"));
        errors.0.push(FieldError::invalid(path, volume.into(), LONG));
    }
}

/// `iqn.2003-01.org.example:disk`, `eui.` and 16 or `naa.` and 32 characters.
fn iscsi_name(at: &At<'_, '_>, persistent: bool, errors: &mut Errors) {
    let name = at.text();
    let alphanumeric = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|c| c.is_ascii_alphanumeric())
    };
    let good = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        // Upstream's pattern takes any character for the dot.
        Some("eui") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 16)),
        Some("naa") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 32)),
        _ if persistent => false,
        _ => return errors.invalid(at, "must be valid format starting with iqn, eui, or naa"),
    };
    if !good {
        errors.invalid(at, "must be valid format");
    }
}

fn is_iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let bytes = rest.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    if !(digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'.'))
    {
        return false;
    }
    let Some((authority, target)) = rest[8..].split_once(':') else { return false };
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let named =
        |c: char| !matches!(c, ',' | '^' | ';' | '*' | '&' | '$' | '|') && !c.is_whitespace();
    !authority.is_empty()
        && authority.chars().all(part)
        && !target.is_empty()
        && target.chars().all(named)
}

fn glusterfs(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    needs(at, &["endpoints", "path"], errors);
    let namespace = at.field("endpointsNamespace");
    match (namespace.exists(), namespace.text()) {
        (false, _) => (),
        (true, "") => errors.invalid(
            &namespace,
            "if the endpointnamespace is set, it must be a valid namespace name",
        ),
        (true, _) => errors.label(&namespace),
    }
}

fn flocker(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    let (name, uuid) = (at.field("datasetName"), at.field("datasetUUID"));
    match (name.text().is_empty(), uuid.text().is_empty()) {
        (true, true) => errors.required(at, "one of datasetName and datasetUUID is required"),
        (false, false) => errors.invalid_value(
            at,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ),
        _ => (),
    }
    if name.text().contains('/') {
        errors.invalid(&name, "must not contain '/'");
    }
}

fn rbd(at: &At<'_, '_>, errors: &mut Errors) {
    monitors(at, errors);
    needs(at, &["image"], errors);
}

fn monitors(at: &At<'_, '_>, errors: &mut Errors) {
    let monitors = at.field("monitors");
    if monitors.count() == 0 {
        errors.required(&monitors, "");
    }
}

fn cinder(at: &At<'_, '_>, place: Place<'_>, errors: &mut Errors) {
    needs(at, &["volumeID"], errors);
    named_secret(&at.field("secretRef"), place, errors);
}

/// A secret by name, and by namespace where the volume has none.
fn named_secret(secret: &At<'_, '_>, place: Place<'_>, errors: &mut Errors) {
    if !secret.exists() {
        return;
    }
    errors.needs_text(&secret.field("name"));
    if matches!(place, Place::Persistent { .. }) {
        errors.needs_text(&secret.field("namespace"));
    }
}

fn quobyte(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (at.field("registry"), at.field("tenant"));
    if registry.text().is_empty() {
        errors.required(&registry, PAIRS);
    } else if tenant.text().len() >= 65 {
        errors.required(&tenant, "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in registry.text().split(',') {
            if !pair.contains(':') {
                errors.invalid(&registry, PAIRS);
            }
        }
    }
    needs(at, &["volume"], errors);
}

fn downward(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    mode(&at.field("defaultMode"), errors);
    for item in at.field("items").items() {
        super::projections::downward_item(at, &item, errors);
    }
}

fn fibre_channel(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    let (names, ids, lun) = (at.field("targetWWNs"), at.field("wwids"), at.field("lun"));
    match (names.count(), ids.count()) {
        (0, 0) => {
            errors.required(&names, "must specify either targetWWNs or wwids, but not both");
        }
        (1.., 1..) => {
            errors.invalid(&names, "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => (),
    }
    if names.count() > 0 {
        if lun.exists() {
            errors.in_range(&lun, 0, 255);
        } else {
            errors.required(&lun, "lun is required if targetWWNs is specified");
        }
    }
}

fn flex(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    needs(at, &["driver"], errors);
    for (key, option) in at.field("options").entries() {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let dotted = format!(".{}", namespace.to_lowercase());
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid_value(&option, key, detail);
        }
    }
}

fn azure_file(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    needs(at, &["secretName", "shareName"], errors);
    let namespace = at.field("secretNamespace");
    if namespace.exists() {
        errors.needs_text(&namespace);
    }
}

fn azure_disk(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    needs(at, &["diskName", "diskURI"], errors);
    errors.one_of(&at.field("cachingMode"), &["None", "ReadOnly", "ReadWrite"], false);
    let (kind, uri) = (at.field("kind"), at.field("diskURI"));
    errors.one_of(&kind, &["Dedicated", "Managed", "Shared"], false);
    let managed = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    let blob = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    match kind.text() {
        "" => (),
        "Managed" if !uri.text().starts_with("/subscriptions/") => {
            errors.not_supported(&uri, &[managed]);
        }
        "Managed" => (),
        _ if !uri.text().starts_with("https://") => errors.not_supported(&uri, &[blob]),
        _ => (),
    }
}

fn storage_os(at: &At<'_, '_>, place: Place<'_>, errors: &mut Errors) {
    errors.needs_label(&at.field("volumeName"));
    let namespace = at.field("volumeNamespace");
    if !namespace.text().is_empty() {
        errors.label(&namespace);
    }
    named_secret(&at.field("secretRef"), place, errors);
}

/// A disk of the node itself; the spec's node affinity says of which one.
fn local(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    needs(at, &["path"], errors);
    no_back_steps(&at.field("path"), errors);
}

/// A name of a CSI driver, as volumes and CSIDriver objects have it.
pub(crate) fn driver_name(at: &At<'_, '_>, errors: &mut Errors) {
    errors.needs_text(at);
    if at.text().len() > 63 {
        errors.too_long(at, 63);
    }
    for detail in rules::is_dns1123_subdomain(&at.text().to_lowercase()) {
        errors.invalid_value(at, at.text(), detail);
    }
}

fn csi(at: &At<'_, '_>, place: Place<'_>, errors: &mut Errors) {
    driver_name(&at.field("driver"), errors);
    if let Place::Pod { .. } = place {
        let secret = at.field("nodePublishSecretRef");
        if secret.exists() && errors.needs_text(&secret.field("name")) {
            for detail in rules::is_dns1123_subdomain(secret.field("name").text()) {
                errors.invalid_value(&at.field("name"), secret.field("name").text(), detail);
            }
        }
        return;
    }
    needs(at, &["volumeHandle"], errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = at.field(field);
        if secret.exists() {
            errors.needs_subdomain(&secret.field("name"));
            errors.needs_label(&secret.field("namespace"));
        }
    }
}

fn ephemeral(at: &At<'_, '_>, _: Place<'_>, errors: &mut Errors) {
    let template = at.field("volumeClaimTemplate");
    if !template.exists() {
        return errors.required(&template, "");
    }
    let metadata = template.field("metadata");
    super::labels::validate_template_metadata(&metadata, errors);
    let set = metadata.value().and_then(Value::as_object).into_iter().flatten();
    for (field, value) in set {
        let kept = matches!(field.as_str(), "labels" | "annotations" | "creationTimestamp");
        if !kept && !value.is_null() {
            errors.0.push(FieldError::forbidden(format!("{metadata}.{field}"), "cannot be set"));
        }
    }
    claims::validate_spec(&template.field("spec"), None, errors);
}

fn image(at: &At<'_, '_>, place: Place<'_>, errors: &mut Errors) {
    if matches!(place, Place::Pod { in_pod: true, .. }) {
        needs(at, &["reference"], errors);
    }
    errors.one_of(&at.field("pullPolicy"), &["Always", "IfNotPresent", "Never"], true);
}

/// A path inside a volume.
pub(crate) fn descending(path: &At<'_, '_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    no_back_steps(path, errors);
}

/// The same, and not a name the kubelet keeps for itself.
pub(crate) fn unreserved(path: &At<'_, '_>, errors: &mut Errors) {
    descending(path, errors);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        errors.invalid(path, "must not start with '..'");
    }
}

pub(crate) fn no_back_steps(path: &At<'_, '_>, errors: &mut Errors) {
    if path.text().split('/').any(|part| part == "..") {
        errors.invalid(path, "must not contain '..'");
    }
}
