//! The example client, against the real program that is killed under it.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::folder::Folder;
use crate::support::program::{Program, ask, dealstream, lasting_address};

const MOVE: &str = "mutation ($input: MoveDealInput!) { moveDeal(input: $input) { userErrors { message } } }";

const PATIENCE: Duration = Duration::from_secs(60);

/// The running example.
struct Example {
    lines: Lines<BufReader<ChildStdout>>,
    /// The moves that it has told.
    told: Vec<String>,
    _child: Child,
}

impl Example {
    /// Starts it in a folder where it finds what it imports.
    fn start(folder: &Path, url: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let peers = root.join("tests/peers/node_modules");
        assert!(
            peers.exists(),
            "the clients for tests are missing: run `make setup-tests`"
        );
        fs::copy(root.join("examples/resume.mjs"), folder.join("resume.mjs")).unwrap();
        std::os::unix::fs::symlink(peers, folder.join("node_modules")).unwrap();
        let mut child = Command::new("node")
            .args(["resume.mjs", url])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = Vec::new();
        Self {
            lines,
            told,
            _child: child,
        }
    }

    /// Reads to a line that begins like this.
    async fn until(&mut self, begin: &str) {
        let read = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it goes on");
                let found = line.starts_with(begin);
                if line.contains(" → ") {
                    self.told.push(line);
                }
                if found {
                    return;
                }
            }
        };
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.unwrap_or_else(|_| panic!("waited in vain for `{begin}`; told so far: {:#?}", self.told));
    }
}

/// Ada, who moves a deal and knows what is to be told of that.
struct Ada {
    address: String,
    token: String,
    deal: String,
    stages: Vec<(String, String)>,
    /// The stage of the deal.
    at: usize,
    moves: Vec<String>,
}

impl Ada {
    async fn sign_in(address: &str) -> Self {
        let query = "mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }";
        let input = json!({ "email": "ada@acme.example", "password": "dealstream-demo" });
        let data = answer(address, None, query, &json!({ "input": input })).await;
        let token = text(&data["signIn"]["accessToken"]);
        let query = "{ pipelines { nodes { isDefault stages { id name kind } } } }";
        let found = answer(address, Some(&token), query, &json!({})).await;
        let pipelines = found["pipelines"]["nodes"].as_array().unwrap();
        let default = pipelines.iter().find(|pipeline| pipeline["isDefault"] == true);
        let stages = default.unwrap()["stages"].as_array().unwrap();
        let open = stages.iter().filter(|stage| stage["kind"] == "OPEN");
        let stages: Vec<_> = open
            .map(|stage| (text(&stage["id"]), text(&stage["name"])))
            .collect();
        let query = "mutation ($input: CreateDealInput!) { createDeal(input: $input) { deal { id } } }";
        let input = json!({ "name": "Lighthouse", "stageId": stages[0].0 });
        let made = answer(address, Some(&token), query, &json!({ "input": input })).await;
        Self {
            address: address.to_owned(),
            deal: text(&made["createDeal"]["deal"]["id"]),
            token,
            stages,
            at: 0,
            moves: Vec::new(),
        }
    }

    /// Moves the deal so many times, each time to the stage that follows.
    async fn move_on(&mut self, times: usize) {
        for _ in 0..times {
            let next = (self.at + 1) % self.stages.len();
            let input = json!({ "dealId": self.deal, "stageId": self.stages[next].0 });
            let variables = json!({ "input": input });
            let moved = answer(&self.address, Some(&self.token), MOVE, &variables).await;
            assert_eq!(moved["moveDeal"]["userErrors"], json!([]));
            let (from, to) = (&self.stages[self.at].1, &self.stages[next].1);
            self.moves.push(format!("Lighthouse: {from} → {to} (Ada Byron)"));
            self.at = next;
        }
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

async fn answer(address: &str, token: Option<&str>, query: &str, variables: &Value) -> Value {
    let asked = ask(address, token, query, variables).await;
    let mut answer = asked.expect("the server is there");
    assert_eq!(answer.get("errors"), None, "{query}");
    answer["data"].take()
}

/// Gives every history another epoch, as restoring a backup does.
async fn replace_histories(data: &Path) {
    let noted = fs::read_to_string(data.join("postgres/postmaster.pid")).unwrap();
    let socket = noted.lines().nth(4).unwrap();
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(socket)
        .user("postgres")
        .dbname("dealstream")
        .connect(tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("UPDATE histories SET epoch = epoch / 2")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_tells_every_move_once_and_in_order_though_the_server_is_killed() {
    let folder = Folder::new("resume");
    let data = folder.path().join("data");
    let address = lasting_address();
    let start = || {
        let mut command = dealstream(&data);
        command.env("LISTEN_ADDR", address.to_string());
        tokio::task::block_in_place(|| Program::start(command))
    };

    let mut server = start();
    let mut ada = Ada::sign_in(&server.address).await;
    let mut example = Example::start(folder.path(), &format!("http://{address}/graphql"));
    example.until("up to date").await;
    ada.move_on(3).await;
    example.until(&ada.moves[2]).await;
    for _ in 0..2 {
        // What was committed right before the end, and what comes right after, before the example is back.
        ada.move_on(2).await;
        server.end(Signal::KILL);
        server = start();
        ada.move_on(2).await;
        example.until("connecting again").await;
        example.until("up to date").await;
        ada.move_on(1).await;
        example.until(ada.moves.last().unwrap()).await;
    }
    assert_eq!(example.told, ada.moves);

    replace_histories(&data).await;
    example.until("cannot go on (HISTORY_REPLACED)").await;
    example.until("up to date").await;
    ada.move_on(1).await;
    example.until(ada.moves.last().unwrap()).await;
    assert_eq!(example.told, ada.moves);
}

#[test]
fn the_example_is_tested_with_the_packages_that_it_asks_for() {
    let asked = |path: &str| -> Value {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(path)
            .join("package.json");
        serde_json::from_str::<Value>(&fs::read_to_string(file).unwrap()).unwrap()["dependencies"].take()
    };
    let (example, tests) = (asked("examples"), asked("tests/peers"));
    for (name, version) in example.as_object().unwrap() {
        assert_eq!(tests[name], *version, "{name}");
    }
}
