//! Which policies a request meets, through which bindings and with which parameters: what
//! ValidatingAdmissionPolicies and MutatingAdmissionPolicies have in common.

use super::{
    compiled::{Binding, Policy},
    inputs::Documents,
    params,
    selection::{Outcome, Selection},
};
use crate::{admission::Cx, memo};
use k8s::{Object, Status};
use serde_json::Value as Json;
use std::sync::Arc;

/// The two kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Mutating,
    Validating,
}

impl Part {
    fn spaces(self) -> [&'static str; 2] {
        match self {
            Part::Mutating => [
                "admissionregistration.k8s.io/mutatingadmissionpolicies",
                "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
            ],
            Part::Validating => [
                "admissionregistration.k8s.io/validatingadmissionpolicies",
                "admissionregistration.k8s.io/validatingadmissionpolicybindings",
            ],
        }
    }
}

/// A policy to be evaluated.
pub(super) struct Invocation<'a> {
    pub(super) policy: Arc<Policy>,
    pub(super) binding: Arc<Binding>,
    pub(super) version: &'a str,
    pub(super) param: Option<Json>,
}

/// A policy that cannot be evaluated.
pub(super) struct Misfit {
    pub(super) policy: Arc<Policy>,
    pub(super) binding: Option<Arc<Binding>>,
    pub(super) why: String,
}

/// In the order of their names.
#[derive(Default)]
pub(super) struct Concerned<'a> {
    pub(super) invocations: Vec<Invocation<'a>>,
    pub(super) misfits: Vec<Misfit>,
}

pub(super) fn concerned<'a>(
    cx: &Cx<'a>,
    part: Part,
    object: &Object,
) -> Result<Concerned<'a>, Status> {
    let mut found = Concerned::default();
    let [policies, bindings] = part.spaces();
    let policies = cx.view.range(policies, "");
    if policies.is_empty() || cx.configures_admission() {
        return Ok(found);
    }
    let bindings = cx.view.range(bindings, "");
    let bindings: Vec<Arc<Binding>> =
        bindings.iter().map(|stored| memo::derived(stored, Binding::of)).collect();
    for stored in &policies {
        let policy = memo::derived(stored, Policy::of);
        let bound: Vec<&Arc<Binding>> =
            bindings.iter().filter(|binding| binding.policy == policy.name).collect();
        if !bound.is_empty() {
            found.add(cx, &policy, &bound, object)?;
        }
    }
    Ok(found)
}

impl<'a> Concerned<'a> {
    fn add(
        &mut self,
        cx: &Cx<'a>,
        policy: &Arc<Policy>,
        bound: &[&Arc<Binding>],
        object: &Object,
    ) -> Result<(), Status> {
        let version = self.asked(cx, policy, None, &policy.selection, object)?;
        let Some(version) = version else { return Ok(()) };
        if let Some(kind) = &policy.param_kind
            && !params::is_known(cx, kind)
        {
            let (group, version) =
                kind.api_version.rsplit_once('/').unwrap_or(("", &kind.api_version));
            let why = format!(
                "failed to find resource referenced by paramKind: '{group}/{version}, Kind={}'",
                kind.kind
            );
            self.misfit(policy, None, why);
            return Ok(());
        }
        for binding in bound {
            if let Some(selection) = &binding.selection
                && self.asked(cx, policy, Some(binding), selection, object)?.is_none()
            {
                continue;
            }
            match params::collect(cx, policy.param_kind.as_ref(), binding.params.as_ref()) {
                Ok(params) => self.invocations.extend(params.into_iter().map(|param| Invocation {
                    policy: policy.clone(),
                    binding: (*binding).clone(),
                    version,
                    param,
                })),
                Err(why) => self.misfit(policy, Some(binding), why),
            }
        }
        Ok(())
    }

    fn asked(
        &mut self,
        cx: &Cx<'a>,
        policy: &Arc<Policy>,
        binding: Option<&Arc<Binding>>,
        selection: &Selection,
        object: &Object,
    ) -> Result<Option<&'a str>, Status> {
        match selection.version(cx, object) {
            Ok(version) => Ok(version),
            Err(Outcome::Refused(status)) => Err(status),
            Err(Outcome::Broken(why)) => {
                self.misfit(policy, binding, why);
                Ok(None)
            }
        }
    }

    fn misfit(&mut self, policy: &Arc<Policy>, binding: Option<&Arc<Binding>>, why: String) {
        if policy.must_work {
            let what = if binding.is_some() { "binding" } else { "policy" };
            let why = format!("failed to configure {what}: {why}");
            let (policy, binding) = (policy.clone(), binding.cloned());
            self.misfits.push(Misfit { policy, binding, why });
        }
    }
}

/// Documents of a request, made once per version.
#[derive(Default)]
pub(super) struct Shown {
    made: Vec<(String, Documents)>,
}

impl Shown {
    pub(super) fn of(&mut self, cx: &Cx<'_>, version: &str, object: &Object) -> &Documents {
        let known = self.made.iter().position(|(made, _)| made == version);
        let at = known.unwrap_or_else(|| {
            self.made.push((version.to_string(), Documents::new(cx, version, object)));
            self.made.len() - 1
        });
        &self.made[at].1
    }
}
