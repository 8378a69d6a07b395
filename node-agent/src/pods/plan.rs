//! What to do next with one pod: a pure function of what is wanted and what is observed. Waits for
//! nothing and remembers nothing.

use std::{collections::BTreeMap, time::Duration};

/// Time since the agent started; never goes back, unlike the machine's clock.
pub(crate) type Instant = Duration;

/// The part of a pod's specification that decides the order of things.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// In order; sidecars among them.
    pub(crate) init: Vec<Step>,
    pub(crate) main: Vec<String>,
    /// Started once, as soon as the pod has its namespaces, and never again (KEP-277).
    pub(crate) ephemeral: Vec<String>,
    pub(crate) restart: Restart,
    /// `terminationGracePeriodSeconds`.
    pub(crate) grace: Duration,
}

/// One of `initContainers`.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// `restartPolicy: Always`: keeps running beside the main containers (KEP-753).
    pub(crate) sidecar: bool,
}

/// `restartPolicy` of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    fn after(self, code: i32) -> bool {
        match self {
            Restart::Always => true,
            Restart::OnFailure => code != 0,
            Restart::Never => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) now: Instant,
    /// Set once the pod must end, whatever its specification says.
    pub(crate) stop: Option<Stop>,
    pub(crate) sandbox: Sandbox,
    /// Work on the whole pod is under way: nothing else starts.
    pub(crate) busy: bool,
    /// When preparing the sandbox and volumes may be tried again.
    pub(crate) prepare_not_before: Instant,
    pub(crate) containers: BTreeMap<String, Known>,
}

/// Why the pod must end, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) grace: Duration,
    /// The API object goes too, once everything is gone.
    pub(crate) delete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    Missing,
    Ready,
    /// Its shim died or the machine restarted: what it held is dead.
    Lost,
}

/// What is known of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) state: Life,
    /// A start or a kill is under way.
    pub(crate) busy: bool,
    /// Passed its startup probe, or runs without one.
    pub(crate) started: bool,
    /// Why it must be started again although it runs.
    pub(crate) condemned: Option<String>,
    /// Back-off after an exit or a failed start.
    pub(crate) not_before: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    #[default]
    Absent,
    Running,
    Exited(i32),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make the sandbox, its network and its volumes.
    Prepare,
    /// Throw away a lost sandbox.
    Reset,
    Start(String),
    Kill {
        name: String,
        why: String,
        grace: Duration,
    },
    /// Let go of sandbox, network and volumes; logs stay.
    Teardown,
    /// Everything is gone: delete the API object.
    Finish,
    /// Nothing to do before then.
    Wake(Instant),
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// The actions that bring the pod nearer to what is wanted. The same state gives the same actions.
pub(crate) fn plan(shape: &Shape, observed: &Observed) -> Vec<Action> {
    if observed.busy {
        return Vec::new();
    }
    if let Some(stop) = observed.stop {
        return ending(shape, observed, stop.grace, stop.delete);
    }
    if phase(shape, observed).is_final() {
        return ending(shape, observed, shape.grace, false);
    }
    let mut actions = Vec::new();
    for (name, known) in &observed.containers {
        if let (Life::Running, false, Some(why)) = (known.state, known.busy, &known.condemned) {
            actions.push(Action::Kill { name: name.clone(), why: why.clone(), grace: shape.grace });
        }
    }
    if observed.sandbox == Sandbox::Ready {
        let known = |name: &str| observed.containers.get(name);
        let new = shape.ephemeral.iter().filter(|name| {
            known(name).is_none_or(|known| known.state == Life::Absent && !known.busy)
        });
        for name in new {
            let not_before = known(name).map_or(Duration::ZERO, |known| known.not_before);
            actions.push(match observed.now < not_before {
                true => Action::Wake(not_before),
                false => Action::Start(name.clone()),
            });
        }
    }
    let starts = starts(shape, observed);
    if !starts.iter().any(|action| matches!(action, Action::Start(_))) {
        actions.extend(starts);
        return actions;
    }
    match observed.sandbox {
        Sandbox::Ready => actions.extend(starts),
        Sandbox::Lost => actions.push(Action::Reset),
        Sandbox::Missing if observed.now < observed.prepare_not_before => {
            actions.push(Action::Wake(observed.prepare_not_before));
        }
        Sandbox::Missing => actions.push(Action::Prepare),
    }
    actions
}

/// Main containers first, all at once; then sidecars, the last one first; then the rest.
fn ending(shape: &Shape, observed: &Observed, grace: Duration, delete: bool) -> Vec<Action> {
    let kill = |name: &String| Action::Kill {
        name: name.clone(),
        why: format!("Stopping container {name}"),
        grace,
    };
    let alive = |name: &&String| {
        observed
            .containers
            .get(*name)
            .is_some_and(|known| known.busy || known.state == Life::Running)
    };
    let sidecar = |name: &str| shape.init.iter().any(|step| step.sidecar && step.name == name);
    let names = observed.containers.keys();
    let first: Vec<&String> = names.filter(|name| !sidecar(name)).filter(alive).collect();
    let idle = |name: &&String| observed.containers.get(*name).is_some_and(|known| !known.busy);
    if !first.is_empty() {
        return first.into_iter().filter(idle).map(kill).collect();
    }
    let sidecars = shape.init.iter().rev().filter(|step| step.sidecar).map(|step| &step.name);
    if let Some(last) = sidecars.into_iter().find(alive) {
        return [last].into_iter().filter(idle).map(kill).collect();
    }
    match observed.sandbox {
        Sandbox::Ready | Sandbox::Lost => vec![Action::Teardown],
        Sandbox::Missing if delete => vec![Action::Finish],
        Sandbox::Missing => Vec::new(),
    }
}

/// Containers that should be started now, or when to look again.
fn starts(shape: &Shape, observed: &Observed) -> Vec<Action> {
    let unknown = Known::default();
    let known = |name: &str| observed.containers.get(name).unwrap_or(&unknown);
    let begun = begun(shape, observed);
    let mut actions = Vec::new();
    for step in &shape.init {
        let state = known(&step.name);
        let again = if step.sidecar { Restart::Always } else { shape.restart };
        if step.sidecar {
            start_unless(&mut actions, observed, &step.name, state, again);
            // What comes after a sidecar waits until it has started, but never for its end.
            let up = state.state == Life::Running && state.started;
            if !begun && !up {
                return actions;
            }
            continue;
        }
        if begun || state.state == Life::Exited(0) {
            continue;
        }
        // An init container is run again on failure even if the policy is `Always`.
        let again = if again == Restart::Always { Restart::OnFailure } else { again };
        start_unless(&mut actions, observed, &step.name, state, again);
        return actions;
    }
    for name in &shape.main {
        start_unless(&mut actions, observed, name, known(name), shape.restart);
    }
    actions
}

fn start_unless(
    actions: &mut Vec<Action>,
    observed: &Observed,
    name: &str,
    known: &Known,
    again: Restart,
) {
    let wanted = match known.state {
        Life::Absent => true,
        Life::Running => false,
        Life::Exited(code) => again.after(code),
    };
    if !wanted || known.busy {
        return;
    }
    if observed.now < known.not_before {
        actions.push(Action::Wake(known.not_before));
    } else {
        actions.push(Action::Start(name.to_string()));
    }
}

/// Whether the main containers have begun, so that init containers are not run again.
pub(crate) fn begun(shape: &Shape, observed: &Observed) -> bool {
    shape
        .main
        .iter()
        .any(|name| observed.containers.get(name).is_some_and(|known| known.state != Life::Absent))
}

/// Whether every init container has done its part.
pub(crate) fn initialized(shape: &Shape, observed: &Observed) -> bool {
    begun(shape, observed)
        || shape.init.iter().all(|step| {
            observed.containers.get(&step.name).is_some_and(|known| {
                if step.sidecar {
                    known.state == Life::Running && known.started
                } else {
                    known.state == Life::Exited(0)
                }
            })
        })
}

/// `status.phase`, as upstream computes it.
pub(crate) fn phase(shape: &Shape, observed: &Observed) -> Phase {
    let state =
        |name: &String| observed.containers.get(name).map_or(Life::Absent, |known| known.state);
    if !initialized(shape, observed) {
        let failed = |step: &&Step| {
            !step.sidecar && matches!(state(&step.name), Life::Exited(code) if code != 0)
        };
        let gives_up = shape.restart == Restart::Never && shape.init.iter().any(|s| failed(&s));
        return if gives_up { Phase::Failed } else { Phase::Pending };
    }
    let states: Vec<Life> = shape.main.iter().map(state).collect();
    if states.contains(&Life::Absent) {
        return Phase::Pending;
    }
    let ended = states
        .iter()
        .all(|state| matches!(state, Life::Exited(code) if !shape.restart.after(*code)));
    if !ended {
        return Phase::Running;
    }
    if states.iter().all(|state| *state == Life::Exited(0)) {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn shape(restart: Restart) -> Shape {
        let step = |name: &str, sidecar| Step { name: name.into(), sidecar };
        Shape {
            init: vec![step("init", false), step("side", true), step("late", false)],
            main: vec!["app".into(), "web".into()],
            ephemeral: Vec::new(),
            restart,
            grace: 30 * SECOND,
        }
    }

    fn observed(containers: &[(&str, Life)]) -> Observed {
        let known = |state| Known { state, started: state == Life::Running, ..Known::default() };
        Observed {
            now: 100 * SECOND,
            stop: None,
            sandbox: Sandbox::Ready,
            busy: false,
            prepare_not_before: Duration::ZERO,
            containers: containers.iter().map(|(n, s)| (n.to_string(), known(*s))).collect(),
        }
    }

    fn start(name: &str) -> Action {
        Action::Start(name.into())
    }

    #[test]
    fn init_containers_in_order_then_all_others() {
        let shape = shape(Restart::Always);
        let (run, done) = (Life::Running, Life::Exited(0));
        let check = |containers: &[(&str, Life)]| plan(&shape, &observed(containers));
        assert_eq!(check(&[]), [start("init")]);
        assert_eq!(check(&[("init", run)]), []);
        assert_eq!(check(&[("init", Life::Exited(1))]), [start("init")]);
        assert_eq!(check(&[("init", done)]), [start("side")]);
        assert_eq!(check(&[("init", done), ("side", run)]), [start("late")]);
        let ready = [("init", done), ("side", run), ("late", done)];
        assert_eq!(check(&ready), [start("app"), start("web")]);
        let running = [("side", run), ("app", run), ("web", Life::Exited(0))];
        assert_eq!(check(&running), [start("web")]);
        let no_sidecar = [("side", Life::Exited(2)), ("app", run), ("web", run)];
        assert_eq!(check(&no_sidecar), [start("side")]);
    }

    #[test]
    fn a_sidecar_that_has_not_started_holds_the_rest_back() {
        let mut observed = observed(&[("init", Life::Exited(0)), ("side", Life::Running)]);
        observed.containers.get_mut("side").unwrap().started = false;
        assert_eq!(plan(&shape(Restart::Always), &observed), []);
    }

    #[test]
    fn back_off_is_waited_for() {
        let mut observed = observed(&[("side", Life::Running), ("app", Life::Running)]);
        let known = Known { state: Life::Exited(1), not_before: 110 * SECOND, ..Known::default() };
        observed.containers.insert("web".into(), known);
        let shape = shape(Restart::OnFailure);
        assert_eq!(plan(&shape, &observed), [Action::Wake(110 * SECOND)]);
        observed.now = 110 * SECOND;
        assert_eq!(plan(&shape, &observed), [start("web")]);
    }

    #[test]
    fn the_policy_decides_when_a_pod_has_ended() {
        let check = |restart, codes: [i32; 2]| {
            let [app, web] = codes.map(Life::Exited);
            let mut observed = observed(&[("side", Life::Running), ("app", app), ("web", web)]);
            let shape = shape(restart);
            let first = plan(&shape, &observed);
            observed.containers.get_mut("side").unwrap().state = Life::Exited(0);
            (phase(&shape, &observed), first.len(), plan(&shape, &observed))
        };
        let gone = vec![Action::Teardown];
        assert_eq!(check(Restart::Never, [0, 0]), (Phase::Succeeded, 1, gone.clone()));
        assert_eq!(check(Restart::Never, [0, 3]), (Phase::Failed, 1, gone.clone()));
        assert_eq!(check(Restart::OnFailure, [0, 0]), (Phase::Succeeded, 1, gone));
        assert_eq!(check(Restart::Always, [0, 0]).0, Phase::Running);
        assert_eq!(check(Restart::OnFailure, [0, 1]).0, Phase::Running);
    }

    #[test]
    fn a_failed_init_container_fails_a_pod_that_never_restarts() {
        let observed = observed(&[("init", Life::Exited(1))]);
        assert_eq!(phase(&shape(Restart::Never), &observed), Phase::Failed);
        assert_eq!(phase(&shape(Restart::OnFailure), &observed), Phase::Pending);
    }

    #[test]
    fn deletion_ends_sidecars_last_and_then_the_object() {
        let shape = shape(Restart::Always);
        let run = Life::Running;
        let mut world = observed(&[("side", run), ("app", run), ("web", run)]);
        world.stop = Some(Stop { grace: 5 * SECOND, delete: true });
        let kill = |name: &str| Action::Kill {
            name: name.into(),
            why: format!("Stopping container {name}"),
            grace: 5 * SECOND,
        };
        assert_eq!(plan(&shape, &world), [kill("app"), kill("web")]);
        world.containers.get_mut("app").unwrap().busy = true;
        world.containers.get_mut("web").unwrap().state = Life::Exited(143);
        assert_eq!(plan(&shape, &world), []);
        *world.containers.get_mut("app").unwrap() =
            Known { state: Life::Exited(0), ..Known::default() };
        assert_eq!(plan(&shape, &world), [kill("side")]);
        world.containers.get_mut("side").unwrap().state = Life::Exited(0);
        assert_eq!(plan(&shape, &world), [Action::Teardown]);
        world.sandbox = Sandbox::Missing;
        assert_eq!(plan(&shape, &world), [Action::Finish]);
    }

    #[test]
    fn a_lost_sandbox_is_made_anew_only_to_start_something() {
        let mut world = observed(&[("app", Life::Exited(137)), ("web", Life::Exited(137))]);
        world.sandbox = Sandbox::Lost;
        assert_eq!(plan(&shape(Restart::Always), &world), [Action::Reset]);
        assert_eq!(plan(&shape(Restart::Never), &world), [Action::Teardown]);
        world.sandbox = Sandbox::Missing;
        world.containers.clear();
        assert_eq!(plan(&shape(Restart::Always), &world), [Action::Prepare]);
        world.prepare_not_before = 101 * SECOND;
        assert_eq!(plan(&shape(Restart::Always), &world), [Action::Wake(101 * SECOND)]);
    }

    #[test]
    fn an_ephemeral_container_is_started_once() {
        let mut shape = shape(Restart::Always);
        shape.ephemeral = vec!["debug".into()];
        let run = Life::Running;
        let mut world = observed(&[("side", run), ("app", run), ("web", run)]);
        assert_eq!(plan(&shape, &world), [start("debug")]);
        for state in [run, Life::Exited(1)] {
            world.containers.insert("debug".into(), Known { state, ..Known::default() });
            assert_eq!(plan(&shape, &world), []);
            assert_eq!(phase(&shape, &world), Phase::Running);
        }
        world.containers.get_mut("debug").unwrap().state = run;
        world.stop = Some(Stop { grace: SECOND, delete: true });
        assert_eq!(plan(&shape, &world).len(), 3, "it ends with the others");
    }

    #[test]
    fn a_condemned_container_is_killed_and_comes_back() {
        let mut world = observed(&[("side", Life::Running), ("app", Life::Running)]);
        world.containers.insert("web".into(), Known { state: Life::Running, ..Known::default() });
        let why = "Container web failed liveness probe, will be restarted";
        world.containers.get_mut("web").unwrap().condemned = Some(why.into());
        let kill = Action::Kill { name: "web".into(), why: why.into(), grace: 30 * SECOND };
        assert_eq!(plan(&shape(Restart::Always), &world), [kill]);
    }
}
