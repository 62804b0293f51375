//! The one PostgreSQL and the one Redis that all tests of a process share.
//!
//! Both start with the first test that asks and end with the process, however that ends: they are started by threads
//! that live as long as it does, with a parent-death signal. Their folders carry the number of the process and are
//! swept by a later run, because nothing runs any more when a process is killed.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use dealstream::db::embedded::{Embedded, end_with_this_thread};
use rustix::process::{Pid, Signal};

/// The data of a test run may be lost with the machine.
const FAST: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "300"),
    ("autovacuum_naptime", "5s"),
];

/// The address of the shared PostgreSQL's first database, as its superuser.
pub fn postgres_url() -> String {
    static SERVER: OnceLock<Embedded> = OnceLock::new();
    let start = || {
        let folder = own_folder(Path::new(env!("CARGO_TARGET_TMPDIR")), "postgres");
        Embedded::start_with(&folder, FAST).unwrap_or_else(|error| panic!("{error}"))
    };
    SERVER.get_or_init(start).url()
}

/// Makes an empty database on the shared PostgreSQL and answers its address. `name` must be a plain word.
pub async fn create_database(name: &str) -> String {
    let url = postgres_url();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    client
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// The address of the shared Redis.
pub fn redis_url() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        // The path of a socket is short, so this folder cannot lie in the build folder.
        let folder = own_folder(Path::new("/tmp"), "dealstream-redis");
        let socket = folder.join("redis.sock");
        start_redis(&folder, &socket);
        format!("redis+unix://{}", socket.display())
    })
    .clone()
}

/// How a Redis is started.
pub fn redis_server(folder: &Path, socket: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
    command.arg("--unixsocket").arg(socket).arg("--dir").arg(folder);
    command
        .stdin(Stdio::null())
        .stdout(fs::File::create(folder.join("redis.log")).unwrap());
    command
}

fn start_redis(folder: &Path, socket: &Path) {
    let mut command = redis_server(folder, socket);
    let (report, ended) = mpsc::channel();
    thread::spawn(move || {
        end_with_this_thread(&mut command, Signal::KILL);
        // This thread waits as long as the server runs, and the server gets its signal when this thread ends.
        let end = command.spawn().and_then(|mut child| child.wait());
        // Nobody listens any more once the server has answered.
        let _ = report.send(end);
    });
    let began = Instant::now();
    while !answers(socket) {
        match ended.recv_timeout(Duration::from_millis(5)) {
            Ok(Err(error)) => {
                panic!("redis-server, which the tests need, cannot be started ({error}): `make setup`")
            }
            Ok(Ok(status)) => panic!(
                "redis-server ended ({status}): see {}",
                folder.join("redis.log").display()
            ),
            Err(_) => assert!(
                began.elapsed() < Duration::from_secs(20),
                "redis-server does not answer"
            ),
        }
    }
}

/// Whether a Redis listens there and answers.
pub fn answers(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| &answer == b"+PONG\r\n")
}

/// Makes `parent/name-<this process>` and removes those of processes that are no more.
pub fn own_folder(parent: &Path, name: &str) -> PathBuf {
    for entry in fs::read_dir(parent).unwrap().flatten() {
        let path = entry.path();
        let file_name = entry.file_name();
        let owner = file_name
            .to_str()
            .and_then(|it| it.strip_prefix(name)?.strip_prefix('-')?.parse().ok());
        let mine =
            || fs::symlink_metadata(&path).is_ok_and(|it| it.uid() == rustix::process::geteuid().as_raw());
        let alive = |pid: Pid| rustix::process::test_kill_process(pid).is_ok();
        if let Some(pid) = owner.and_then(Pid::from_raw)
            && !alive(pid)
            && mine()
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
    let path = parent.join(format!("{name}-{}", process::id()));
    fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    path
}
