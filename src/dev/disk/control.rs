//! What a disk is told to do, over a socket beside it: one line for each connection. A fault lasts as
//! long as its connection, so that it ends with whoever wanted it, however that ends.

use anyhow::{Context, Result, ensure};
use std::{
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Where a master's disk listens, beside its data directory.
pub(crate) const SOCKET: &str = "disk.sock";

/// The disk answers at once, or is not there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing but an answer.
    Ping,
    /// What is not synced is lost, but for the beginnings of some files, as a seed says.
    PowerCut(u64),
    /// Each write and each sync takes so long more.
    Slow(Duration),
    /// There is no room: nothing grows.
    Full,
    /// Little is left, and nothing fails yet.
    NearlyFull,
    /// Syncs fail, and sync nothing.
    FailingSync,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Ping => write!(f, "ping"),
            Order::PowerCut(seed) => write!(f, "power-cut {seed}"),
            Order::Slow(by) => write!(f, "slow {}", by.as_millis()),
            Order::Full => write!(f, "full"),
            Order::NearlyFull => write!(f, "nearly-full"),
            Order::FailingSync => write!(f, "failing-sync"),
        }
    }
}

impl Order {
    pub(super) fn parse(line: &str) -> Result<Order> {
        let (word, number) = line.trim().split_once(' ').unwrap_or((line.trim(), "0"));
        let number: u64 = number.parse().with_context(|| format!("{line:?}"))?;
        Ok(match word {
            "ping" => Order::Ping,
            "power-cut" => Order::PowerCut(number),
            "slow" => Order::Slow(Duration::from_millis(number)),
            "full" => Order::Full,
            "nearly-full" => Order::NearlyFull,
            "failing-sync" => Order::FailingSync,
            _ => anyhow::bail!("{line:?} is no order"),
        })
    }
}

/// An order that lasts until this is dropped.
pub(crate) struct Given {
    _connection: UnixStream,
}

/// Tells the disk at `socket`; what it answered.
pub(crate) fn tell(socket: &Path, order: Order) -> Result<(Given, String)> {
    let mut connection = UnixStream::connect(socket)
        .with_context(|| format!("no disk listens at {}", socket.display()))?;
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    writeln!(connection, "{order}")?;
    let mut answer = String::new();
    BufReader::new(&connection).read_line(&mut answer)?;
    let answer = answer.trim();
    let done = answer.strip_prefix("ok");
    ensure!(done.is_some(), "the disk at {} refuses {order}: {answer:?}", socket.display());
    let answer = done.unwrap_or_default().trim().to_owned();
    Ok((Given { _connection: connection }, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for order in [
            Order::Ping,
            Order::PowerCut(7),
            Order::Slow(Duration::from_millis(250)),
            Order::Full,
            Order::NearlyFull,
            Order::FailingSync,
        ] {
            assert_eq!(Order::parse(&format!("{order}\n")).unwrap(), order);
        }
        assert!(Order::parse("melt").is_err() && Order::parse("slow down").is_err());
    }
}
