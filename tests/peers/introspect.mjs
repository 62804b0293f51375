// Reads a server's schema as tools do, and checks it: node introspect.mjs http://127.0.0.1:4000/graphql
//
// Exits 0 when the reference implementation takes the schema; otherwise says what is wrong with it.

import assert from "node:assert/strict";
import { buildClientSchema, getIntrospectionQuery, validateSchema } from "graphql";

for (const options of [
  {},
  { descriptions: false },
  { specifiedByUrl: true, directiveIsRepeatable: true, schemaDescription: true, inputValueDeprecation: true, oneOf: true },
]) {
  const response = await fetch(process.argv[2], {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/graphql-response+json" },
    body: JSON.stringify({ query: getIntrospectionQuery(options), operationName: "IntrospectionQuery" }),
  });
  const { data, errors } = await response.json();
  assert.equal(response.status, 200, JSON.stringify(errors));
  assert.equal(errors, undefined);
  const problems = validateSchema(buildClientSchema(data));
  assert.deepEqual(problems, []);
}
console.log("all well");
