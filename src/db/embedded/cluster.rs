//! The programs of PostgreSQL on this machine, and the cluster that they make.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use rustix::process::Signal;

use super::orphans::stop_orphans;
use super::owner::Owner;
use super::{EmbeddedError, OLDEST_MAJOR, Result, SUPERUSER, doing, end_with_this_thread, tail};

/// The folder of PostgreSQL's programs.
#[derive(Debug)]
pub(super) struct Binaries(pub(super) PathBuf);

impl Binaries {
    /// The newest that will do; for an existing cluster, those of its own major version, since no other can read it.
    pub(super) fn find(data: &Path, wanted: Option<u32>) -> Result<Self> {
        let fits = |major: u32| major >= OLDEST_MAJOR && wanted.is_none_or(|wanted| wanted == major);
        let gone = |major| EmbeddedError::VersionGone {
            data: data.to_owned(),
            major,
        };
        if let Some(named) = std::env::var_os("PG_BINDIR").filter(|named| !named.is_empty()) {
            let named = PathBuf::from(named);
            return match (major_version(&named), wanted) {
                (Some(major), _) if fits(major) => Ok(Self(named)),
                (Some(major), Some(wanted)) if major >= OLDEST_MAJOR => Err(gone(wanted)),
                _ => Err(EmbeddedError::BadBinaries(named)),
            };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = [
            "/usr/local/opt",
            "/opt/homebrew/opt",
            "/usr",
            "/usr/lib/postgresql",
        ];
        // Of equal versions the last is taken: rather the system's own folders than whatever the path leads to.
        let newest = std::env::split_paths(&path)
            .chain(
                places
                    .iter()
                    .flat_map(|place| subfolders(Path::new(place)))
                    .map(|folder| folder.join("bin")),
            )
            .filter_map(|dir| Some((major_version(&dir)?, dir)))
            .filter(|(major, _)| fits(*major))
            .max_by_key(|(major, _)| *major);
        match (newest, wanted) {
            (Some((_, dir)), _) => Ok(Self(dir)),
            (None, Some(major)) => Err(gone(major)),
            (None, None) => Err(EmbeddedError::NotInstalled),
        }
    }
}

fn subfolders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// The major version of the programs in `dir`, when `initdb` and `postgres` are both there.
fn major_version(dir: &Path) -> Option<u32> {
    if !dir.join("initdb").is_file() {
        return None;
    }
    let said = Command::new(dir.join("postgres"))
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    major_in(&String::from_utf8_lossy(&said.stdout))
}

/// Reads `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`, and `18beta1` too.
fn major_in(version: &str) -> Option<u32> {
    let number = version.split("(PostgreSQL) ").nth(1)?;
    let digits = number
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// The major version that made the cluster; nothing when there is none yet.
pub(super) fn cluster_version(data: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(version) => match version.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(EmbeddedError::NotACluster(data.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_dir(data) {
            // An empty folder is nobody's loss, and a new cluster takes its place.
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(EmbeddedError::NotACluster(data.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(EmbeddedError::ForeignFolder(data.to_owned()))
        }
        Err(error) => doing(Err(error), || format!("reading {}", data.display())),
    }
}

/// Makes the cluster beside its place and moves it there when it is complete, so that a crash leaves all or nothing.
pub(super) fn make_cluster(
    binaries: &Binaries,
    owner: Owner,
    data_dir: &Path,
    data: &Path,
    hasty: bool,
) -> Result<()> {
    let fresh = data_dir.join("postgres.new");
    if fresh.exists() {
        stop_orphans(&fresh, owner)?;
        doing(fs::remove_dir_all(&fresh), || {
            format!("removing the unfinished {}", fresh.display())
        })?;
    }
    doing(DirBuilder::new().mode(0o700).create(&fresh), || {
        format!("making {}", fresh.display())
    })?;
    owner.give(&fresh)?;
    let mut initdb = owner.command(&binaries.0.join("initdb"), &fresh)?;
    // Byte order sorts the same on every machine and never changes under an index, whatever the C library does.
    let locale = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };
    initdb.args([
        "-U",
        SUPERUSER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-instructions",
        "--locale",
        locale,
    ]);
    if hasty {
        initdb.arg("--no-sync");
    }
    end_with_this_thread(&mut initdb, Signal::KILL);
    let output = doing(initdb.output(), || {
        format!("starting {}", initdb.get_program().display())
    })?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = tail(&String::from_utf8_lossy(&said));
        return Err(EmbeddedError::NotMade {
            folder: fresh,
            said: explain(output.status, &said),
        });
    }
    doing(fs::rename(&fresh, data), || {
        format!("moving the cluster to {}", data.display())
    })?;
    doing(File::open(data_dir).and_then(|folder| folder.sync_all()), || {
        format!("writing {}", data_dir.display())
    })
}

fn explain(status: ExitStatus, said: &str) -> String {
    if said.is_empty() {
        status.to_string()
    } else {
        said.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        assert_eq!(
            major_in("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_in("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_in("postgres (PostgreSQL) devel"), None);
        assert_eq!(major_in(""), None);
    }
}
