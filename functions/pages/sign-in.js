// The sign-in page. What the pages share is in client.js.

import {
  attempt,
  attempts,
  clear,
  isBusy,
  notice,
  onSubmit,
  say,
  send,
  show as showSection,
} from "./client.js";

const withGoogle = document.getElementById("with-google");

/** The user whom the page shows as signed in. */
let shown = null;

/** Show one view of the three, and Google's button where it is of use. */
function show(id, user = null) {
  shown = user;
  showSection(id);
  const provider = user?.provider ?? "local";
  withGoogle.hidden = !withGoogle.dataset.clientId || provider !== "local";
  withGoogle.querySelector("p").textContent = user
    ? say(
        "Sign in with Google as well, to connect the two. Your password stays if you have logged " +
          "in with it within the last ten minutes:",
      )
    : say("Or sign in with Google:");
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
    notice.textContent = say("In another tab somebody has signed in as {email}.", user);
  } else {
    show("log-in");
    notice.textContent = say(
      "You have been logged out in another tab, or your session has ended.",
    );
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
  const answer = await send("POST", path, body);
  if (!answer.id) {
    // The address has to be proved first.
    for (const form of document.forms) form.reset();
    show("log-in");
    notice.textContent = say(answer.message);
    document.getElementById("log-in-email").focus();
    return;
  }
  showUser(answer);
  document.getElementById("signed-in-heading").focus();
  if (path === "/api/signup" && answer.emailVerified === false) {
    notice.textContent = say(
      "We have sent you a message. Please use the link in it to confirm your address.",
    );
  }
  tellOfOutage(path);
}

const IN_OUTAGE = {
  "/api/login": say(
    "The database is out of reach at the moment: you are signed in for ten minutes only, and " +
      "nothing about your account can be changed. Please log in again when it is back.",
  ),
  "/api/signup": say(
    "The database is out of reach at the moment: your account is kept in a file until it is " +
      "back, and can be used for nothing but logging in.",
  ),
};

/** Tell who has just signed in what that means while the database is away. */
async function tellOfOutage(path) {
  const { fallback } = await send("GET", "/api/health").catch(() => ({}));
  if (fallback?.since && path in IN_OUTAGE && !document.getElementById("signed-in").hidden) {
    notice.textContent = IN_OUTAGE[path];
  }
}

for (const form of document.forms) {
  const isLogin = form.parentElement.id === "log-in";
  const aside = isLogin ? say("This says nothing about your password.") : "";
  onSubmit(form, (body, path) => attempt(() => signIn(path, body), { form, aside }));
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
      notice.textContent = ended ? say("You are logged out.") : say(message);
      document.getElementById("log-in-email").focus();
    },
    { aside: say("You may still be signed in.") },
  ),
);

async function signInWithGoogle({ credential }) {
  await attempt(async () => {
    // Never connect the account of somebody else.
    if (!isUpToDate(await currentUser())) return;
    try {
      await signIn("/api/auth/google", { idToken: credential });
      notice.textContent = say("You have signed in with Google.");
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
    withGoogle.querySelector("div").textContent = say("Google cannot be reached at the moment.");
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
  { aside: say("Until then nobody can tell whether you are signed in.") },
);
