// Tells of every deal that moves, each move once and in order, whatever happens to the network and to the server.
// `npm install`, then: node resume.mjs [url] [e-mail] [password]

import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url = "http://127.0.0.1:4000/graphql", email = "ada@acme.example", password = "dealstream-demo"] =
  process.argv.slice(2);
const signIn = "mutation ($input: SignInInput!) { signIn(input: $input) { accessToken userErrors { message } } }";
const dealStageChanged = `subscription ($after: String) { dealStageChanged(after: $after) { __typename
  ... on DealStageChangedEvent { position dealId deal { name } fromStage { name } toStage { name } changedBy { name } }
  ... on UpToDate { position }
  ... on MustRefetch { reason } } }`;

// Called for every connection: by the next one, the token of the last may be too old.
async function connectionParams() {
  const body = JSON.stringify({ query: signIn, variables: { input: { email, password } } });
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  const { accessToken, userErrors } = (await response.json()).data.signIn;
  return accessToken ? { Authorization: `Bearer ${accessToken}` } : fail(userErrors[0].message);
}

const client = createClient({
  url: url.replace(/^http/, "ws"),
  webSocketImpl: WebSocket,
  connectionParams,
  retryAttempts: Infinity,
  shouldRetry: () => true, // also when nobody listens, as while the server is down
  retryWait: (tries) => sleep(Math.random() * Math.min(10_000, 500 * 2 ** tries)), // not all clients at once
  on: { connecting: (again) => again && console.log("connecting again") },
});

let after; // The position up to which all has been seen. An app that stores what it sees stores this along with it.

function follow() {
  // The getter is asked whenever the client subscribes, so it goes on after what has been seen by then.
  const variables = { get after() { return after; } };
  client.subscribe({ query: dealStageChanged, variables }, { next, error, complete: follow });
}

function next({ data: { dealStageChanged: frame } }) {
  after = frame.position; // none with MustRefetch, which ends the stream: the next one begins with what happens then
  if (frame.__typename === "MustRefetch") console.log(`cannot go on (${frame.reason}): read the deals anew`);
  else if (frame.__typename === "UpToDate") console.log("up to date");
  else console.log(`${frame.deal?.name}: ${frame.fromStage?.name} → ${frame.toStage?.name} (${frame.changedBy?.name})`);
}

function error(problem) {
  if (problem.code === 4401) follow(); // The token has ended, and nothing else.
  else fail(problem);
}

function fail(problem) {
  console.error(problem);
  process.exit(1);
}

follow();
