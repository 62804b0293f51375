//! A Redis of a test's own, to be maltreated.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use dealstream::db::embedded::end_with_this_thread;
use rustix::process::{Pid, Signal, kill_process};

use super::cluster;

/// A Redis that ends with the test, whose thread must live as long as it shall.
pub struct Redis {
    folder: PathBuf,
    server: Option<Child>,
}

impl Redis {
    /// An address where none listens yet. `name` has to be the test's own.
    pub fn absent(name: &str) -> Self {
        let folder = cluster::own_folder(Path::new("/tmp"), &format!("dealstream-redis-{name}"));
        Self { folder, server: None }
    }

    pub fn new(name: &str) -> Self {
        let mut redis = Self::absent(name);
        redis.start();
        redis
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub fn start(&mut self) {
        let mut command = cluster::redis_server(&self.folder, &self.socket());
        end_with_this_thread(&mut command, Signal::KILL);
        self.server = Some(
            command
                .spawn()
                .expect("redis-server is installed: `make setup-tests`"),
        );
        let began = Instant::now();
        while !cluster::answers(&self.socket()) {
            assert!(began.elapsed() < Duration::from_secs(20), "redis does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Lets it stand still without closing anything.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let server = self.server.as_ref().expect("it runs");
        kill_process(Pid::from_child(server), signal).unwrap();
    }

    /// Sends a command that answers `+OK`.
    pub fn command(&self, command: &str) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "{command}\r\n").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n", "{command}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
