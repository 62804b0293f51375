// Speaks to a server with the reference client of graphql-transport-ws: node socket.mjs ws://127.0.0.1:4000/graphql TOKEN
//
// Expects the test schema. Exits 0 when all went well; otherwise says what did not.

import assert from "node:assert/strict";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, token] = process.argv.slice(2);
const clientWith = (connectionParams, more) =>
  createClient({ url, webSocketImpl: WebSocket, connectionParams, retryAttempts: 0, ...more });

const client = clientWith({ Authorization: `Bearer ${token}` });
const all = async (query, variables) => {
  const results = [];
  for await (const result of client.iterate({ query, variables })) results.push(result);
  return results;
};

const [answer] = await all("query ($n: Int!) { double(of: $n) }", { n: 21 });
assert.deepEqual(answer.data, { double: 42 });

const counted = await all("subscription ($to: Int!) { count(to: $to) }", { to: 3 });
assert.deepEqual(counted.map((result) => result.data.count), [1, 2, 3]);

// A request error ends the operation, not the socket.
await assert.rejects(all("{ nothing }"), (errors) => errors[0].extensions.code === "GRAPHQL_VALIDATION_FAILED");
assert.equal((await all("{ hello }"))[0].data.hello, "hello");

// Stopping in the middle of an endless stream.
let seen = 0;
for await (const result of client.iterate({ query: "subscription { endless }" })) {
  assert.equal(result.errors, undefined);
  if (++seen === 5) break;
}

// Several at the same time on one socket.
const many = await Promise.all([...Array(50).keys()].map((n) => all(`{ double(of: ${n}) }`)));
assert.deepEqual(many.map(([result]) => result.data.double), [...Array(50).keys()].map((n) => 2 * n));
await client.dispose();

for (const [params, code] of [[{}, 4401], [{ authToken: "wrong" }, 4403]]) {
  const refused = clientWith(params);
  const closed = new Promise((resolve) => refused.on("closed", (event) => resolve(event.code)));
  await assert.rejects(async () => {
    for await (const _ of refused.iterate({ query: "{ hello }" }));
  });
  assert.equal(await closed, code);
}
console.log("all well");
process.exit(0);
