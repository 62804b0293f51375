// Drives the GraphiQL page in a real Chromium, as a person would: node graphiql.mjs http://127.0.0.1:4000
//
// Expects the demo users. Exits 0 when all went well; otherwise says what did not. SCREENSHOTS=folder keeps pictures.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const origin = process.argv[2];
const password = "dealstream-demo";
// Milliseconds, of which a busy machine that starts a browser for the first time takes many.
const patience = 60_000; // for any one thing to happen
const limit = 280_000; // for all of it

const executablePath = [
  process.env.CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find((path) => path && existsSync(path));
assert(executablePath, "no Chromium found: install the package chromium, or name the program in CHROMIUM");

/** Waits until `probe` answers something true, and answers that. */
async function until(what, probe) {
  const deadline = Date.now() + patience;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    assert(Date.now() < deadline, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Runs an operation past the page, as another client would. */
async function api(query, variables, token) {
  const response = await fetch(`${origin}/graphql`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(token && { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  assert.equal(errors, undefined, JSON.stringify(errors));
  return data;
}

async function tokenOf(email) {
  const { signIn } = await api(
    "mutation ($input: SignInInput!) { signIn(input: $input) { accessToken userErrors { message } } }",
    { input: { email, password } },
  );
  assert.deepEqual(signIn.userErrors, []);
  return signIn.accessToken;
}

/** A deal, and a stage of its pipeline where it is not: what there is to move. */
function move({ deals, pipelines }) {
  for (const deal of deals.nodes) {
    const pipeline = pipelines.nodes.find(({ stages }) => stages.some(({ id }) => id === deal.stage.id));
    const stage = pipeline?.stages.find(({ id, kind }) => kind === "OPEN" && id !== deal.stage.id);
    if (stage) return { deal, stage, input: { dealId: deal.id, stageId: stage.id } };
  }
  assert.fail("no deal that could be moved");
}

/** Moves some deal as Ada, past the page. */
async function moveSomeDeal(token) {
  const found = move(
    await api(
      `{ deals(first: 5) { nodes { id name stage { id } } }
         pipelines(first: 5) { nodes { stages { id name kind } } } }`,
      {},
      token,
    ),
  );
  const { moveDeal } = await api(
    "mutation ($input: MoveDealInput!) { moveDeal(input: $input) { userErrors { message } } }",
    { input: found.input },
    token,
  );
  assert.deepEqual(moveDeal.userErrors, []);
  return found;
}

async function drive(browser) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(patience);

  // Whatever the page complains of, breaks or fetches from elsewhere. A refused Content-Security-Policy is told there.
  const complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
  const ours = (url) => url.startsWith("data:") || new URL(url).host === new URL(origin).host;
  page.on("request", (request) => {
    if (!ours(request.url())) complaints.push(`foreign request: ${request.url()}`);
  });
  const sockets = [];
  page.on("websocket", (socket) => {
    sockets.push(socket);
    if (!ours(socket.url())) complaints.push(`foreign socket: ${socket.url()}`);
  });

  const shot = async (name) => {
    const folder = process.env.SCREENSHOTS;
    if (folder) await page.screenshot({ path: `${folder}/${name}.png` });
  };
  /** Opens a tab, named by its first operation, and waits until GraphiQL has read its text. */
  const tab = async (name) => {
    await page.getByRole("tab", { name, exact: true }).click();
    await until(`GraphiQL to read ${name}`, () =>
      page
        .locator(".graphiql-query-editor .CodeMirror")
        .evaluate((node, name) => node.CodeMirror.operations?.[0]?.name?.value === name, name),
    );
  };
  const response = () => page.locator(".result-window .CodeMirror").evaluate((node) => node.CodeMirror.getValue());
  const result = (what, wanted = () => true) =>
    until(what, async () => {
      const text = await response();
      let parsed;
      try {
        parsed = JSON.parse(text);
      } catch {
        return false; // not there yet
      }
      return wanted(parsed) && parsed;
    });
  const play = async (operation) => {
    await page.getByRole("button", { name: /^Execute query/ }).click();
    if (operation) await page.getByRole("menuitem", { name: operation, exact: true }).click();
  };
  /** Runs the open tab's (named) operation and answers its data, which must come without errors. */
  const data = async (operation, field) => {
    await play(operation);
    const answer = await result(`an answer to ${operation ?? field}`, ({ data, errors }) => errors || field in (data ?? {}));
    assert.equal(answer.errors, undefined, JSON.stringify(answer.errors));
    return answer.data;
  };
  const notice = (text) => until(`the notice "${text}"`, async () => (await page.locator("#notice").innerText()).includes(text));
  const events = () => page.locator("#live-events summary").allInnerTexts();
  const setEditor = (index, text) =>
    page.locator(".graphiql-editor-tool .CodeMirror").nth(index).evaluate((node, text) => node.CodeMirror.setValue(text), text);

  // What is under way when a page is left fails, so none is left before it has got what it asked for.
  await page.goto(`${origin}/graphiql`, { waitUntil: "networkidle" });
  await page.getByRole("button", { name: /^Execute query/ }).waitFor();
  // The documentation shows the schema: introspection works.
  await page.getByRole("button", { name: "Show Documentation Explorer" }).click();
  await page.getByRole("link", { name: "Query", exact: true }).waitFor();
  await page.getByRole("button", { name: "Hide Documentation Explorer" }).click();

  // The theme chosen in the settings holds for our bar too.
  await page.getByRole("button", { name: "Open settings dialog" }).click();
  await page.getByRole("button", { name: "Dark" }).click();
  await page.keyboard.press("Escape");
  const scheme = () => page.evaluate(() => getComputedStyle(document.querySelector(".bar")).colorScheme);
  await until("the dark theme", async () => (await scheme()) === "dark");

  // Not signed in: refused, and told so. Wrong password: likewise.
  await play();
  await notice("Please sign in");
  await page.getByLabel("E-mail").fill("ada@acme.example");
  await page.getByLabel("Password").fill("not the password");
  await page.getByRole("button", { name: "Sign in" }).click();
  await until("a refusal", async () => /\S/.test(await page.locator("#notice").innerText()) && (await page.getByRole("button", { name: "Sign in" }).isEnabled()));
  assert(await page.locator("#sign-in").isVisible());
  await shot("refused");

  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("Signed in as").waitFor();
  assert.match(await page.locator("#who").innerText(), /Acme Sales/);
  // The password is nowhere; the token in this browser tab only.
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("Bearer")), false);

  // Every example runs.
  const board = await data(null, "pipelines");
  assert.equal(board.viewer.tenant.name, "Acme Sales");
  await shot("board");
  await tab("Deals");
  assert((await data(null, "deals")).deals.nodes.length > 0);
  await shot("deals");
  await tab("MoveDeal");
  const { input } = move(await data("DealsAndStages", "deals"));
  await setEditor(0, JSON.stringify({ input }));
  assert.deepEqual((await data("MoveDeal", "moveDeal")).moveDeal.userErrors, []);
  await shot("move");

  // The subscription: what another client moves appears in the response and in the panel.
  const ada = await tokenOf("ada@acme.example");
  await tab("DealStageChanged");
  await play();
  await until("the replay's end", async () => (await events()).some((text) => text.includes("UpToDate")));
  const first = await moveSomeDeal(ada);
  const seen = await result("the event", ({ data }) => data?.dealStageChanged.dealId === first.deal.id);
  assert.equal(seen.data.dealStageChanged.toStage.name, first.stage.name);
  assert((await events())[0].includes(first.deal.name));
  await shot("live");

  // It goes on while one is in another tab, the latest event first, and earlier ones are kept.
  await tab("MoveDeal");
  const second = await moveSomeDeal(ada);
  await until("the second event", async () => (await events()).length === 3);
  assert((await events())[0].includes(`toStage.name: ${second.stage.name}`));
  assert((await events())[1].includes(first.deal.name));
  await shot("elsewhere");

  // Signed out: the socket is closed, and what needs a user is refused again. A reload does not bring the session back.
  const signedOut = page.waitForResponse((response) => response.request().postData()?.includes("signOut"));
  await page.getByRole("button", { name: "Sign out" }).click();
  assert.deepEqual((await (await signedOut).json()).data.signOut.userErrors, []);
  await until("the socket's end", async () => sockets.every((socket) => socket.isClosed()));
  assert.match(await page.locator("#live-state").innerText(), /stopped/);
  await page.reload({ waitUntil: "networkidle" });
  await page.locator("#sign-in").waitFor();
  await tab("Board");
  await play();
  await notice("Please sign in");

  // Signed in as Ada by the demo user's button (a reload keeps that), a token in the Headers tab wins: for requests and for the socket.
  await page.getByRole("button", { name: "Ada" }).click();
  await page.getByText("Signed in as").waitFor();
  await page.reload({ waitUntil: "networkidle" });
  await page.getByText("Signed in as").waitFor();
  // A token that has ended, or is about to, is replaced without a word.
  const stored = () => page.evaluate(() => JSON.parse(sessionStorage.getItem("dealstream:session")));
  const before = await stored();
  await page.evaluate(
    (session) => sessionStorage.setItem("dealstream:session", JSON.stringify(session)),
    { ...before, expiresAt: new Date().toISOString() },
  );
  await page.reload({ waitUntil: "networkidle" });
  await until("the next token", async () => (await stored())?.token !== before.token);
  assert.notEqual((await stored()).refreshToken, before.refreshToken);
  await page.getByText("Signed in as").waitFor();
  await page.getByRole("button", { name: "Headers" }).click();
  await setEditor(1, JSON.stringify({ authorization: `Bearer ${await tokenOf("grace@globex.example")}` }));
  assert.equal((await data(null, "viewer")).viewer.tenant.name, "Globex Realty");
  await tab("DealStageChanged");
  await setEditor(1, JSON.stringify({ authorization: "Bearer nonsense" }));
  await play();
  await notice("Headers tab was refused");

  assert.deepEqual(complaints, []);
}

const browser = await chromium.launch({
  executablePath,
  timeout: 2 * patience,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const watchdog = setTimeout(() => {
  console.error(`not done within ${limit} ms`);
  process.exitCode = 1;
  browser.close();
}, limit);
try {
  await drive(browser);
} finally {
  clearTimeout(watchdog);
  await browser.close();
}
