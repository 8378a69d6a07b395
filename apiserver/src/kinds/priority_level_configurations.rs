//! PriorityLevelConfigurations: shares of the server for kinds of requests. Stored, not yet enforced.

use super::{
    Column, KindDef, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        print, set_default,
    },
    flow_schemas,
};
use k8s::{FieldError, Object, apply::Scope};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    namespaced: false,
    schema: "flowcontrol.v1.PriorityLevelConfiguration",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Type", |o, _| print::text(o, "/spec/type")),
        Column::text("NominalConcurrencyShares", |o, _| {
            print::scalar(o.at("/spec/limited/nominalConcurrencyShares"), "<none>").into()
        }),
        Column::text("Queues", |o, _| {
            print::scalar(o.at("/spec/limited/limitResponse/queuing/queues"), "<none>").into()
        }),
        Column::text("HandSize", |o, _| {
            print::scalar(o.at("/spec/limited/limitResponse/queuing/handSize"), "<none>").into()
        }),
        Column::text("QueueLengthLimit", |o, _| {
            print::scalar(o.at("/spec/limited/limitResponse/queuing/queueLengthLimit"), "<none>")
                .into()
        }),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    status_scope: Scope::STATUS_ALONE,
    default,
    validate,
    validate_status,
    ..KindDef::BASE
};

/// Upstream's defaults (`SetDefaults_LimitedPriorityLevelConfiguration` and its kin).
fn default(level: &mut Object) {
    let spec = level.map_mut("spec");
    if let Some(limited) = child(spec, "limited") {
        set_default(limited, "nominalConcurrencyShares", 30);
        set_default(limited, "lendablePercent", 0);
        if let Some(queuing) =
            child(limited, "limitResponse").and_then(|response| child(response, "queuing"))
        {
            for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if queuing.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
                    queuing.insert(field.into(), value.into());
                }
            }
        }
    }
    if spec.get("type").and_then(Value::as_str) == Some("Exempt")
        && let Some(exempt) = child(spec, "exempt")
    {
        set_default(exempt, "nominalConcurrencyShares", 0);
        set_default(exempt, "lendablePercent", 0);
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (kind, limited, exempt) = (spec.field("type"), spec.field("limited"), spec.field("exempt"));
    if (new.name() == "exempt") != (kind.text() == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.invalid(&kind, detail);
    }
    match kind.text() {
        "Exempt" => {
            if limited.exists() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            shares(&exempt, &mut errors);
        }
        "Limited" => {
            if exempt.exists() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            match limited.exists() {
                true => validate_limited(&limited, &mut errors),
                false => errors.required(&limited, "must not be empty when type is Limited"),
            }
        }
        other => errors.not_supported_value(&kind, other, &["Exempt", "Limited"]),
    }
    errors.0
}

fn shares(at: &At<'_, '_>, errors: &mut Errors) {
    let (shares, lendable) = (at.field("nominalConcurrencyShares"), at.field("lendablePercent"));
    if shares.int().is_some_and(|shares| shares < 0) {
        errors.invalid(&shares, "must be a non-negative integer");
    }
    if lendable.int().is_some_and(|percent| !(0..=100).contains(&percent)) {
        errors.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
}

/// Upstream's bounds: of the queues, and of the bits that shuffle sharding may use.
const QUEUES_MAX: i64 = 10 * 1000 * 1000;
const ENTROPY_BITS_MAX: f64 = 60.0;

fn validate_limited(limited: &At<'_, '_>, errors: &mut Errors) {
    shares(limited, errors);
    let borrowing = limited.field("borrowingLimitPercent");
    if borrowing.int().is_some_and(|percent| percent < 0) {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
    let response = limited.field("limitResponse");
    let (kind, queuing) = (response.field("type"), response.field("queuing"));
    match kind.text() {
        "Reject" if queuing.exists() => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.forbidden(&queuing, detail);
        }
        "Reject" => (),
        "Queue" if !queuing.exists() => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.required(&queuing, detail);
        }
        "Queue" => validate_queuing(&queuing, errors),
        other => errors.not_supported_value(&kind, other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &At<'_, '_>, errors: &mut Errors) {
    let (queues, hand, length) =
        (queuing.field("queues"), queuing.field("handSize"), queuing.field("queueLengthLimit"));
    for at in [&length, &queues] {
        if at.int().unwrap_or(0) <= 0 {
            errors.invalid(at, "must be positive");
        }
    }
    let (deck, size) = (queues.int().unwrap_or(0), hand.int().unwrap_or(0));
    if deck > QUEUES_MAX {
        errors.invalid(&queues, format!("must not be greater than {QUEUES_MAX}"));
    }
    if size <= 0 {
        errors.invalid(&hand, "must be positive");
    } else if size > deck {
        errors.invalid(&hand, format!("should not be greater than queues ({deck})"));
    } else {
        let bits: f64 = (0..size).map(|dealt| ((deck - dealt) as f64).log2()).sum();
        if bits.ceil() > ENTROPY_BITS_MAX {
            let detail = format!(
                "required entropy bits of deckSize {deck} and handSize {size} should not be \
                 greater than {ENTROPY_BITS_MAX}"
            );
            errors.invalid(&hand, detail);
        }
    }
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    flow_schemas::conditions(&At::top(new, "status"), &mut errors);
    errors.0
}
