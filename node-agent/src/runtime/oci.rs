//! `coxswain oci`: the few verbs of runc's command line that the shim uses, on libcontainer. Always
//! its own short-lived process with one thread: libcontainer forks raw and changes the process it
//! is called in.

use anyhow::{Context, Result, bail};
use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
    workload::{
        Executor, ExecutorError, ExecutorValidationError,
        default::{DefaultExecutor, get_executor},
    },
};
use nix::sys::signal::{SigHandler, Signal};
use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Options that take a value; all others are flags.
const VALUED: [&str; 7] =
    ["--root", "--log", "--log-format", "--bundle", "--pid-file", "--console-socket", "--process"];

pub(crate) fn main(args: &[String]) -> ExitCode {
    let Some(call) = Call::parse(args) else {
        let _ = writeln!(std::io::stderr(), "usage: oci --root DIR create|start|exec|delete … ID");
        return ExitCode::FAILURE;
    };
    match call.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            call.report(&error);
            ExitCode::FAILURE
        }
    }
}

/// A parsed command line: options, then the verb and the container's id.
#[derive(Debug)]
struct Call<'a> {
    options: Vec<(&'a str, &'a str)>,
    verb: &'a str,
    id: &'a str,
}

impl<'a> Call<'a> {
    fn parse(args: &'a [String]) -> Option<Call<'a>> {
        let (mut options, mut words) = (Vec::new(), Vec::new());
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if VALUED.contains(&arg) {
                options.push((arg, args.next()?));
            } else if !arg.starts_with("--") {
                words.push(arg);
            }
        }
        let [verb, id] = words[..] else { return None };
        Some(Call { options, verb, id })
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        self.options.iter().find(|(option, _)| *option == name).map(|(_, value)| *value)
    }

    fn run(&self) -> Result<()> {
        let root = PathBuf::from(self.option("--root").context("--root is missing")?);
        match self.verb {
            "create" => {
                let bundle = self.option("--bundle").context("--bundle is missing")?;
                let builder = self.builder(root)?.validate_id()?.as_init(bundle);
                builder.with_systemd(false).with_detach(true).build()?;
            }
            "start" => Container::load(root.join(self.id))?.start()?,
            "exec" => {
                let process = self.option("--process").context("--process is missing")?;
                let tenant = self.builder(root)?.as_tenant();
                tenant.with_process(Some(process)).with_detach(true).build()?;
            }
            "delete" => {
                let directory = root.join(self.id);
                if directory.exists() {
                    Container::load(directory)?.delete(true)?;
                }
            }
            verb => bail!("{verb} is not a verb of this runtime"),
        }
        Ok(())
    }

    fn builder(&self, root: PathBuf) -> Result<ContainerBuilder> {
        Ok(ContainerBuilder::new(self.id.to_string(), SyscallType::default())
            .with_root_path(root)?
            .with_pid_file(self.option("--pid-file"))?
            .with_console_socket(self.option("--console-socket"))
            .with_executor(Workload))
    }

    /// As runc logs with `--log-format json`.
    fn report(&self, error: &anyhow::Error) {
        let mut texts: Vec<String> = Vec::new();
        for cause in error.chain() {
            let text = cause.to_string();
            if !texts.iter().any(|known| known.contains(&text)) {
                texts.push(text);
            }
        }
        let line = serde_json::json!({"level": "error", "msg": texts.join(": ")});
        let log = self
            .option("--log")
            .and_then(|path| std::fs::File::options().create(true).append(true).open(path).ok());
        let _ = match log {
            Some(mut file) => writeln!(file, "{line}"),
            None => writeln!(std::io::stderr(), "{line}"),
        };
    }
}

/// Starts the container's program as runc does where libcontainer's default differs.
#[derive(Clone)]
struct Workload;

impl Executor for Workload {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        default_sigpipe();
        get_executor().exec(spec)
    }

    /// Any execute bit will do: a program only its owner may run is no error for that owner.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let Some(process) = spec.process() else {
            return DefaultExecutor {}.validate(spec);
        };
        let Some(name) = process.args().as_ref().and_then(|args| args.first()) else {
            return DefaultExecutor {}.validate(spec);
        };
        let env = process.env().as_deref().unwrap_or_default();
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        if name.contains('/') {
            return match executable(Path::new(name)) {
                Some(true) => Ok(()),
                Some(false) => Err(refusal(format!("exec: {name:?}: permission denied"))),
                None => {
                    Err(refusal(format!("exec: {name:?}: stat {name}: no such file or directory")))
                }
            };
        }
        let found = path.split(':').any(|dir| executable(&Path::new(dir).join(name)) == Some(true));
        if found {
            return Ok(());
        }
        Err(refusal(format!("exec: {name:?}: executable file not found in $PATH")))
    }
}

fn refusal(text: String) -> ExecutorValidationError {
    ExecutorValidationError::ArgValidationError(text)
}

/// `None` if there is no such file.
fn executable(path: &Path) -> Option<bool> {
    let metadata = path.metadata().ok()?;
    Some(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Rust programs start with SIGPIPE ignored, and that is inherited over exec.
#[expect(unsafe_code, reason = "installs no handler of ours")]
fn default_sigpipe() {
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
