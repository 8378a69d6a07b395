//! What running processes use, as the kernel tells it in `/proc`.

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use std::fs;

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// Processor time of a process and its threads so far.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("the kernel counts in ticks")?;
    let stat = read(pid, "stat")?;
    let used = ticks_used(&stat).with_context(|| format!("/proc/{pid}/stat is odd: {stat}"))?;
    Ok(used as f64 / ticks as f64)
}

/// Bytes of a process that are in memory.
pub(super) fn resident_bytes(pid: u32) -> Result<u64> {
    resident(&read(pid, "status")?).with_context(|| format!("/proc/{pid}/status: no VmRSS"))
}

/// Of a `/proc/PID/stat`: in user space and in the kernel, the 14th and 15th field of all.
fn ticks_used(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// `VmRSS` of a `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_user_and_kernel_after_the_name() {
        let stat = "12 (a (b) c) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1";
        assert_eq!(ticks_used(stat), Some(300));
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 50 6 0 0 20 0 1 0 99";
        assert_eq!(ticks_used(stat), Some(56));
        assert_eq!(ticks_used("7 (a)"), None);
        assert_eq!(ticks_used("12"), None);
    }

    #[test]
    fn the_kernel_tells_kibibytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }
}
