//! Reads the CPU time of a process in nanoseconds, and its anonymous memory, from Linux.

use std::fs;
use std::io;

/// Returns the CPU time of all threads of `pid` so far, kernel time included, in nanoseconds.
///
/// The scheduler's own figure is exact, while `/proc/PID/stat` counts ticks of 10 ms.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
    }
    Ok(total)
}

/// Returns the busy time of all cores together since the machine started, in nanoseconds.
///
/// The kernel counts ticks of 10 ms: precise enough to detect other load on the machine.
pub(crate) fn machine_ns() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        first.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user.
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
        return Err(io::Error::other("no CPU times in /proc/stat"));
    };
    Ok((user + nice + system + irq + softirq + steal) * 10_000_000)
}

/// Returns the anonymous memory of `pid` in bytes: heap and stacks, without files and shared pages.
pub(crate) fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no RssAnon in /proc/PID/status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let before = cpu_ns(pid).unwrap();
        let kept = vec![1_u8; 8 << 20];
        assert!(anonymous_bytes(pid).unwrap() > 8 << 20, "{}", kept.len());
        let busy = machine_ns().unwrap();
        while cpu_ns(pid).unwrap() == before || machine_ns().unwrap() == busy {}
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(cpu_ns(u32::MAX).is_err() && anonymous_bytes(u32::MAX).is_err());
    }
}
