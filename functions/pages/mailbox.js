// The pages to which mails lead, or on which mails are asked for. The token of a link is taken from
// the address at once, is kept in this module only, and is sent when somebody clicks.

import { attempt, clear, isBusy, notice, onSubmit, say, send, show } from "./client.js";

const { page } = document.querySelector("main").dataset;
const element = (id) => document.getElementById(id);
let token = null;

function begin() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  history.replaceState(null, "", location.pathname);
  clear();
  if (page === "email") return attempt(showAccount);
  if (found) {
    token = found;
    element("of-whom").textContent = ofWhom(addressIn(found));
    if (page === "verify") askFor(null);
  }
  show(token ? "use" : "ask");
}

/**
 * Whose mailbox a token was sent to, by its own word: what is changed in it, the server refuses.
 * What has not the form of an address is somebody's text, and not shown.
 */
function addressIn(text) {
  try {
    const claims = text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(claims), (character) => character.charCodeAt(0));
    const { email } = JSON.parse(new TextDecoder().decode(bytes));
    return /^[^\s@\p{C}]{1,64}@[^\s@\p{C}]{1,255}$/u.test(email) ? email : null;
  } catch {
    return null;
  }
}

/** In whose name a click acts: whoever sends others a link of their own is seen before it. */
function ofWhom(email) {
  if (!email) return "";
  if (page === "reset") return say("The new password is for the account of {email}.", { email });
  if (page === "verify") return say("You are confirming the address {email}.", { email });
  return say("You will be signed in as {email}. Is that you?", { email });
}

function showSent(message) {
  element("sent-message").textContent = message;
  for (const form of document.forms) form.reset();
  show("sent").focus();
}

/** Open or close a field of a form; a closed one is not sent. */
function open(input, isOpen) {
  element(`${input.id}-field`).hidden = !isOpen;
  input.disabled = !isOpen;
}

/** Ask for what else shows that the account is theirs: the password, a session, or nothing. */
function askFor(proof) {
  open(element("use-password"), proof === "password");
  element("forgotten").hidden = proof !== "password";
  element("sign-in-first").hidden = proof !== "session";
  element("with-link").hidden = proof === "session";
}

const AFTER_REFUSAL = {
  password_required(refusal) {
    askFor("password");
    element("use-password").focus();
    notice.textContent = refusal.message;
  },
  sign_in_required(refusal) {
    askFor("session");
    throw refusal;
  },
  invalid_mail_token(refusal) {
    token = null;
    show("ask");
    throw refusal;
  },
};

async function use(body, path) {
  try {
    finish(await send("POST", path, { token, ...body }));
  } catch (refusal) {
    const react = AFTER_REFUSAL[refusal.code];
    if (!react) throw refusal;
    react(refusal);
  }
}

function finish(answer) {
  token = null;
  if (page === "link") {
    location.replace("/");
    return;
  }
  if (page === "verify") {
    element("confirmed").textContent = say("The address of your account is {email}.", answer);
  }
  for (const form of document.forms) form.reset();
  show("done").focus();
}

/** Call the API for who is signed in; who is not goes to the sign-in page. */
async function sendSignedIn(method, path, body) {
  try {
    return await send(method, path, body);
  } catch (refusal) {
    if (refusal.code !== "not_authenticated") throw refusal;
    location.replace("/");
    return new Promise(() => {});
  }
}

async function showAccount() {
  const { email, emailVerified, hasPassword } = await sendSignedIn("GET", "/api/account");
  element("address-email").textContent = email;
  element("is-confirmed").hidden = emailVerified !== true;
  element("is-unconfirmed").hidden = emailVerified !== false;
  open(element("change-password"), hasPassword);
  show("address");
}

/** Look again whether the address is confirmed, when somebody comes back to this tab. */
async function lookAgain() {
  if (isBusy || document.hidden || element("address").hidden) return;
  await showAccount().catch(() => {});
}

/** What a form does with what was typed, and the path that it has as its action. */
const FORMS = {
  async ask(body, path) {
    showSent(say((await send("POST", path, body)).message));
  },
  async again(_, path) {
    await sendSignedIn("POST", path, {});
    showSent(
      say(
        "A message is on its way to you, unless you have had several within the hour. Please " +
          "check your spam folder, too.",
      ),
    );
  },
  async change(body, path) {
    showSent(say((await sendSignedIn("POST", path, body)).message));
  },
  use,
};

for (const form of document.forms) {
  const work = FORMS[form.dataset.does];
  onSubmit(form, (body, path) => attempt(() => work(body, path), { form }));
}

if (page === "email") {
  document.addEventListener("visibilitychange", lookAgain);
  addEventListener("focus", lookAgain);
}
// Where the page is open already, a link only changes what stands behind the `#`.
addEventListener("hashchange", () => location.hash && begin());
begin();
