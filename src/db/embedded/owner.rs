//! The user that PostgreSQL runs as, who is never root.

use std::{
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, lchown},
            process::CommandExt,
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use super::{EmbeddedError, Result, doing};

/// The user that PostgreSQL runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    gid: u32,
    /// We are root and have to become that user.
    switch: bool,
}

impl Owner {
    /// The owner of the cluster when there is one, so that nobody's files change hands.
    pub(super) fn of(data: &Path) -> Result<Self> {
        let uid = rustix::process::geteuid();
        let existing = fs::symlink_metadata(data).ok();
        if !uid.is_root() {
            if existing.is_some_and(|existing| existing.uid() != uid.as_raw()) {
                return Err(EmbeddedError::ForeignFolder(data.to_owned()));
            }
            return Ok(Self {
                uid: uid.as_raw(),
                gid: rustix::process::getegid().as_raw(),
                switch: false,
            });
        }
        if let Some(existing) = existing.filter(|existing| existing.uid() != 0) {
            return Ok(Self {
                uid: existing.uid(),
                gid: existing.gid(),
                switch: true,
            });
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (uid, gid) = ["postgres", "nobody"]
            .iter()
            .find_map(|name| user_in(&users, name))
            .ok_or(EmbeddedError::NoUser)?;
        Ok(Self {
            uid,
            gid,
            switch: true,
        })
    }

    /// Makes `path` the owner's. Only for what we have made ourselves.
    pub(super) fn give(self, path: &Path) -> Result<()> {
        if !self.switch {
            return Ok(());
        }
        doing(lchown(path, Some(self.uid), Some(self.gid)), || {
            format!("giving {} to the user that PostgreSQL runs as", path.display())
        })
    }

    /// A command that works on the cluster `data` as the owner: in its own process group, so that Ctrl-C in the
    /// terminal reaches only us, and with nothing of our environment but what it needs.
    pub(super) fn command(self, program: &Path, data: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null());
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if !self.switch || cfg!(not(target_os = "linux")) {
            command.env("PGDATA", data);
            if self.switch {
                command.uid(self.uid).gid(self.gid);
            }
            return Ok(command);
        }
        // Setting a user as root also drops our supplementary groups.
        command.uid(self.uid).gid(self.gid);
        let folder = doing(File::open(data), || format!("opening {}", data.display()))?;
        command.env("PGDATA", format!("/proc/self/fd/{}", folder.as_raw_fd()));
        // SAFETY: one system call, which is async-signal-safe. The descriptor is open as long as the closure lives.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || Ok(rustix::io::fcntl_setfd(&folder, rustix::io::FdFlags::empty())?));
        }
        Ok(command)
    }
}

/// The user and group numbers of `name` in the text of `/etc/passwd`.
fn user_in(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(|field| field.parse().ok());
    Some((numbers.next()??, numbers.next()??)).filter(|(uid, _)| *uid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name_and_never_root() {
        let users = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:\npostgres:x:101:104::/var:/bin/sh\nnobody:x:0:0::/:\n";
        assert_eq!(user_in(users, "postgres"), Some((101, 104)));
        assert_eq!(user_in(users, "nobody"), None);
        assert_eq!(user_in(users, "alice"), None);
    }
}
