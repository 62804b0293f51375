//! What processes have used, as Linux tells it.

use std::fs;
use std::io::Result;
use std::time::Duration;

/// Nanoseconds on a processor, summed up by who used them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// The server.
    pub server: u64,
    /// PostgreSQL: the postmaster and all of its children, those that have ended included.
    pub postgres: u64,
    /// This program.
    pub ours: u64,
    /// Everything that ran on the machine, whoever's it was.
    pub machine: u64,
}

impl std::ops::Sub for Used {
    type Output = Used;

    fn sub(self, earlier: Used) -> Used {
        Used {
            server: self.server.saturating_sub(earlier.server),
            postgres: self.postgres.saturating_sub(earlier.postgres),
            ours: self.ours.saturating_sub(earlier.ours),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }
}

impl Used {
    /// Time of processors that neither the server nor PostgreSQL nor this program used, as a share of all processors'
    /// time.
    pub fn by_others(self, elapsed: Duration) -> f64 {
        let known = self.server + self.postgres + self.ours;
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        self.machine.saturating_sub(known) as f64 / (elapsed.as_nanos() as f64 * processors)
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Used) {
        self.server += other.server;
        self.postgres += other.postgres;
        self.ours += other.ours;
        self.machine += other.machine;
    }
}

/// The processes that are measured.
#[derive(Debug, Clone, Copy)]
pub struct Processes {
    pub server: u32,
    pub postmaster: u32,
}

/// Nanoseconds of a tick in `/proc/<pid>/stat`, whose length Linux fixes at a hundredth of a second for programs.
const TICK: u64 = 10_000_000;

impl Processes {
    /// What they have used until now.
    pub fn used(self) -> Result<Used> {
        let mut postgres = of_process(self.postmaster)? + of_ended_children(self.postmaster)?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may end while we look; what it used is then told by its parent, the next time.
            if let Ok(stat) = stat(pid)
                && stat.get(1).and_then(|parent| parent.parse().ok()) == Some(self.postmaster)
            {
                postgres += of_process(pid).unwrap_or_default();
            }
        }
        Ok(Used {
            server: of_process(self.server)?,
            postgres,
            ours: of_process(std::process::id())?,
            machine: of_machine()?,
        })
    }
}

/// The fields of `/proc/<pid>/stat` from the state on: the name before them may hold anything.
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Ok(rest.split(' ').map(str::to_owned).collect())
}

/// The time of all threads of a process that are there, to the nanosecond where the kernel keeps it, else in ticks:
/// with dozens of processes the rounding to ticks would drown short rounds.
fn of_process(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            let stat = stat(pid)?;
            return Ok(ticks(&stat, 11) + ticks(&stat, 12));
        };
        let used = text.split(' ').next().and_then(|used| used.parse::<u64>().ok());
        sum += used.unwrap_or_default();
    }
    Ok(sum)
}

fn of_ended_children(pid: u32) -> Result<u64> {
    let stat = stat(pid)?;
    Ok(ticks(&stat, 13) + ticks(&stat, 14))
}

fn ticks(stat: &[String], field: usize) -> u64 {
    let ticks = stat.get(field).and_then(|ticks| ticks.parse::<u64>().ok());
    ticks.unwrap_or_default() * TICK
}

/// All but idle and waiting for disks.
fn of_machine() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).take(8);
    let busy = fields.enumerate().filter(|(index, _)| !matches!(index, 3 | 4));
    Ok(busy
        .filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * TICK)
}

/// Resident memory of a process, now and at its highest, in MiB.
pub fn memory(pid: u32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    };
    Ok((of("VmRSS:"), of("VmHWM:")))
}
