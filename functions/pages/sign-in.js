// The sign-in page: a client of the HTTP contract (docs/openapi.yaml) and of nothing else.
// What the server says becomes text of the page, never markup.

const notice = document.getElementById("notice");
const failure = document.getElementById("failure");
const withGoogle = document.getElementById("with-google");

/** A call that did not succeed: what to tell the user, and the field of the form it is about. */
class Refusal extends Error {
  constructor(sentence, { status = 0, code = "", field = "" } = {}) {
    super(sentence);
    Object.assign(this, { status, code, field });
  }
}

const FIELDS = { invalid_credentials: "password", email_taken: "email" };

async function send(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Refusal("The server cannot be reached. Please check your connection and try again.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { status } = response;
  const { code, field = FIELDS[code] } = answer;
  throw new Refusal(sentence(status, answer, wait(response)), { status, code, field });
}

function sentence(status, answer, later) {
  if (status === 503) return `The service is temporarily unavailable. Please try again ${later}.`;
  return answer.error ?? "Something went wrong. Please try again later.";
}

/** When to try again: "in 5 seconds", "in 15 minutes". */
function wait(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  if (!seconds) return "later";
  const inWords = new Intl.RelativeTimeFormat("en");
  if (seconds < 60) return inWords.format(seconds, "second");
  return inWords.format(Math.ceil(seconds / 60), "minute");
}

const PATIENCE = "One moment, please.";
let isBusy = false;
let attempts = 0;

/** Do one thing at a time, and tell what went wrong: at its field, or above the forms. */
async function attempt(work, { form, aside = "" } = {}) {
  if (isBusy) return;
  isBusy = true;
  attempts += 1;
  clear();
  const slow = setTimeout(() => (notice.textContent = PATIENCE), 1000);
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    tell(error, form, aside);
  } finally {
    clearTimeout(slow);
    if (notice.textContent === PATIENCE) notice.textContent = "";
    isBusy = false;
  }
}

function clear() {
  notice.textContent = "";
  for (const element of document.querySelectorAll(".error")) element.textContent = "";
  for (const input of document.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
  }
}

function tell(refusal, form, aside) {
  const input = form?.elements.namedItem(refusal.field);
  if (!input) {
    // What an outage does not mean is worth a sentence.
    const unknown = refusal.status === 503 || refusal.status === 0;
    failure.textContent = unknown ? `${refusal.message} ${aside}` : refusal.message;
    return;
  }
  document.getElementById(`${input.id}-error`).textContent = refusal.message;
  input.ariaInvalid = "true";
  input.focus();
}

/** The user whom the page shows as signed in. */
let shown = null;

/** Show one view of the three, and Google's button where it is of use. */
function show(id, user = null) {
  shown = user;
  for (const view of ["log-in", "sign-up", "signed-in"]) {
    document.getElementById(view).hidden = view !== id;
  }
  const heading = document.getElementById(`${id}-heading`);
  document.title = `${heading.textContent} – AI-Coder`;
  const provider = user?.provider ?? "local";
  withGoogle.hidden = !withGoogle.dataset.clientId || provider !== "local";
  withGoogle.querySelector("p").textContent = user
    ? "Sign in with Google as well, to connect the two. Your password stays if you have logged in " +
      "with it within the last ten minutes:"
    : "Or sign in with Google:";
}

function showUser(user) {
  for (const element of document.querySelectorAll("[data-member]")) {
    element.textContent = user[element.dataset.member] ?? "–";
  }
  for (const form of document.forms) form.reset();
  show("signed-in", user);
}

/** The user who is signed in in this browser, or null. */
async function currentUser() {
  try {
    return await send("GET", "/api/user");
  } catch (refusal) {
    if (refusal.status === 401) return null;
    throw refusal;
  }
}

/** Show who is signed in, if another tab has changed that; tell whether it has not. */
function isUpToDate(user) {
  if (user?.id === shown?.id) return true;
  clear();
  if (user) {
    showUser(user);
    notice.textContent = `In another tab somebody has signed in as ${user.email}.`;
  } else {
    show("log-in");
    notice.textContent = "You have been logged out in another tab, or your session has ended.";
  }
  return false;
}

/** Ask again who is signed in, when somebody comes back to this tab. */
async function lookAgain() {
  if (isBusy || document.hidden) return;
  const before = attempts;
  const user = await currentUser().catch(() => shown);
  // What was done meanwhile is newer than the answer.
  if (attempts === before) isUpToDate(user);
}

document.addEventListener("visibilitychange", lookAgain);
// Windows side by side are visible all the time.
addEventListener("focus", lookAgain);
addEventListener("pageshow", (event) => event.persisted && lookAgain());

async function signIn(path, body) {
  showUser(await send("POST", path, body));
  document.getElementById("signed-in-heading").focus();
  tellOfOutage(path);
}

const IN_OUTAGE = {
  "/api/login":
    "you are signed in for ten minutes only, and nothing about your account can be changed. " +
    "Please log in again when it is back.",
  "/api/signup":
    "your account is kept in a file until it is back, and can be used for nothing but logging in.",
};

/** Tell who has just signed in what that means while the database is away. */
async function tellOfOutage(path) {
  const { fallback } = await send("GET", "/api/health").catch(() => ({}));
  if (fallback?.since && path in IN_OUTAGE && !document.getElementById("signed-in").hidden) {
    notice.textContent = `The database is out of reach at the moment: ${IN_OUTAGE[path]}`;
  }
}

for (const form of document.forms) {
  const aside = form.parentElement.id === "log-in" ? "This says nothing about your password." : "";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(form));
    attempt(() => signIn(form.getAttribute("action"), body), { form, aside });
  });
}

for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => {
    const { view } = button.dataset;
    clear();
    show(view);
    document.querySelector(`#${view} input`).focus();
  });
}

document.getElementById("log-out").addEventListener("click", () =>
  attempt(
    async () => {
      // Never end the session of somebody else.
      if (!isUpToDate(await currentUser())) return;
      const { ended = true, message } = await send("POST", "/api/logout");
      show("log-in");
      notice.textContent = ended ? "You are logged out." : message;
      document.getElementById("log-in-email").focus();
    },
    { aside: "You may still be signed in." },
  ),
);

async function signInWithGoogle({ credential }) {
  await attempt(async () => {
    // Never connect the account of somebody else.
    if (!isUpToDate(await currentUser())) return;
    try {
      await signIn("/api/auth/google", { idToken: credential });
      notice.textContent = "You have signed in with Google.";
    } catch (refusal) {
      if (refusal.code === "link_required") {
        show("log-in");
        document.getElementById("log-in-email").focus();
      }
      throw refusal;
    }
  });
}

if (withGoogle.dataset.clientId) {
  const script = document.createElement("script");
  script.src = "https://accounts.google.com/gsi/client";
  script.setAttribute("nonce", document.querySelector("link[nonce]").nonce);
  script.addEventListener("load", () => {
    const { id } = window.google.accounts;
    id.initialize({ client_id: withGoogle.dataset.clientId, callback: signInWithGoogle });
    id.renderButton(withGoogle.querySelector("div"), { type: "standard" });
  });
  script.addEventListener("error", () => {
    withGoogle.querySelector("div").textContent = "Google cannot be reached at the moment.";
  });
  document.head.append(script);
}

attempt(
  async () => {
    try {
      const user = await currentUser();
      if (user) showUser(user);
      else show("log-in");
    } catch (refusal) {
      show("log-in");
      throw refusal;
    }
  },
  { aside: "Until then nobody can tell whether you are signed in." },
);
