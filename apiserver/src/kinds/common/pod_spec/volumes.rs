//! Volumes of a pod: names and sources.

use super::{
    super::{
        field::{At, Errors},
        volume_sources::{self, Place},
    },
    Whole,
};
use k8s::names as rules;
use std::collections::{BTreeMap, BTreeSet};

/// The volumes that are all right, by name.
#[derive(Default)]
pub(super) struct Volumes<'v>(BTreeMap<&'v str, Kind>);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A claim, or what becomes one: may be a block device.
    Claim,
    EmptyDir,
    Other,
}

impl Volumes<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// `None` if there is no such volume.
    pub(super) fn is_claim(&self, name: &str) -> Option<bool> {
        self.0.get(name).map(|kind| *kind == Kind::Claim)
    }

    /// `None` if there is no such volume.
    pub(super) fn is_empty_dir(&self, name: &str) -> Option<bool> {
        self.0.get(name).map(|kind| *kind == Kind::EmptyDir)
    }
}

/// Checks the volumes and gives those that are good.
pub(super) fn validate<'v>(
    volumes: &At<'_, 'v>,
    whole: Whole<'_>,
    errors: &mut Errors,
) -> Volumes<'v> {
    let (in_pod, pod_name) = match whole {
        Whole::Pod(pod) => (true, pod.name()),
        Whole::Template => (false, ""),
    };
    let claim_of = |volume: &str| format!("{pod_name}-{volume}");
    let created: BTreeSet<String> = volumes
        .items()
        .filter(|volume| !pod_name.is_empty() && volume.field("ephemeral").exists())
        .map(|volume| claim_of(volume.field("name").text()))
        .collect();
    let mut good = Volumes::default();
    for volume in volumes.items() {
        let name = volume.field("name");
        let before = errors.0.len();
        volume_sources::validate(&volume, Place::Pod { volume: name.text(), in_pod }, errors);
        let ephemeral = volume.field("ephemeral").exists();
        if ephemeral && !pod_name.is_empty() && !name.text().is_empty() {
            let claim = claim_of(name.text());
            for detail in rules::is_dns1123_subdomain(&claim) {
                errors.invalid(&name, format!("PVC name \"{claim}\": {detail}"));
            }
        }
        errors.needs_label(&name);
        if good.has(name.text()) {
            errors.duplicate(&name);
        }
        if errors.0.len() == before {
            let kind = match () {
                _ if ephemeral || volume.field("persistentVolumeClaim").exists() => Kind::Claim,
                _ if volume.field("emptyDir").exists() => Kind::EmptyDir,
                _ => Kind::Other,
            };
            good.0.insert(name.text(), kind);
        }
        let claim = volume.field("persistentVolumeClaim");
        let claim = claim.field("claimName");
        if created.contains(claim.text()) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&claim, detail);
        }
    }
    good
}
