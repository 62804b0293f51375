// Speaks to a server with the reference client of GraphQL over server-sent events:
// node sse.mjs http://127.0.0.1:4000/graphql TOKEN
//
// Expects the test schema. Exits 0 when all went well; otherwise says what did not.

import assert from "node:assert/strict";
import { createClient } from "graphql-sse";

const [url, token] = process.argv.slice(2);
const client = createClient({
  url,
  headers: { authorization: `Bearer ${token}` },
  retryAttempts: 0,
});
const all = async (query, variables) => {
  const results = [];
  for await (const result of client.iterate({ query, variables })) results.push(result);
  return results;
};

const [answer] = await all("query ($n: Int!) { double(of: $n) }", { n: 21 });
assert.deepEqual(answer.data, { double: 42 });

const counted = await all("subscription ($to: Int!) { count(to: $to) }", { to: 3 });
assert.deepEqual(counted.map((result) => result.data.count), [1, 2, 3]);

// Errors are results, and the stream is complete after them.
for (const [query, code] of [
  ["{ nothing }", "GRAPHQL_VALIDATION_FAILED"],
  ["subscription { refuse }", "FORBIDDEN"],
]) {
  const [failed, ...more] = await all(query);
  assert.equal(failed.errors[0].extensions.code, code);
  assert.equal(failed.data, undefined);
  assert.deepEqual(more, []);
}

// Stopping in the middle of an endless stream.
let seen = 0;
for await (const result of client.iterate({ query: "subscription { endless }" })) {
  assert.equal(result.errors, undefined);
  if (++seen === 5) break;
}

const many = await Promise.all([...Array(20).keys()].map((n) => all(`{ double(of: ${n}) }`)));
assert.deepEqual(many.map(([result]) => result.data.double), [...Array(20).keys()].map((n) => 2 * n));

const stranger = createClient({ url, headers: { authorization: "Bearer wrong" }, retryAttempts: 0 });
await assert.rejects(async () => {
  for await (const _ of stranger.iterate({ query: "{ hello }" }));
});
console.log("all well");
process.exit(0);
