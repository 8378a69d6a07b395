//! In which form an answer goes out: the `Accept` header.

use k8s::Status;

/// How much of each object goes into a table row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// `as=Table`: columns and cells, as `kubectl get` prints them.
    Table(Include),
    /// `as=PartialObjectMetadata` or its list.
    Partial,
}

/// The first acceptable of a list of media types; JSON if the client does not mind.
pub(crate) fn format(accept: &str, include: Include) -> Result<Format, Status> {
    if accept.trim().is_empty() {
        return Ok(Format::Json);
    }
    accept.split(',').find_map(|range| one(range, include)).ok_or_else(not_acceptable)
}

fn one(range: &str, include: Include) -> Option<Format> {
    let mut parts = range.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let (mut kind, mut version, mut group) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            _ => {}
        }
    }
    match (kind, group, version) {
        ("", _, _) => Some(Format::Json),
        ("Table", "meta.k8s.io", "v1") => Some(Format::Table(include)),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            Some(Format::Partial)
        }
        _ => None,
    }
}

/// True if the client takes the aggregated discovery document in its stable version.
pub(crate) fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let has = |part: &str| range.split(';').any(|have| have.trim() == part);
        has("application/json")
            && has("as=APIGroupDiscoveryList")
            && has("g=apidiscovery.k8s.io")
            && has("v=v2")
    })
}

fn not_acceptable() -> Status {
    Status::not_acceptable(
        "only the following media types are accepted: application/json, \
         application/json;as=Table;g=meta.k8s.io;v=v1, \
         application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_acceptable_form_wins() {
        let of = |accept: &str| format(accept, Include::Metadata).map_err(|status| status.code);
        assert_eq!(of(""), Ok(Format::Json));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Ok(Format::Json));
        assert_eq!(of("application/vnd.kubernetes.protobuf"), Err(406));
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), Ok(Format::Table(Include::Metadata)));
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(of(partial), Ok(Format::Partial));
        assert_eq!(of("application/json;as=Table;g=meta.k8s.io;v=v1beta1, */*"), Ok(Format::Json));
    }
}
