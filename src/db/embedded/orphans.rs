//! What a killed process leaves: a PostgreSQL that still runs.

#[cfg(not(target_os = "linux"))]
use std::process::{Command, Stdio};
use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use rustix::process::{Pid, Signal};

use super::folder::cluster_name;
use super::owner::Owner;
use super::{EmbeddedError, QUIT_WITHIN, Result, STOP_WITHIN, doing, wait_for};

/// Ends the PostgreSQL processes that still work on the cluster: those of a server whose keeper was killed (they are
/// usually shutting down already), or the rest of one that was killed itself.
///
/// The caller holds the lock of the folder, so none of them belongs to a living owner.
pub(super) fn stop_orphans(data: &Path, owner: Owner) -> Result<()> {
    for (signal, patience) in [
        (Signal::INT, STOP_WITHIN),
        (Signal::QUIT, QUIT_WITHIN),
        (Signal::KILL, QUIT_WITHIN),
    ] {
        let left = processes_of(data, owner)?;
        if left.is_empty() {
            return Ok(());
        }
        let postmaster = postmaster_pid(data).filter(|pid| left.contains(pid));
        tracing::warn!(
            ?signal,
            processes = left.len(),
            "stopping the PostgreSQL that an earlier run left behind"
        );
        match (signal, postmaster) {
            // A fast shutdown is the postmaster's to lead; to the others this signal means something else. Without
            // one they end by themselves, and those that are too busy to notice are told below.
            (Signal::INT, Some(postmaster)) => send(postmaster, signal),
            (Signal::INT, None) => {
                if wait_for(Duration::from_secs(1), || {
                    processes_of(data, owner).is_ok_and(|left| left.is_empty())
                }) {
                    return Ok(());
                }
                continue;
            }
            _ => left.iter().for_each(|pid| send(*pid, signal)),
        }
        if wait_for(patience, || {
            processes_of(data, owner).is_ok_and(|left| left.is_empty())
        }) {
            return Ok(());
        }
    }
    Err(EmbeddedError::Orphan(data.to_owned()))
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails only when the process has just ended, which is what we want.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The PostgreSQL processes that work on the cluster: run by its owner and with their working folder in it.
///
/// Root without the right to look into other users' processes, as in most containers, cannot see a working folder;
/// there the cluster's name in the title of the process decides.
#[cfg(target_os = "linux")]
fn processes_of(data: &Path, owner: Owner) -> Result<Vec<u32>> {
    let cluster = doing(fs::metadata(data), || format!("entering {}", data.display()))?;
    let name = cluster_name(data)?;
    let belongs = |process: &Path| -> bool {
        let is_postgres =
            fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "postgres");
        if !is_postgres || !fs::metadata(process).is_ok_and(|process| process.uid() == owner.uid) {
            return false;
        }
        match fs::metadata(process.join("cwd")) {
            Ok(folder) => (folder.dev(), folder.ino()) == (cluster.dev(), cluster.ino()),
            Err(_) => {
                let title = fs::read(process.join("cmdline")).unwrap_or_default();
                mentions(&String::from_utf8_lossy(&title), &name)
            }
        }
    };
    let processes = doing(fs::read_dir("/proc"), || "reading /proc".into())?;
    Ok(processes
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, process)| belongs(process))
        .map(|(pid, _)| pid)
        .collect())
}

/// The PostgreSQL processes that work on the cluster, known by the cluster's name in their titles.
#[cfg(not(target_os = "linux"))]
fn processes_of(data: &Path, owner: Owner) -> Result<Vec<u32>> {
    let name = cluster_name(data)?;
    let mut ps = Command::new("ps");
    ps.args(["-axo", "pid=,uid=,command="]).stdin(Stdio::null());
    let said = doing(ps.output(), || "listing the processes".into())?;
    let belongs = |line: &str| -> Option<u32> {
        let mut words = line.split_whitespace();
        let (pid, uid) = (words.next()?.parse().ok()?, words.next()?.parse::<u32>().ok()?);
        (uid == owner.uid && line.contains("postgres") && mentions(line, &name)).then_some(pid)
    };
    Ok(String::from_utf8_lossy(&said.stdout)
        .lines()
        .filter_map(belongs)
        .collect())
}

/// Whether the title of a process names exactly this cluster, and not one whose name begins the same.
fn mentions(title: &str, cluster: &str) -> bool {
    title.match_indices(cluster).any(|(at, _)| {
        !title[at + cluster.len()..].starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-')
    })
}

/// The process that leads the cluster's server, as the server has noted it.
fn postmaster_pid(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("postmaster.pid"))
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_known_by_its_whole_name() {
        assert!(mentions(
            "postgres: dealstream-1-2: checkpointer",
            "dealstream-1-2"
        ));
        assert!(mentions("-c\0cluster_name=dealstream-1-2\0-c", "dealstream-1-2"));
        assert!(!mentions(
            "postgres: dealstream-1-23: checkpointer",
            "dealstream-1-2"
        ));
        assert!(!mentions(
            "postgres: dealstream-1-2-3: checkpointer",
            "dealstream-1-2"
        ));
    }
}
