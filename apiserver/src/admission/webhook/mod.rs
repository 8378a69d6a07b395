//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: requests that somebody outside is asked
//! about (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).
//! Who is not concerned pays one look into the state; who is waits for those asked and no longer than
//! they were given.

mod client;
mod config;
mod dispatch;
mod matching;
mod review;
#[cfg(test)]
mod tests;

pub(crate) use client::Clients;
pub(super) use config::Rule;
pub(crate) use config::Server;
pub(super) use dispatch::{mutate, validate};
pub(super) use matching::{concerned, of_namespace};
pub(super) use review::{document, object, old_document, request};

pub(super) const MUTATING: &str = "MutatingAdmissionWebhook";
pub(super) const VALIDATING: &str = "ValidatingAdmissionWebhook";

/// Which of the two configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Mutating,
    Validating,
}

impl Part {
    fn space(self) -> &'static str {
        match self {
            Part::Mutating => "admissionregistration.k8s.io/mutatingwebhookconfigurations",
            Part::Validating => "admissionregistration.k8s.io/validatingwebhookconfigurations",
        }
    }

    /// As metrics name it.
    fn metric(self) -> &'static str {
        match self {
            Part::Mutating => "admit",
            Part::Validating => "validating",
        }
    }

    /// What the keys of its audit annotations begin with.
    fn annotation(self) -> &'static str {
        match self {
            Part::Mutating => "mutation.webhook.admission.k8s.io/",
            Part::Validating => "validating.webhook.admission.k8s.io/",
        }
    }
}
