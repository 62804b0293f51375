//! A private PostgreSQL for those who bring none.
//!
//! [`Embedded::start`] turns a data folder into a running server: it finds the PostgreSQL programs of the machine,
//! makes a cluster the first time, clears away what a crash left behind, and waits until queries are answered. The
//! server listens on a Unix socket only, in a folder that nobody else may enter, and it keeps `fsync` on: this is
//! people's data, not a cache.
//!
//! What lies in the data folder:
//!
//! | name           | what                                                                                       |
//! |----------------|--------------------------------------------------------------------------------------------|
//! | `postgres/`    | the cluster; complete whenever it exists, because it is renamed into place                 |
//! | `postgres.new/`| a cluster that was being made when the machine stopped; removed and made again             |
//! | `postgres.log` | what the server said; moved to `postgres.log.1` when it grows large                        |
//! | `lock`         | held while a process uses the folder                                                       |
//!
//! A keeper thread starts the server and lives exactly as long as [`Embedded`]. This matters because Linux sends the
//! parent-death signal when the *thread* that started a process ends: so however this process dies, PostgreSQL shuts
//! down too, and it never does before. The keeper also starts the server again should it end by itself.
//!
//! PostgreSQL refuses to run as root. Started as root, the server runs as the owner of the cluster, which for a new one
//! is `postgres` or else `nobody`. That user often may not enter the folders above (`/root`), so it is given the
//! cluster as an open descriptor, by the name that Linux has for it, instead of by a path.

mod cluster;
mod folder;
mod orphans;
mod owner;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use cluster::{Binaries, cluster_version, make_cluster};
use folder::{Lock, cluster_name, make_socket_dir, sweep_socket_dirs, take_lock};
use orphans::stop_orphans;
use owner::Owner;

/// The oldest major version whose features we use.
const OLDEST_MAJOR: u32 = 15;
/// The database made for the application.
const DATABASE: &str = "dealstream";
/// The role that `initdb` makes; a superuser, so nothing that serves tenants may stay in it.
const SUPERUSER: &str = "postgres";
/// A server that replays its log after a crash is not ready at once; beyond this it counts as stuck.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// Where the folder of the socket is made: short paths that every user may enter.
const SOCKET_PLACES: [&str; 2] = ["/tmp", "/run"];
/// How long a fast shutdown may take before we ask for an immediate one.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long an immediate shutdown may take before we end the processes.
const QUIT_WITHIN: Duration = Duration::from_secs(5);
/// How often we look whether a process has got somewhere.
const GLANCE: Duration = Duration::from_millis(10);
/// How often the keeper looks whether the server is still there.
const WATCH: Duration = Duration::from_millis(250);
/// The log is set aside at the next start when it has grown beyond this.
const LOG_BYTES: u64 = 8 << 20;

/// Why there is no embedded PostgreSQL. Every message is one that a person can act on.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Nothing usable is installed.
    #[error(
        "PostgreSQL {OLDEST_MAJOR} or newer was not found: install it (Debian and Ubuntu: `apt-get install postgresql`, \
         macOS: `brew install postgresql`), name the folder of its programs in PG_BINDIR, or set DATABASE_URL to use a \
         server that is running already"
    )]
    NotInstalled,
    /// `PG_BINDIR` is set, but does not lead to a usable PostgreSQL.
    #[error("PG_BINDIR is {0}, where there is no `initdb` and `postgres` of version {OLDEST_MAJOR} or newer")]
    BadBinaries(PathBuf),
    /// The cluster was made by a major version that is not there (any more).
    #[error(
        "the data in {data} were written by PostgreSQL {major}, which was not found: install that version, name the \
         folder of its programs in PG_BINDIR, or set DATABASE_URL to use a server that is running already"
    )]
    VersionGone {
        /// The cluster.
        data: PathBuf,
        /// The major version that made it.
        major: u32,
    },
    /// Another process holds the folder.
    #[error("{folder} is in use by another dealstream{holder}: stop that one or choose another data folder")]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// ` (process 123)`, or nothing when it is not known.
        holder: String,
    },
    /// The folder belongs to somebody else.
    #[error(
        "{0} belongs to another user: start as that user, give the folder to the present one, or choose another data \
         folder"
    )]
    ForeignFolder(PathBuf),
    /// There is something else where the cluster should be.
    #[error("{0} is not empty and not a PostgreSQL cluster: move it away or choose another data folder")]
    NotACluster(PathBuf),
    /// Started as root, and there is no other user to run PostgreSQL as.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it as"
    )]
    NoUser,
    /// No place for the socket.
    #[error("no private folder for PostgreSQL's socket could be made in /tmp or /run")]
    NoSocketFolder,
    /// A PostgreSQL that an earlier run left behind does not end.
    #[error("a PostgreSQL that an earlier run left in {0} could not be stopped")]
    Orphan(PathBuf),
    /// `initdb` failed; its last words follow.
    #[error("the PostgreSQL cluster could not be made in {folder}:\n{said}")]
    NotMade {
        /// Where it was tried.
        folder: PathBuf,
        /// The last lines that `initdb` printed.
        said: String,
    },
    /// The server ended or hung before it was ready; the last lines of its log follow.
    #[error("PostgreSQL did not start ({reason}); the end of {log}:\n{said}")]
    NotStarted {
        /// What was observed.
        reason: String,
        /// The log file.
        log: PathBuf,
        /// Its last lines.
        said: String,
    },
    /// The server runs but does not answer, or the database could not be made.
    #[error("PostgreSQL was started but does not answer: {0}")]
    NoAnswer(#[from] tokio_postgres::Error),
    /// [`Embedded`] was stopped while its server was starting.
    #[error("PostgreSQL was stopped while it was starting")]
    Stopped,
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What we were doing, with the path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

type Result<T, E = EmbeddedError> = std::result::Result<T, E>;

/// Gives an operating-system error the sentence that says what we were doing.
fn doing<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|source| EmbeddedError::System { what: what(), source })
}

/// A running private PostgreSQL; stops it when dropped.
#[derive(Debug)]
pub struct Embedded {
    url: String,
    data: PathBuf,
    /// Dropping this end tells the keeper to stop the server.
    running: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts PostgreSQL on `data_dir`, which is made when missing, and returns when the database `dealstream` answers.
    ///
    /// Blocks for about two seconds the first time and for a fraction of one later; may be called from any thread, but
    /// not from one that must not block. The environment variable `PG_BINDIR` names the folder of PostgreSQL's programs
    /// when the one that is found by itself is not the one that is wanted.
    pub fn start(data_dir: &Path) -> Result<Self> {
        Self::start_with(data_dir, &[])
    }

    /// As [`start`](Self::start), with further server settings. Tests use it to trade durability for speed.
    pub fn start_with(data_dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let data_dir = data_dir.to_owned();
        let settings = settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let (running, stopped) = mpsc::channel();
        let (report, outcome) = mpsc::sync_channel(1);
        let keep = move || {
            let started = Server::prepare(&data_dir, settings).and_then(|server| {
                let child = server.launch(&stopped)?;
                Ok((server, child))
            });
            match started {
                Ok((server, child)) => {
                    // The other side waits for this; should it be gone, so is `running`, and `keep` ends at once.
                    let _ = report.send(Ok((server.url(), server.data.clone())));
                    server.keep(child, &stopped);
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        };
        let keeper = doing(
            thread::Builder::new().name("postgres-keeper".into()).spawn(keep),
            || "starting a thread".into(),
        )?;
        let (url, data) = outcome.recv().expect("the keeper reports before it ends")?;
        Ok(Self {
            url,
            data,
            running: Some(running),
            keeper: Some(keeper),
        })
    }

    /// The address of the database `dealstream` as the superuser, over the Unix socket; for `tokio_postgres`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The folder of the cluster.
    pub fn cluster(&self) -> &Path {
        &self.data
    }

    /// Stops the server: open sessions are ended and everything is written. Blocks until it is done; when that takes
    /// longer than 20 seconds the server is stopped at once, and recovers from its log at the next start.
    pub fn stop(&mut self) {
        self.running = None;
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!("the keeper of PostgreSQL panicked");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Everything that is needed to start the server, again and again.
struct Server {
    binaries: Binaries,
    owner: Owner,
    data: PathBuf,
    log: PathBuf,
    socket_dir: PathBuf,
    settings: Vec<String>,
    _lock: Lock,
}

impl Server {
    /// Takes the folder, makes the cluster when there is none, and the folder of the socket.
    fn prepare(data_dir: &Path, settings: Vec<String>) -> Result<Self> {
        doing(
            DirBuilder::new().recursive(true).mode(0o700).create(data_dir),
            || format!("making the data folder {}", data_dir.display()),
        )?;
        let data_dir = doing(data_dir.canonicalize(), || {
            format!("entering {}", data_dir.display())
        })?;
        let lock = take_lock(&data_dir)?;
        let data = data_dir.join("postgres");
        let major = cluster_version(&data)?;
        let binaries = Binaries::find(&data, major)?;
        let owner = Owner::of(&data)?;
        if major.is_none() {
            make_cluster(
                &binaries,
                owner,
                &data_dir,
                &data,
                settings.iter().any(|it| it == "fsync=off"),
            )?;
        }
        let log = data_dir.join("postgres.log");
        if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_BYTES) {
            doing(fs::rename(&log, data_dir.join("postgres.log.1")), || {
                "setting the log aside".into()
            })?;
        }
        SOCKET_PLACES
            .iter()
            .for_each(|place| sweep_socket_dirs(Path::new(place), owner));
        let socket_dir = make_socket_dir(&cluster_name(&data)?, owner)?;
        Ok(Self {
            binaries,
            owner,
            data,
            log,
            socket_dir,
            settings,
            _lock: lock,
        })
    }

    fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// The path of the socket has to be escaped to stand where a host name is expected; it holds nothing but letters,
    /// digits, `-` and `/`.
    fn url_of(&self, database: &str) -> String {
        let host = self.socket_dir.display().to_string().replace('/', "%2F");
        format!("postgres://{SUPERUSER}@{host}/{database}")
    }

    /// Starts the server and waits until the database answers. Whatever an earlier one left is cleared away first.
    fn launch(&self, stopped: &Receiver<()>) -> Result<Child> {
        stop_orphans(&self.data, self.owner)?;
        remove_if_there(&self.data.join("postmaster.pid"))?;
        // The folder itself may be gone: some machines sweep their /tmp.
        make_socket_dir(&cluster_name(&self.data)?, self.owner)?;
        for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            remove_if_there(&self.socket_dir.join(name))?;
        }
        let mut log = doing(
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.log),
            || format!("opening {}", self.log.display()),
        )?;
        let log_start = doing(log.seek(SeekFrom::End(0)), || "reading the log".into())?;
        let mut command = self
            .owner
            .command(&self.binaries.0.join("postgres"), &self.data)?;
        for setting in [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", self.socket_dir.display()),
            "unix_socket_permissions=0700".to_owned(),
            "port=5432".to_owned(),
            // Shown in the titles of all its processes, by which a later start knows them.
            format!("cluster_name={}", cluster_name(&self.data)?),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            // Our queries are short; compiling them costs more than it gives.
            "jit=off".to_owned(),
        ]
        .iter()
        .chain(&self.settings)
        {
            command.arg("-c").arg(setting);
        }
        // glibc gives memory back to the system as soon as 128 KB are free, and a search, among others, would give it back
        // and ask for it again each time: page faults that cost more than the mebibyte that a process now may keep.
        command.env("MALLOC_TOP_PAD_", "1048576");
        let said_to = doing(log.try_clone(), || "sharing the log".into())?;
        command.stdout(said_to).stderr(log);
        end_with_this_thread(&mut command, Signal::INT);
        let child = doing(command.spawn(), || {
            format!("starting {}", command.get_program().display())
        })?;
        // From here on the server must not outlive a failure.
        let mut child = Guard(Some(child));
        self.wait_until_ready(child.get(), log_start, stopped)?;
        self.make_database()?;
        Ok(child.release())
    }

    fn wait_until_ready(&self, child: &mut Child, log_start: u64, stopped: &Receiver<()>) -> Result<()> {
        let began = Instant::now();
        let not_started = |reason: String| EmbeddedError::NotStarted {
            reason,
            log: self.log.clone(),
            said: last_lines(&self.log, log_start),
        };
        while !is_ready(&self.data, child.id()) {
            match doing(child.try_wait(), || "waiting for PostgreSQL".into())? {
                Some(status) => return Err(not_started(status.to_string())),
                None if began.elapsed() > READY_WITHIN => {
                    return Err(not_started(format!(
                        "not ready after {} s",
                        READY_WITHIN.as_secs()
                    )));
                }
                None => {}
            }
            if asked_to_stop(stopped, GLANCE) {
                return Err(EmbeddedError::Stopped);
            }
        }
        Ok(())
    }

    /// Makes the application's database when it is missing, and so proves that the server answers.
    fn make_database(&self) -> Result<()> {
        use tokio_postgres::error::SqlState;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = doing(runtime, || "starting a run-time".into())?;
        runtime.block_on(async {
            match run_sql(&self.url(), "SELECT 1").await {
                Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
                    run_sql(&self.url_of("postgres"), &format!("CREATE DATABASE {DATABASE}")).await
                }
                outcome => outcome,
            }
        })?;
        Ok(())
    }

    /// Watches the server until asked to stop, and starts it again should it end by itself.
    fn keep(self, child: Child, stopped: &Receiver<()>) {
        let mut child = Some(child);
        let mut pause = WATCH;
        while !asked_to_stop(stopped, pause) {
            match child.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => {
                    pause = WATCH;
                    continue;
                }
                Some(Ok(Some(status))) => {
                    tracing::error!(%status, "PostgreSQL ended by itself; starting it again")
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "PostgreSQL cannot be watched; starting it again")
                }
                None => {}
            }
            child = match self.launch(stopped) {
                Ok(child) => {
                    tracing::info!("PostgreSQL is running again");
                    Some(child)
                }
                Err(EmbeddedError::Stopped) => None,
                Err(error) => {
                    tracing::error!(%error, "PostgreSQL could not be started again");
                    pause = (pause * 2).min(Duration::from_secs(5));
                    None
                }
            };
        }
        if let Some(child) = child {
            stop_child(child);
        }
        // Nothing depends on these two: the next start copes with whatever stays.
        let _ = fs::remove_file(self.socket_dir.join(".s.PGSQL.5432.lock"));
        let _ = fs::remove_dir(&self.socket_dir);
    }
}

/// Stops a half-started server on every way out of [`Server::launch`] but the good one.
struct Guard(Option<Child>);

impl Guard {
    fn get(&mut self) -> &mut Child {
        self.0.as_mut().expect("held until released")
    }

    fn release(mut self) -> Child {
        self.0.take().expect("held until released")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            stop_child(child);
        }
    }
}

/// Waits for `time`, or less when the owner asks the keeper to stop.
fn asked_to_stop(stopped: &Receiver<()>, time: Duration) -> bool {
    stopped.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
}

/// Fast shutdown, then an immediate one, then the end.
fn stop_child(mut child: Child) {
    let pid = Pid::from_child(&child);
    for (signal, patience) in [
        (Signal::INT, STOP_WITHIN),
        (Signal::QUIT, QUIT_WITHIN),
        (Signal::KILL, QUIT_WITHIN),
    ] {
        // Fails only when the process has ended, which the next line finds out.
        let _ = rustix::process::kill_process(pid, signal);
        let gone = || -> bool { !matches!(child.try_wait(), Ok(None)) };
        if wait_for(patience, gone) {
            return;
        }
        tracing::warn!(?signal, "PostgreSQL takes too long to stop");
    }
}

fn wait_for(patience: Duration, mut come_true: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if come_true() {
            return true;
        }
        if began.elapsed() > patience {
            return false;
        }
        thread::sleep(GLANCE);
    }
}

/// Makes `command` end by `signal` when the calling thread does, however that happens. Without effect on systems
/// other than Linux, where the next start stops what was left.
pub fn end_with_this_thread(command: &mut Command, signal: Signal) {
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getpid();
        let arm = move || {
            rustix::process::set_parent_process_death_signal(Some(signal))?;
            // The parent may have died before the line above; then no signal will come.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(rustix::io::Errno::SRCH.into())
            }
        };
        // SAFETY: between fork and exec only async-signal-safe things are allowed; this makes two system calls and
        // allocates nothing. It runs after the change of user, which would clear the signal.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(arm);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (command, signal);
}

async fn run_sql(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await?;
    drop(client);
    // Wait for the goodbye, so that no session of ours is open when the caller goes on. How it ends does not matter.
    let _ = connection.await;
    Ok(())
}

/// Whether the server that we started (and no other) says that it takes connections.
fn is_ready(data: &Path, pid: u32) -> bool {
    let noted = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = noted.lines();
    lines.next().and_then(|it| it.trim().parse().ok()) == Some(pid)
        && lines.nth(6).map(str::trim) == Some("ready")
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            doing(Err(error), || format!("removing the stale {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The last lines that were written to the log since `start`.
fn last_lines(log: &Path, start: u64) -> String {
    let mut said = Vec::new();
    let read = File::open(log).and_then(|mut log| {
        log.seek(SeekFrom::Start(start))?;
        log.read_to_end(&mut said)
    });
    match read {
        Ok(_) => tail(&String::from_utf8_lossy(&said)),
        Err(error) => format!("(the log cannot be read: {error})"),
    }
}

fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
