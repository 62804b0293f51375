//! The embedded PostgreSQL, started and mistreated for real.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{MetadataExt, lchown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dealstream::db::embedded::{Embedded, EmbeddedError};
use dealstream::db::{Database, migrate};
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::NoTls;

use crate::support::{cluster, folder::Folder};

/// Names the folder for [`holds_a_server_until_it_is_killed`].
const HOLD: &str = "DEALSTREAM_TEST_HOLD";

async fn ask(url: &str, sql: &str) -> Result<i32, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// All that a superuser has to do is told at once.
#[tokio::test]
async fn a_login_that_may_not_make_roles_is_told_which_and_then_migrates() {
    let folder = Folder::new("roles");
    let server = Embedded::start(folder.path()).unwrap();
    let mighty = server.url();
    let (_, rest) = mighty.split_once('@').unwrap();
    let (host, _) = rest.rsplit_once('/').unwrap();
    let url = |login: &str| format!("postgres://{login}@{host}/{login}");
    let (plain, maker) = (url("plain"), url("maker"));
    for statement in [
        "CREATE ROLE plain LOGIN",
        "CREATE DATABASE plain OWNER plain",
        "CREATE ROLE maker LOGIN CREATEROLE",
        "CREATE DATABASE maker OWNER maker",
    ] {
        tell(&mighty, statement).await;
    }
    let told = async || {
        let told = migrate::migrate(&plain).await.unwrap_err();
        let count = |word| told.matches(word).count();
        (count("CREATE ROLE"), count("GRANT"), told)
    };
    assert!(matches!(told().await, (3, 4, _)));
    // Of what is there already, nothing is told.
    tell(
        &mighty,
        "CREATE ROLE dealstream_scoped; GRANT dealstream_scoped TO plain",
    )
    .await;
    assert!(matches!(told().await, (2, 3, _)));
    tell(&mighty, "DROP ROLE dealstream_scoped").await;

    assert!(migrate::migrate(&maker).await.unwrap() > 20);
    let (0, 3, statements) = told().await else {
        panic!("the roles are there");
    };
    let (_, statements) = statements.split_once(": ").unwrap();
    tell(&mighty, statements).await;
    assert!(migrate::migrate(&plain).await.unwrap() > 20);
    for url in [plain, maker] {
        let db = Database::new(&url, 2, Duration::from_secs(10)).unwrap();
        migrate::verify_isolation(&db).await.unwrap();
    }
}

async fn text(url: &str, sql: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn tell(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
}

fn pid_in(file: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(file).ok()?.lines().next()?.parse().ok()?)
}

fn postmaster(folder: &Folder) -> Option<Pid> {
    pid_in(&folder.path().join("postgres/postmaster.pid"))
}

fn eventually(what: &str, mut come_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !come_true() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "waited in vain: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

fn socket_dir(server: &Embedded) -> PathBuf {
    let config: tokio_postgres::Config = server.url().parse().unwrap();
    match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Unix(path) => path.clone(),
        other => panic!("not a Unix socket: {other:?}"),
    }
}

/// A process of its own that has an embedded server, so that it can be killed.
fn holder(folder: &Folder) -> Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "embedded::holds_a_server_until_it_is_killed",
            "--ignored",
        ])
        .env(HOLD, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the holder's server is ready", || {
        let noted = fs::read_to_string(folder.path().join("postgres/postmaster.pid")).unwrap_or_default();
        noted.lines().nth(7).is_some_and(|it| it.trim() == "ready") && folder.path().join("holding").exists()
    });
    child
}

#[test]
#[ignore = "not a test by itself: others start it as a process of its own"]
fn holds_a_server_until_it_is_killed() {
    let folder = PathBuf::from(std::env::var_os(HOLD).expect("is started by other tests only"));
    let _server = Embedded::start(&folder).unwrap();
    fs::write(folder.join("holding"), "").unwrap();
    loop {
        thread::park();
    }
}

#[tokio::test]
async fn a_second_start_finds_the_data_of_the_first_and_nothing_stays_behind() {
    let folder = Folder::new("embedded-warm");
    let mut server = Embedded::start(folder.path()).unwrap();
    tell(&server.url(), "CREATE TABLE kept AS SELECT 41 + 1 AS n").await;
    let sockets = socket_dir(&server);
    assert_eq!(fs::metadata(&sockets).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        ask(&server.url(), "SELECT (current_setting('fsync') = 'on')::int")
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        ask(
            &server.url(),
            "SELECT (current_setting('listen_addresses') = '')::int"
        )
        .await
        .unwrap(),
        1
    );
    server.stop();
    assert!(!sockets.exists(), "the folder of the socket is removed");
    assert!(
        !folder.path().join("postgres/postmaster.pid").exists(),
        "the server has shut down"
    );
    server.stop();

    let server = Embedded::start(folder.path()).unwrap();
    assert_eq!(ask(&server.url(), "SELECT n FROM kept").await.unwrap(), 42);
    drop(server);
    assert!(
        !folder.path().join("postgres/postmaster.pid").exists(),
        "dropping stops too"
    );
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let folder = Folder::new("embedded-twice");
    let first = Embedded::start(folder.path()).unwrap();
    match Embedded::start(folder.path()) {
        Err(error @ EmbeddedError::InUse { .. }) => {
            let told = error.to_string();
            assert!(
                told.contains(&format!("process {}", std::process::id())),
                "{told}"
            );
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    drop(first);
    Embedded::start(folder.path()).unwrap();
}

#[tokio::test]
async fn a_killed_postmaster_is_started_again() {
    let folder = Folder::new("embedded-killed");
    let server = Embedded::start(folder.path()).unwrap();
    tell(&server.url(), "CREATE TABLE kept AS SELECT 42 AS n").await;
    let before = postmaster(&folder).unwrap();
    kill_process(before, Signal::KILL).unwrap();
    eventually("another postmaster runs", || {
        postmaster(&folder).is_some_and(|now| now != before)
    });
    let began = Instant::now();
    loop {
        match ask(&server.url(), "SELECT n FROM kept").await {
            Ok(n) => break assert_eq!(n, 42),
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_server_ends_with_a_killed_owner_and_the_next_start_recovers() {
    let folder = Folder::new("embedded-owner");
    let mut owner = holder(&folder);
    let orphan = postmaster(&folder).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let server = Embedded::start(folder.path()).unwrap();
    assert_ne!(postmaster(&folder).unwrap(), orphan);
    assert_eq!(ask(&server.url(), "SELECT 42").await.unwrap(), 42);
    // What has ended may still be in the list of processes until somebody fetches its status, but has no arguments.
    let arguments = fs::read(format!("/proc/{}/cmdline", orphan.as_raw_nonzero())).unwrap_or_default();
    assert!(arguments.is_empty(), "the orphan has ended");
}

#[tokio::test]
async fn owner_and_postmaster_killed_together_leave_nothing_that_hinders() {
    let folder = Folder::new("embedded-both");
    let mut owner = holder(&folder);
    kill_process(Pid::from_child(&owner), Signal::STOP).unwrap();
    kill_process(postmaster(&folder).unwrap(), Signal::KILL).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    // As if the number had been given to another process since: PostgreSQL itself would refuse to start.
    let stale = folder.path().join("postgres/postmaster.pid");
    let noted = fs::read_to_string(&stale).unwrap();
    let (_, rest) = noted.split_once('\n').unwrap();
    fs::write(&stale, format!("{}\n{rest}", std::process::id())).unwrap();
    let server = Embedded::start(folder.path()).unwrap();
    assert_eq!(ask(&server.url(), "SELECT 42").await.unwrap(), 42);
}

#[tokio::test]
async fn an_orphaned_server_that_still_runs_is_replaced_and_others_are_left_alone() {
    let folder = Folder::new("embedded-orphan");
    let mut server = Embedded::start(folder.path()).unwrap();
    let first = postmaster(&folder).unwrap().as_raw_nonzero();
    let arguments = fs::read_to_string(format!("/proc/{first}/cmdline")).unwrap();
    let program = arguments.split('\0').next().unwrap();
    let name = text(&server.url(), "SHOW cluster_name").await;
    let data = server.cluster().to_owned();
    server.stop();

    // A server on the cluster that obeys nobody's death. The test's folder may be closed to the user that it runs as,
    // so it enters by a descriptor, which is what the cluster itself was started by.
    let sockets = Path::new("/tmp").join(format!("dealstream-orphan-{}", std::process::id()));
    fs::create_dir(&sockets).unwrap();
    let entered = fs::File::open(&data).unwrap();
    rustix::io::fcntl_setfd(&entered, rustix::io::FdFlags::empty()).unwrap();
    let owner = fs::metadata(&data).unwrap();
    let mut command = Command::new(program);
    command.env(
        "PGDATA",
        format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&entered)),
    );
    command
        .args(["-c", &format!("cluster_name={name}")])
        .args(["-c", "listen_addresses=", "-k"])
        .arg(&sockets)
        .current_dir("/")
        .stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        lchown(&sockets, Some(owner.uid()), None).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    let mut orphan = command.spawn().unwrap();
    drop(entered);
    // Somebody who looks around in the cluster has nothing to fear.
    let mut visitor = Command::new("sleep")
        .arg("60")
        .current_dir(&data)
        .spawn()
        .unwrap();
    eventually("the orphan is ready", || {
        let noted = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        noted.lines().nth(7).is_some_and(|it| it.trim() == "ready")
    });

    let server = Embedded::start(folder.path()).unwrap();
    assert!(
        orphan.wait().unwrap().success(),
        "the orphan was shut down in good order"
    );
    assert_eq!(ask(&server.url(), "SELECT 42").await.unwrap(), 42);
    assert!(visitor.try_wait().unwrap().is_none(), "the visitor lives");
    visitor.kill().unwrap();
    visitor.wait().unwrap();
    fs::remove_dir_all(&sockets).unwrap();
}

#[tokio::test]
async fn a_half_made_cluster_is_made_again() {
    let folder = Folder::new("embedded-half");
    let fresh = folder.path().join("postgres.new");
    fs::create_dir_all(fresh.join("base/1")).unwrap();
    fs::write(fresh.join("PG_VERSION"), "15\n").unwrap();
    fs::create_dir(folder.path().join("postgres")).unwrap();
    let server = Embedded::start(folder.path()).unwrap();
    assert_eq!(ask(&server.url(), "SELECT 42").await.unwrap(), 42);
    assert!(!fresh.exists());
}

#[test]
fn what_is_not_a_cluster_is_never_touched() {
    let folder = Folder::new("embedded-other");
    let data = folder.path().join("postgres");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.txt"), "years of work").unwrap();
    assert!(matches!(
        Embedded::start(folder.path()),
        Err(EmbeddedError::NotACluster(_))
    ));
    assert_eq!(
        fs::read_to_string(data.join("thesis.txt")).unwrap(),
        "years of work"
    );
}

#[test]
fn a_server_that_cannot_start_shows_the_end_of_its_log() {
    let folder = Folder::new("embedded-broken");
    match Embedded::start_with(folder.path(), &[("shared_buffers", "nonsense")]) {
        Err(error @ EmbeddedError::NotStarted { .. }) => {
            assert!(error.to_string().contains("shared_buffers"), "{error}");
        }
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[tokio::test]
async fn clusters_of_two_folders_run_beside_each_other() {
    let (one, two) = (Folder::new("embedded-one"), Folder::new("embedded-two"));
    let (one, two) = (
        Embedded::start(one.path()).unwrap(),
        Embedded::start(two.path()).unwrap(),
    );
    let names: BTreeSet<_> = [&one, &two].map(Embedded::url).into();
    assert_eq!(names.len(), 2);
    for url in names {
        assert_eq!(ask(&url, "SELECT 42").await.unwrap(), 42);
    }
}

#[tokio::test]
async fn the_shared_servers_of_the_tests_answer() {
    let url = cluster::create_database("made_by_a_test").await;
    assert_eq!(
        ask(&url, "SELECT (current_database() = 'made_by_a_test')::int")
            .await
            .unwrap(),
        1
    );
    let socket = cluster::redis_url();
    assert!(Path::new(socket.strip_prefix("redis+unix://").unwrap()).exists());
}
