//! What the agent and a pod's shim say to each other: one JSON line each way per connection.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// The shim's socket in the pod's directory.
pub(crate) const SOCKET: &str = "shim.sock";

/// A call of the agent. Descriptors travel beside `Exec` (stdin, stdout, stderr; none with a
/// terminal) and `Attach` (those wanted, in that order).
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Call {
    Create {
        id: String,
        bundle: PathBuf,
        log: PathBuf,
        tty: bool,
        stdin: bool,
        stdin_once: bool,
    },
    Start {
        id: String,
    },
    Signal {
        id: String,
        signal: i32,
    },
    Exec {
        id: String,
        process: Value,
        tty: bool,
    },
    Attach {
        id: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Delete {
        id: String,
    },
    List,
    /// The connection stays open: one [`Reply`] with `exited` per container that ends.
    Subscribe,
    /// Kills what still runs and ends the shim.
    Quit,
}

/// The shim's answer; `error` is set when the call failed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) containers: Vec<Entry>,
    /// The container that ended, for subscribers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exited: Option<String>,
    /// Exit code of an exec'd process: 128 + signal if a signal killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
}

/// One container as the shim knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// RFC 3339; `None` until started.
    pub(crate) started_at: Option<String>,
    pub(crate) exit: Option<Exit>,
}

/// How a container's first process ended; also written to `exit.json` in its bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// 128 + signal if a signal killed it.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    /// RFC 3339.
    pub(crate) finished_at: String,
}
