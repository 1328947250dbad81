// What the pages share: they are clients of the HTTP contract (docs/openapi.yaml) and of nothing
// else. What the server says becomes text of the page, never markup.

export const notice = document.getElementById("notice");
const failure = document.getElementById("failure");

const locale = document.documentElement.lang;
const application = document.querySelector("h1").textContent;
const { words, errors } = JSON.parse(document.getElementById("language").textContent);

/** Give a sentence in the page's language, with the values of its `{names}`. */
export function say(text, values = {}) {
  const found = Object.hasOwn(words, text) ? words[text] : text;
  return found.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A call that did not succeed: what to tell the user, and the field of the form it is about. */
export class Refusal extends Error {
  constructor(sentence, { status = 0, code = "", field = "" } = {}) {
    super(sentence);
    Object.assign(this, { status, code, field });
  }
}

const FIELDS = { invalid_credentials: "password", email_taken: "email" };

export async function send(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Refusal(
      say("The server cannot be reached. Please check your connection and try again."),
    );
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { status } = response;
  const { code, field = FIELDS[code] } = answer;
  throw new Refusal(sentence(answer, response), { status, code, field });
}

function sentence({ code, field, error }, response) {
  const later = wait(response);
  if (response.status === 503) {
    return say("The service is temporarily unavailable. Please try again {later}.", { later });
  }
  for (const key of [`${code} ${field}`, code]) {
    if (Object.hasOwn(errors, key)) return errors[key].replace("{later}", later);
  }
  return error ?? say("Something went wrong. Please try again later.");
}

/** When to try again: "in 5 seconds", "in 15 minutes". */
function wait(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  if (!seconds) return say("later");
  const inWords = new Intl.RelativeTimeFormat(locale);
  if (seconds < 60) return inWords.format(seconds, "second");
  return inWords.format(Math.ceil(seconds / 60), "minute");
}

const PATIENCE = say("One moment, please.");
export let isBusy = false;
export let attempts = 0;

/** Do one thing at a time, and tell what went wrong: at its field, or above the forms. */
export async function attempt(work, { form, aside = "" } = {}) {
  if (isBusy) return;
  isBusy = true;
  attempts += 1;
  clear();
  const slow = setTimeout(() => (notice.textContent = PATIENCE), 1000);
  try {
    checkRequired(form);
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

/** What is certain to be refused is not sent: it might cost an attempt. */
function checkRequired(form) {
  const missing = [...(form?.elements ?? [])].find((input) => input.validity.valueMissing);
  if (missing) throw new Refusal(say("Please fill in this field."), { field: missing.name });
}

export function clear() {
  notice.textContent = "";
  for (const element of document.querySelectorAll(".error")) element.textContent = "";
  for (const input of document.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
  }
}

function tell(refusal, form, aside) {
  const input = form?.elements.namedItem(refusal.field);
  if (!input || input.disabled) {
    // What an outage does not mean is worth a sentence.
    const unknown = refusal.status === 503 || refusal.status === 0;
    failure.textContent = unknown ? `${refusal.message} ${aside}` : refusal.message;
    return;
  }
  document.getElementById(`${input.id}-error`).textContent = refusal.message;
  input.ariaInvalid = "true";
  input.focus();
}

/** Show one section of those with a heading, name the page by it, and give the heading. */
export function show(id) {
  for (const section of document.querySelectorAll("section[aria-labelledby]")) {
    section.hidden = section.id !== id;
  }
  const heading = document.getElementById(`${id}-heading`);
  document.title = `${heading.textContent} – ${application}`;
  return heading;
}

/** Call a function with what a form has, when it is sent. */
export function onSubmit(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(Object.fromEntries(new FormData(form)), form.getAttribute("action"));
  });
}
