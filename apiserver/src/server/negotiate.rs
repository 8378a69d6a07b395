//! In which form an answer goes out: the `Accept` and `Accept-Encoding` headers, and `pretty`.

use http::{HeaderMap, header};
use k8s::Status;
use std::cmp::Reverse;

/// How much of each object goes into a table row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

/// In what an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Json,
    Yaml,
    Protobuf,
}

impl Coding {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Coding::Json => "application/json",
            Coding::Yaml => "application/yaml",
            Coding::Protobuf => k8s::protobuf::MEDIA_TYPE,
        }
    }

    /// Of a watch.
    pub(crate) fn stream_type(self) -> &'static str {
        match self {
            Coding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            _ => self.media_type(),
        }
    }
}

/// What an answer shows of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    /// `as=Table`: columns and cells, as `kubectl get` prints them.
    Table(Include),
    /// `as=PartialObjectMetadata`.
    Partial,
    /// `as=PartialObjectMetadataList`.
    PartialList,
}

/// The form of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) coding: Coding,
    pub(crate) shape: Shape,
    /// `meta.k8s.io/v1` or `v1beta1`: the version of what `shape` makes.
    pub(crate) meta: &'static str,
    /// JSON is indented for people.
    pub(crate) pretty: bool,
    /// Large bodies may be compressed.
    pub(crate) gzip: bool,
}

const META: &str = "meta.k8s.io/v1";
const META_BETA: &str = "meta.k8s.io/v1beta1";

impl Format {
    /// Of an answer nobody negotiated.
    #[cfg(test)]
    pub(crate) const JSON: Format = Format {
        coding: Coding::Json,
        shape: Shape::Whole,
        meta: META,
        pretty: false,
        gzip: false,
    };

    /// The same object as it is.
    pub(crate) fn whole(self) -> Format {
        Format { shape: Shape::Whole, ..self }
    }
}

/// What an endpoint is able to answer with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offer {
    /// Its objects have columns.
    pub(crate) table: bool,
    /// Its objects have a protobuf form (custom resources have none).
    pub(crate) protobuf: bool,
    pub(crate) watch: bool,
}

impl Offer {
    fn codings(self) -> &'static [Coding] {
        // A stream of YAML has no frames.
        if self.watch {
            &[Coding::Json, Coding::Protobuf]
        } else {
            &[Coding::Json, Coding::Yaml, Coding::Protobuf]
        }
    }

    fn allows(self, coding: Coding, shape: Shape) -> bool {
        match shape {
            Shape::Whole => coding != Coding::Protobuf || self.protobuf,
            Shape::Table(_) => coding != Coding::Protobuf && self.table,
            Shape::Partial | Shape::PartialList => true,
        }
    }
}

/// One entry of `Accept`.
struct Clause<'a> {
    ty: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

/// The best form the client accepts of those the endpoint has; JSON if the client does not say. `Err`
/// is upstream's 406.
pub(crate) fn format(
    headers: &HeaderMap,
    query: Option<&str>,
    include: Include,
    offer: Offer,
) -> Result<Format, Status> {
    let accept = joined(headers, header::ACCEPT);
    let base = Format {
        coding: Coding::Json,
        shape: Shape::Whole,
        meta: META,
        pretty: pretty(headers, query),
        gzip: gzip(headers),
    };
    if accept.is_empty() {
        return Ok(base);
    }
    clauses(&accept)
        .iter()
        .find_map(|clause| accepted(clause, base, include, offer))
        .ok_or_else(|| not_acceptable(offer))
}

/// The form of a refusal: whatever shape was asked for, a `Status` is whole. A client that accepts
/// nothing of ours gets JSON.
pub(crate) fn of_refusals(headers: &HeaderMap, query: Option<&str>) -> Format {
    let offer = Offer { protobuf: true, ..Offer::default() };
    format(headers, query, Include::None, offer).unwrap_or(Format {
        coding: Coding::Json,
        shape: Shape::Whole,
        meta: META,
        pretty: true,
        gzip: gzip(headers),
    })
}

fn joined(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// Sorted as Go's `goautoneg` sorts them: by quality, and wildcards last.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(clause).collect();
    clauses.sort_by_key(|clause| {
        let quality = (clause.quality * 1000.0) as i32;
        (Reverse(quality), clause.ty == "*", clause.subtype == "*")
    });
    clauses
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next()?;
    let (ty, subtype) = match range.split_once('/') {
        Some((ty, subtype)) => (ty.trim(), subtype.trim()),
        None if range == "*" => ("*", "*"),
        None => return None,
    };
    let mut quality = 1.0;
    let mut parameters = Vec::new();
    for part in parts {
        let Some((key, value)) = part.split_once('=') else { continue };
        match key.trim() {
            "q" => quality = value.trim().parse().unwrap_or(1.0),
            key => parameters.push((key, value.trim())),
        }
    }
    Some(Clause { ty, subtype, parameters, quality })
}

fn accepted(clause: &Clause<'_>, base: Format, include: Include, offer: Offer) -> Option<Format> {
    let fits = |coding: &Coding| {
        let (ty, subtype) = coding.media_type().split_once('/').unwrap_or_default();
        (clause.ty == "*" && clause.subtype == "*")
            || (clause.ty == ty && (clause.subtype == subtype || clause.subtype == "*"))
    };
    let mut codings = offer.codings().iter().copied().filter(fits);
    codings.find_map(|coding| with_parameters(clause, Format { coding, ..base }, include, offer))
}

fn with_parameters(
    clause: &Clause<'_>,
    mut format: Format,
    include: Include,
    offer: Offer,
) -> Option<Format> {
    let (mut kind, mut group, mut version, mut converts) = ("", "", "", false);
    for (key, value) in &clause.parameters {
        match *key {
            "as" => (kind, converts) = (value, true),
            "g" => (group, converts) = (value, true),
            "v" => (version, converts) = (value, true),
            "stream" if !value.is_empty() && *value != "watch" => return None,
            "sv" if !value.is_empty() && *value != "v1" => return None,
            "pretty" => format.pretty |= *value == "1",
            _ => {}
        }
    }
    if converts {
        format.meta = match (group, version) {
            ("meta.k8s.io", "v1") => META,
            ("meta.k8s.io", "v1beta1") => META_BETA,
            _ => return None,
        };
        format.shape = match kind {
            "Table" => Shape::Table(include),
            "PartialObjectMetadata" => Shape::Partial,
            "PartialObjectMetadataList" => Shape::PartialList,
            _ => return None,
        };
    }
    offer.allows(format.coding, format.shape).then_some(format)
}

/// As Go reads a boolean; without one, browsers and command-line tools get what people read.
fn pretty(headers: &HeaderMap, query: Option<&str>) -> bool {
    let asked = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("pretty="));
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.unwrap_or_default().starts_with(tool))
}

/// Upstream knows the bare word only: no quality, no wildcard.
fn gzip(headers: &HeaderMap) -> bool {
    joined(headers, header::ACCEPT_ENCODING).split(',').any(|coding| coding.trim() == "gzip")
}

fn not_acceptable(offer: Offer) -> Status {
    let types: Vec<String> = offer
        .codings()
        .iter()
        .map(|coding| match offer.watch {
            true => format!("{};stream=watch", coding.media_type()),
            false => coding.media_type().to_string(),
        })
        .collect();
    Status::not_acceptable(format!(
        "only the following media types are accepted: {}",
        types.join(", ")
    ))
}

/// True if the client likes the aggregated discovery document best of what it accepts. (Upstream's
/// `profile=nopeer` changes nothing where every master serves the same.)
pub(crate) fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = joined(headers, header::ACCEPT);
    let first = clauses(&accept).into_iter().find(|clause| {
        let json =
            matches!((clause.ty, clause.subtype), ("application", "json" | "*") | ("*", "*"));
        let aggregated = has(clause, "as", "APIGroupDiscoveryList");
        // In its stable version: the beta is gone since 1.33.
        let stable = has(clause, "g", "apidiscovery.k8s.io") && has(clause, "v", "v2");
        json && (!aggregated || stable)
    });
    first.is_some_and(|clause| has(&clause, "as", "APIGroupDiscoveryList"))
}

fn has(clause: &Clause<'_>, key: &str, value: &str) -> bool {
    clause.parameters.contains(&(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str, offer: Offer) -> Result<(Coding, Shape), u16> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
        }
        let format = format(&headers, None, Include::Metadata, offer);
        format.map(|format| (format.coding, format.shape)).map_err(|status| status.code)
    }

    #[test]
    fn the_first_acceptable_form_wins() {
        let all = Offer { table: true, protobuf: true, watch: false };
        let of = |accept: &str| of(accept, all);
        assert_eq!(of(""), Ok((Coding::Json, Shape::Whole)));
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(of(client_go), Ok((Coding::Protobuf, Shape::Whole)));
        assert_eq!(of("application/yaml"), Ok((Coding::Yaml, Shape::Whole)));
        assert_eq!(of("text/plain, */*"), Ok((Coding::Json, Shape::Whole)));
        assert_eq!(of("text/plain"), Err(406));
        assert_eq!(
            of("application/json;q=0.1, application/yaml"),
            Ok((Coding::Yaml, Shape::Whole))
        );
        let table = Shape::Table(Include::Metadata);
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), Ok((Coding::Json, table)));
        let beta = "application/json;as=Table;g=meta.k8s.io;v=v1beta1, */*";
        assert_eq!(of(beta), Ok((Coding::Json, table)));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;\
                       g=meta.k8s.io;v=v1";
        assert_eq!(of(partial), Ok((Coding::Protobuf, Shape::PartialList)));
        assert_eq!(of("application/json;as=Table;g=meta.k8s.io;v=v2"), Err(406));
    }

    #[test]
    fn an_endpoint_answers_only_with_what_it_has() {
        let plain = Offer::default();
        assert_eq!(of("application/json;as=Table;g=meta.k8s.io;v=v1", plain), Err(406));
        assert_eq!(of("application/vnd.kubernetes.protobuf", plain), Err(406));
        let partial =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(of(partial, plain), Ok((Coding::Protobuf, Shape::Partial)));
        let watch = Offer { watch: true, ..plain };
        assert_eq!(of("application/yaml", watch), Err(406));
        assert_eq!(of("application/json;stream=watch", watch), Ok((Coding::Json, Shape::Whole)));
    }

    #[test]
    fn discovery_is_aggregated_for_those_who_prefer_it() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wants_aggregated(&headers)
        };
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;\
                       profile=nopeer,application/json;g=apidiscovery.k8s.io;v=v2;\
                       as=APIGroupDiscoveryList,application/json";
        assert!(wants(kubectl));
        assert!(!wants("application/json"));
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                    application/json";
        assert!(!wants(beta));
    }

    #[test]
    fn people_get_indented_json() {
        let mut headers = HeaderMap::new();
        assert!(!pretty(&headers, None) && pretty(&headers, Some("pretty=true")));
        headers.insert(header::USER_AGENT, "curl/8".parse().unwrap());
        assert!(pretty(&headers, None) && !pretty(&headers, Some("pretty=false")));
        assert!(!gzip(&headers));
        headers.insert(header::ACCEPT_ENCODING, "br, gzip".parse().unwrap());
        assert!(gzip(&headers));
    }
}
