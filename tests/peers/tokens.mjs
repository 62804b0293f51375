// Verifies an access token by the published keys, with a library of others: node tokens.mjs origin token algorithm user

import assert from "node:assert/strict";
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from "jose";

const [origin, token, algorithm, user] = process.argv.slice(2);
const [issuer, audience] = ["dealstream", "dealstream"];
const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", origin));
assert.equal(decodeProtectedHeader(token).alg, algorithm);
const { payload } = await jwtVerify(token, keys, {
  issuer,
  audience,
  typ: "at+jwt",
  algorithms: ["RS256", "EdDSA"],
  requiredClaims: ["exp", "nbf", "iat", "sub", "jti", "tid", "sid"],
});
assert.equal(payload.sub, user);

// And it sees what is not right.
for (const bad of [`${token.slice(0, -8)}AAAAAAAA`, token.replace(/\.[^.]+\./, ".e30.")]) {
  await assert.rejects(jwtVerify(bad, keys, { issuer, audience }));
}
