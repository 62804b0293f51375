// Holds a server against the public audits of GraphQL over HTTP: node audit.mjs http://127.0.0.1:4000/graphql
//
// Exits 0 when every MUST and SHOULD holds; otherwise says which do not.

import { serverAudits } from "graphql-http";

let failed = 0;
let passed = 0;
for (const audit of serverAudits({ url: process.argv[2], fetchFn: fetch })) {
  const result = await audit.fn();
  if (result.status === "ok") {
    passed += 1;
  } else {
    failed += 1;
    console.error(`${result.status}: ${audit.id} ${audit.name}: ${result.reason}`);
  }
}
console.log(`${passed} audits passed, ${failed} did not`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
