// GraphiQL with a sign-in bar above it and the events of the running subscription below it.
// In reading order: session · requests · subscriptions · live events · start.

import { examples } from "./examples.js";

const endpoint = "/graphql";
const demoPassword = "dealstream-demo";
const $ = (id) => document.getElementById(id);

// ---- session: who is signed in; it lasts as long as the browser tab --------------------------------------------------

const storageKey = "dealstream:session";
const granted = `accessToken expiresAt refreshToken viewer { user { name } tenant { name } role } userErrors { message }`;
const signInMutation = `mutation SignIn($input: SignInInput!) { signIn(input: $input) { ${granted} } }`;
const refreshMutation = `mutation Refresh($input: RefreshSessionInput!) { refreshSession(input: $input) { ${granted} } }`;
const earlier = 60_000; // milliseconds before the end of a token at which the next is asked for
const soon = 5_000; // milliseconds until asking again when the server could not be reached

let session = null; // { token, expiresAt, refreshToken, name, tenant, role }
let refreshTimer;

function setSession(next, notice = "") {
  // A socket keeps the session it was opened with, so none may outlive that.
  stream?.stop();
  keepSession(next);
  tell(notice);
}

function keepSession(next) {
  session = next;
  if (next) sessionStorage.setItem(storageKey, JSON.stringify(next));
  else sessionStorage.removeItem(storageKey);

  clearTimeout(refreshTimer);
  if (next) {
    const left = Date.parse(next.expiresAt) - Date.now();
    // Browsers run a timer of more than 31 bits of milliseconds at once.
    refreshTimer = setTimeout(refreshSession, Math.min(Math.max(left - earlier, left / 2), 0x7fffffff));
    $("who").textContent = `${next.name} · ${next.tenant} · ${next.role}`;
  }
  $("sign-in").hidden = Boolean(next);
  $("signed-in").hidden = !next;
}

function expireSession() {
  setSession(null, "Your session has expired. Please sign in again.");
}

/** Gets the next token before the one we have ends; a running subscription goes on with it. */
async function refreshSession() {
  const { token, refreshToken, name } = session;
  let result;
  try {
    result = await post({ query: refreshMutation, variables: { input: { refreshToken } } });
  } catch {
    refreshTimer = setTimeout(refreshSession, soon);
    return;
  }
  if (session?.refreshToken !== refreshToken) return; // signed out meanwhile, or in as somebody else
  const answer = result.data?.refreshSession;
  if (!answer?.accessToken) return expireSession();
  keepSession(sessionOf(answer, name));
  stream?.renew(token, answer.accessToken);
}

function restoreSession() {
  let stored = null;
  try {
    stored = JSON.parse(sessionStorage.getItem(storageKey));
  } catch {
    // Not ours, or damaged: the same as none.
  }
  // One that has ended while nobody looked may still be refreshed: that is tried at once.
  setSession(stored?.token && stored.refreshToken ? stored : null);
}

async function signIn(email, password) {
  const { data, errors } = await post({
    query: signInMutation,
    operationName: "SignIn",
    variables: { input: { email, password } },
  });
  const answer = data?.signIn;
  const problem = errors?.[0] ?? answer?.userErrors?.[0];
  if (problem || !answer?.accessToken) throw failure(problem?.message ?? "The server gave no token.");
  setSession(sessionOf(answer, email));
}

function sessionOf({ accessToken, expiresAt, refreshToken, viewer: { user, tenant, role } }, name) {
  return { token: accessToken, expiresAt, refreshToken, name: user?.name ?? name, tenant: tenant?.name ?? "?", role };
}

function tell(notice) {
  $("notice").textContent = notice;
}

// ---- requests --------------------------------------------------------------------------------------------------------

/** The headers of a request: GraphiQL's Headers tab wins over the session. */
function withSession(given) {
  const headers = new Headers(given);
  if (session && !headers.has("authorization")) headers.set("authorization", `Bearer ${session.token}`);
  return headers;
}

/** An error for people: without a stack, which GraphiQL would print. */
function failure(message) {
  const error = new Error(message);
  delete error.stack;
  return error;
}

async function post(params, headers = new Headers()) {
  headers.set("content-type", "application/json");
  if (!headers.has("accept")) headers.set("accept", "application/graphql-response+json, application/json");
  let response;
  try {
    response = await fetch(endpoint, { method: "POST", headers, body: JSON.stringify(params) });
  } catch {
    throw failure("The server cannot be reached.");
  }
  try {
    return await response.json();
  } catch {
    throw failure(`The server answered ${response.status} without a GraphQL response.`);
  }
}

/** Says in the bar why a request was refused for want of a valid token. */
function explainRefusal(authorization) {
  if (session && authorization === `Bearer ${session.token}`) {
    setSession(null, "The server no longer accepts this session. Please sign in again.");
  } else if (authorization) {
    tell("The token in the Headers tab was refused.");
  } else {
    tell("This needs a signed-in user. Please sign in.");
  }
}

/**
 * The kind and name of the operation to run.
 *
 * GraphiQL reads a text only 100 ms after it changed: who runs it sooner, say right after a change of tab, gets the
 * name and document of the text before.
 */
function operationOf({ query, operationName }, documentAST) {
  if (documentAST?.loc?.source.body === query) {
    const node = documentAST.definitions.find(
      (node) => node.kind === "OperationDefinition" && (!operationName || node.name?.value === operationName),
    );
    return { kind: node?.operation, name: operationName };
  }
  const operations = [...query.matchAll(/^\s*(query|mutation|subscription)\b\s*(\w*)/gm)];
  const [, kind, name] = operations.find(([, , name]) => name === operationName) ?? operations[0] ?? [];
  return { kind, name: name || undefined };
}

/** What GraphiQL calls for every operation, its own introspection included. */
async function fetcher(given, { headers: givenHeaders, documentAST } = {}) {
  const headers = withSession(givenHeaders);
  const authorization = headers.get("authorization");
  const operation = operationOf(given, documentAST);
  const params = { ...given, operationName: operation.name };
  tell("");
  if (operation.kind === "subscription") {
    return { subscribe: (observer) => subscribe(params, authorization, observer) };
  }
  const result = await post(params, headers);
  if (result.errors?.some((error) => error.extensions?.code === "UNAUTHENTICATED")) explainRefusal(authorization);
  return result;
}

// ---- subscriptions ---------------------------------------------------------------------------------------------------

let tabs; // GraphiQL's tabs, as it last told us
let stream = null; // the running subscription: { stop(), renew(token, next) }

/**
 * Runs one subscription on a socket of its own, in the form of an observable for GraphiQL.
 *
 * GraphiQL unsubscribes whenever one goes to another tab. The stream then goes on for the panel, so that one can move
 * a deal in one tab and watch it arrive; it ends by either stop button, by the next subscription or with the session.
 */
function subscribe(params, authorization, observer) {
  stream?.stop();
  const tab = tabs?.tabs[tabs.activeTabIndex].id;
  let attached = true;
  let socket;

  const client = graphqlWs.createClient({
    url: new URL(endpoint, location.href.replace(/^http/, "ws")).href,
    connectionParams: () => (authorization ? { Authorization: authorization } : {}),
    // Connecting anew would silently lose what happened in between: rather end and say so.
    retryAttempts: 0,
    on: { opened: (opened) => (socket = opened) },
  });
  const end = (state) => {
    if (stream !== self) return;
    stream = null;
    client.dispose();
    live.end(state);
  };
  const self = {
    stop() {
      end("stopped");
      if (attached) observer.complete();
    },
    /** Goes on with the next token, if it is the session's own that the socket was opened with. */
    renew(token, next) {
      if (authorization !== `Bearer ${token}`) return;
      authorization = `Bearer ${next}`;
      if (socket?.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify({ type: "ping", payload: { authToken: next } }));
      }
    },
  };
  stream = self;
  live.begin(params.operationName);

  client.subscribe(params, {
    next(result) {
      if (stream !== self) return;
      live.show(result);
      if (attached) observer.next(result);
    },
    error(cause) {
      if (stream !== self) return;
      const refused = cause instanceof CloseEvent && (cause.code === 4401 || cause.code === 4403);
      end(describe(cause));
      if (attached) observer.error(cause instanceof CloseEvent ? failure(describe(cause)) : cause);
      if (refused || cause?.[0]?.extensions?.code === "UNAUTHENTICATED") explainRefusal(authorization);
    },
    complete() {
      end("ended by the server");
      if (attached) observer.complete();
    },
  });

  return {
    unsubscribe() {
      attached = false;
      // GraphiQL tells of the new tab only after this call.
      setTimeout(() => {
        const wentElsewhere =
          tabs?.tabs[tabs.activeTabIndex].id !== tab && tabs?.tabs.some(({ id }) => id === tab);
        if (!wentElsewhere) self.stop();
      });
    },
  };
}

/** A reason, for people, why a subscription ended. */
function describe(cause) {
  if (cause instanceof CloseEvent) {
    if (cause.code === 1006) return "the connection was lost";
    return `the server closed the socket: ${cause.code} ${cause.reason}`.trim();
  }
  return cause?.[0]?.message ?? cause?.message ?? "the connection was lost";
}

// ---- live events: the panel at the foot ------------------------------------------------------------------------------

const live = {
  kept: 50,

  begin(name) {
    $("live-title").textContent = name ?? "Live events";
    $("live-events").replaceChildren();
    $("live-state").textContent = "listening …";
    $("live-stop").hidden = false;
    $("live").hidden = false;
  },

  show(result) {
    const payload = result.data ? Object.values(result.data)[0] : result;
    const now = new Date();
    const time = element("time", now.toLocaleTimeString());
    time.dateTime = now.toISOString();
    const summary = element("summary");
    summary.append(time, element("strong", payload?.__typename ?? "event"), element("span", leaves(payload).join(" · ")));
    const details = element("details");
    details.append(summary, element("pre", JSON.stringify(result, null, 2)));
    const item = element("li");
    item.append(details);
    $("live-events").prepend(item);
    while ($("live-events").childElementCount > this.kept) $("live-events").lastElementChild.remove();
  },

  end(state) {
    $("live-state").textContent = state;
    $("live-stop").hidden = true;
  },
};

/** "deal.name: Renewal" for every value in an event, the technical __typename apart. */
function leaves(value, path = []) {
  if (value === null || typeof value !== "object") return [`${path.join(".")}: ${value}`];
  return Object.entries(value)
    .filter(([key]) => key !== "__typename")
    .flatMap(([key, child]) => leaves(child, [...path, key]));
}

function element(name, text) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  return node;
}

// ---- start -----------------------------------------------------------------------------------------------------------

const form = $("sign-in");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button:not([type])");
  button.disabled = true;
  tell("");
  try {
    await signIn(form.elements.email.value, form.elements.password.value);
    form.elements.password.value = "";
    // The form that had the focus is gone.
    $("sign-out").focus();
  } catch (error) {
    tell(error.message);
  } finally {
    button.disabled = false;
  }
});

$("sign-out").addEventListener("click", () => {
  post({ query: "mutation { signOut { userErrors { message } } }" }, withSession()).catch(() => {
    // The server is away: the session ends by itself.
  });
  setSession(null);
  form.elements.email.focus();
});

if (document.body.dataset.demo === "true") {
  $("demo-users").hidden = false;
  $("demo-users").addEventListener("click", (event) => {
    const email = event.target.closest("button")?.value;
    if (!email) return;
    form.elements.email.value = email;
    form.elements.password.value = demoPassword;
    form.requestSubmit();
  });
}

$("live-stop").addEventListener("click", () => stream?.stop());
$("live-close").addEventListener("click", () => {
  stream?.stop();
  $("live").hidden = true;
});

restoreSession();

ReactDOM.createRoot($("graphiql")).render(
  React.createElement(GraphiQL, {
    fetcher,
    defaultTabs: examples,
    defaultEditorToolsVisibility: "variables",
    // A pasted token belongs on no disk.
    shouldPersistHeaders: false,
    showPersistHeadersSettings: false,
    onTabChange(state) {
      tabs = state;
    },
  }),
);
