// An OpenID provider where everybody is who they say: node provider.mjs REDIRECT_URI
//
// Listens on a port of its own on this machine and prints it as the first line. Whoever is asked to sign in says who they
// are in the header `x-person`, as JSON of claims; `{}` does not want to. Ends with its input.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

// Node has it from 22 on.
URL.parse ??= (text, base) => (URL.canParse(text, base) ? new URL(text, base) : null);

const redirectUri = process.argv[2];
const people = new Map();
const key = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [
      {
        client_id: "dealstream",
        client_secret: "a secret & more: of 100%",
        redirect_uris: [redirectUri],
        response_types: ["code"],
        grant_types: ["authorization_code"],
      },
    ],
    jwks: { keys: [{ ...key, kid: "one", alg: "RS256", use: "sig" }] },
    cookies: { keys: ["only for tests"] },
    pkce: { required: () => true },
    claims: { openid: ["sub"], email: ["email", "email_verified"] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub, ...people.get(sub) }) }),
    async loadExistingGrant({ oidc }) {
      const { clientId } = oidc.client;
      const grant = new oidc.provider.Grant({ accountId: oidc.session.accountId, clientId });
      grant.addOIDCScope("openid email");
      await grant.save();
      return grant;
    },
  });
  const answer = provider.callback();
  server.on("request", (request, response) => {
    if (!request.url.startsWith("/interaction/")) return answer(request, response);
    const person = JSON.parse(request.headers["x-person"]);
    people.set(person.sub, person);
    const result = person.sub ? { login: { accountId: person.sub } } : { error: "access_denied" };
    provider.interactionFinished(request, response, result).catch((error) => {
      response.statusCode = 500;
      response.end(error.message);
    });
  });
  process.stdout.write(`${port}\n`);
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
