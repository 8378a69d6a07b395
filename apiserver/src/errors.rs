//! The one place where an error of the store becomes the `Status` a client sees.

use k8s::Status;
use raft_store::Error;

/// What to tell a client. Guards are the pipeline's own business: it maps a failed one itself, by
/// what it meant; here it is only the last word of a write that kept losing its race.
pub(crate) fn status(error: Error) -> Status {
    match error {
        Error::GuardFailed { .. } => Status::new(409, "Conflict", "the object kept changing"),
        Error::Fenced { .. } => Status::new(409, "Fenced", error.to_string()),
        Error::Compacted { oldest } => {
            Status::expired(format!("The resourceVersion is too old; the oldest kept is {oldest}"))
        }
        Error::Future { asked, current } => {
            Status::too_large_resource_version(k8s::Revision(asked.0), k8s::Revision(current.0))
        }
        Error::Overloaded { retry_after } => {
            let seconds = retry_after.as_secs().clamp(1, 60) as u32;
            Status::too_many_requests("Too many requests, please try again later.", seconds)
        }
        Error::DiskFull { .. } => Status::new(507, "InsufficientStorage", error.to_string()),
        Error::Unavailable { unknown: false } => {
            Status::unavailable("the cluster has no leader; nothing was written", 1)
        }
        Error::Unavailable { unknown: true } => {
            Status::timeout("the cluster lost its leader; the write may or may not have happened")
        }
        Error::NotYet { .. } => Status::unavailable(error.to_string(), 5),
        Error::TooLarge { bytes, limit } => {
            let message = format!("Request entity too large: {bytes} bytes, limit is {limit}");
            Status::new(413, "RequestEntityTooLarge", message)
        }
        Error::Stopped(_) => Status::unavailable(error.to_string(), 1),
    }
}

/// True if the refusal may rest on a state that was behind: worth deciding again after a barrier.
pub(crate) fn may_be_stale(status: &Status) -> bool {
    matches!(status.code, 403 | 404 | 409 | 410 | 422) && status.reason != "Fenced"
}
