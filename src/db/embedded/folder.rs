//! Where a server lives: the data folder that one process uses at a time, and the folder of its socket.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::owner::Owner;
use super::{EmbeddedError, Result, SOCKET_PLACES, doing};

/// A name for the cluster that no other one on this machine has: it follows the folder when that is moved or renamed,
/// and a copy gets its own. Short, because the path of a socket may have no more than 107 bytes.
pub(super) fn cluster_name(data: &Path) -> Result<String> {
    let folder = doing(fs::metadata(data), || format!("entering {}", data.display()))?;
    Ok(format!("dealstream-{:x}-{:x}", folder.dev(), folder.ino()))
}

/// Removes what killed servers left in `place` and nobody came back for: empty folders with names of ours. Those of the
/// last hour stay, because a server that is starting has an empty one too.
pub(super) fn sweep_socket_dirs(place: &Path, owner: Owner) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("dealstream-"));
        let old = |it: &fs::Metadata| {
            it.modified()
                .ok()
                .and_then(|then| then.elapsed().ok())
                .is_some_and(|age| age > Duration::from_secs(3600))
        };
        if ours
            && entry
                .metadata()
                .is_ok_and(|it| it.is_dir() && it.uid() == owner.uid && old(&it))
        {
            // Refused when it is not empty, and then it is in use.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The folder for the socket: in a place of everybody, but for the owner only. Takes the one of an earlier run again.
pub(super) fn make_socket_dir(name: &str, owner: Owner) -> Result<PathBuf> {
    // Somebody else may have taken the name, by mistake or on purpose: then another.
    let names = (0..8).map(|n| {
        if n == 0 {
            name.to_owned()
        } else {
            format!("{name}-{n}")
        }
    });
    for dir in names.flat_map(|name| SOCKET_PLACES.map(|place| Path::new(place).join(&name))) {
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {
                owner.give(&dir)?;
                return Ok(dir);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let ours = |it: fs::Metadata| it.is_dir() && it.uid() == owner.uid && it.mode() & 0o077 == 0;
                if fs::symlink_metadata(&dir).is_ok_and(ours) {
                    return Ok(dir);
                }
            }
            Err(_) => {}
        }
    }
    Err(EmbeddedError::NoSocketFolder)
}

/// A folder that this process has taken.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing the file would not do: a process that another thread is starting at this moment has it open too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Takes the folder for this process. The operating system gives it free when the process ends, in whatever way.
pub(super) fn take_lock(data_dir: &Path) -> Result<Lock> {
    let path = data_dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(EmbeddedError::ForeignFolder(data_dir.to_owned()));
        }
        file => doing(file, || format!("opening {}", path.display()))?,
    };
    match file.try_lock() {
        Ok(()) => {
            let note = format!("{}\n", std::process::id());
            doing(
                file.set_len(0).and_then(|()| file.write_all(note.as_bytes())),
                || format!("writing {}", path.display()),
            )?;
            Ok(Lock(file))
        }
        Err(fs::TryLockError::WouldBlock) => {
            let mut note = String::new();
            // Only for the message; a holder that cannot be read is left out.
            let _ = file.take(20).read_to_string(&mut note);
            let holder = note
                .trim()
                .parse::<u32>()
                .map(|pid| format!(" (process {pid})"))
                .unwrap_or_default();
            Err(EmbeddedError::InUse {
                folder: data_dir.to_owned(),
                holder,
            })
        }
        Err(fs::TryLockError::Error(error)) => doing(Err(error), || format!("locking {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_free_at_once_though_a_process_has_its_lock_open_still() {
        let folder = std::env::temp_dir().join(format!("dealstream-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let lock = take_lock(&folder).unwrap();
        // As a process has it between its fork and its exec.
        let copy = lock.0.try_clone().unwrap();
        assert!(matches!(take_lock(&folder), Err(EmbeddedError::InUse { .. })));
        drop(lock);
        drop(take_lock(&folder).unwrap());
        drop(copy);
        fs::remove_dir_all(&folder).unwrap();
    }
}
