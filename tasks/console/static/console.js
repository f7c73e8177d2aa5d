// What a page can do more with a script: times in the viewer's zone, parts renewed in place, live rows, values at the
// pointer, copying, keys. Without it every page works.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// --- Times: shown in the viewer's zone; their title has UTC.
const ownZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const pad = (number) => String(number).padStart(2, "0");

function local(date, withDay) {
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  if (!withDay) return time;
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}`;
}

function localise(within) {
  for (const time of all("time[datetime]", within)) {
    const date = new Date(time.dateTime);
    if (!isNaN(date)) time.textContent = local(date, !time.closest("[data-live]"));
  }
  for (const text of all("svg [data-ms]", within)) {
    const shown = local(new Date(Number(text.dataset.ms)), true);
    text.textContent = text.textContent.includes(" ") ? shown.slice(5, 16) : shown.slice(11, 16);
  }
  for (const zone of all("[data-zone]", within)) {
    zone.textContent = `of ${ownZone}, UTC under the pointer`;
  }
  for (const zone of all("[data-clock]", within)) zone.textContent = ownZone;
}

// A time that is typed is one of the viewer's zone, as the times on the page are: it is sent with its distance from UTC.
const typed = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)?$/;

function withZone(text) {
  if (!typed.test(text)) return text;
  const whole = text.length === 10 ? `${text}T00:00` : text.replace(" ", "T");
  const minutes = -new Date(whole).getTimezoneOffset();
  if (isNaN(minutes)) return text;
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `${whole}${minutes < 0 ? "-" : "+"}${pad(hours)}:${pad(rest)}`;
}

addEventListener("submit", (event) => {
  for (const field of all("[data-time]", event.target)) field.value = withZone(field.value.trim());
});

// --- Copying: also on plain http, where browsers have no clipboard for scripts.
async function copy(button) {
  const text = button.dataset.copy;
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "Copied" : "Select and copy by hand";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

// --- Parts of a page that are renewed in place, as often as they say. Focus and what is opened stay where they are.
const focusable = "a[href], button, summary, input, select, textarea, pre[tabindex]";

// What a control is, so that it is found again in the part that replaces it; its place in the page may be another then.
function identity(control) {
  if (!control) return "";
  const form = control.closest("form");
  const fields = form ? all("input[type=hidden]", form).map((one) => `${one.name}=${one.value}`).join("&") : "";
  const of = control.closest("figure, tr")?.querySelector("figcaption, a")?.textContent;
  return [control.tagName, control.getAttribute("href"), form?.getAttribute("action"), fields, of, control.textContent]
    .join("\n");
}

function keepUse(part, next) {
  const opened = all("details[open] > summary", part).map(identity);
  for (const summary of all("details > summary", next)) {
    if (opened.includes(identity(summary))) summary.parentElement.open = true;
  }
  const used = part.contains(document.activeElement) ? identity(document.activeElement) : "";
  return () => {
    if (used) all(focusable, next).find((one) => identity(one) === used)?.focus({ preventScroll: true });
  };
}

// The page as it is now: parts that are renewed at the same time share one answer.
let asked = { at: -Infinity };

function page() {
  if (performance.now() - asked.at > 500) asked = { at: performance.now(), answer: ask() };
  return asked.answer;
}

async function ask() {
  const answer = await fetch(location.href);
  const isGone = answer.status === 401 || answer.redirected;
  return { isGone, isOk: answer.ok, text: await answer.text() };
}

// What could not be renewed is older than it seems: the page says so until it is renewed again.
function sayStale(isStale) {
  const said = document.getElementById("stale");
  if (!isStale) return said?.remove();
  if (said) return;
  const note = document.createElement("p");
  note.id = "stale";
  note.className = "bad";
  note.setAttribute("role", "alert");
  note.textContent = `Not renewed since ${local(new Date(), true)}: there is no answer. Trying again.`;
  document.querySelector("h1").after(note);
}

// What is said above of servers that do not answer, which is so of the part too.
function renewMissing(whole) {
  const [shown, now] = [document, whole].map((of) => of.getElementById("missing"));
  if (shown && now && shown.innerHTML !== now.innerHTML) shown.replaceWith(now);
}

function renewLater(part) {
  const period = Number(part.dataset.renew) * 1000;
  if (!period) return;
  setTimeout(async () => {
    const busy = () => document.hidden || part.querySelector("button:active, a:active") ||
      (getSelection().toString() && part.contains(getSelection().anchorNode));
    if (busy()) return renewLater(part);
    try {
      const { isGone, isOk, text } = await page();
      if (isGone) return location.reload();
      const whole = new DOMParser().parseFromString(text, "text/html");
      const next = whole.getElementById(part.id);
      if (busy()) return renewLater(part);
      sayStale(!isOk);
      if (isOk && next) {
        localise(next);
        const focusAgain = keepUse(part, next);
        const buttons = (of) => all("button, a", of).map(identity).join();
        if (buttons(part) !== buttons(next)) next.classList.add("settling"); // else a click could meet another one
        part.replaceWith(next);
        renewMissing(whole);
        ready(next);
        focusAgain();
        return;
      }
      if (isOk) return location.reload();
    } catch {
      sayStale(true); // the console does not answer now: try again later
    }
    renewLater(part);
  }, period - (performance.now() % period)); // counted from when the page was opened: a period that another one divides comes with it
}

// --- Live rows: server-sent events, each of which is a row.
const MOST_ROWS = 200;
const STATES = {
  away: "Redis does not answer: trying again. Attempts of this time are missing here, not in the callbacks' stories.",
  failed: "Attempts cannot be read, the console's log says why: trying again.",
  waiting: "Not live yet: waiting until all workers publish their attempts.",
  unavailable: "Attempts cannot be shown at the moment: trying again.", // this one and the next: in the portal
  soon: "Not live yet: in a moment.",
  live: "Live: attempts appear as they are made, newest first.",
};

function live(table) {
  const body = table.tBodies[0];
  const state = document.querySelector("[data-live-state]");
  const where = new URL(table.dataset.live, location.href);
  let source = null;

  function say(text, isBad = false) {
    if (state.textContent !== text) state.textContent = text; // a screen reader says each change
    state.classList.toggle("bad", isBad);
  }

  function show(event) {
    where.searchParams.set("after", event.lastEventId);
    const holder = document.createElement("template");
    holder.innerHTML = JSON.parse(event.data); // a row of our own template, in which everything is escaped
    localise(holder.content);
    const row = holder.content.firstElementChild;
    const time = row.querySelector("time");
    time.textContent = local(new Date(time.dateTime), false);
    body.prepend(row);
    while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
  }

  function open() {
    source = new EventSource(where);
    source.addEventListener("state", (event) => say(STATES[event.data]));
    source.onmessage = show;
    source.onerror = () => {
      say("Not connected: trying again.");
      if (source.readyState === EventSource.CLOSED) askWhy(); // it was refused, and the browser does not try again
    };
  }

  // Another page in its place is a log-in's: ours, or that of a proxy in front.
  async function askWhy() {
    const asking = new AbortController();
    const answer = await fetch(where, { signal: asking.signal, redirect: "manual" }).catch(() => null);
    const isStream = answer?.status === 200 && answer.headers.get("content-type")?.startsWith("text/event-stream");
    const isLogIn = answer?.type === "opaqueredirect" || [200, 401, 403].includes(answer?.status);
    asking.abort();
    if (isStream) setTimeout(open, 1000);
    else if (isLogIn) say(table.dataset.over, true);
    else {
      const isFull = answer?.status === 429;
      say(isFull ? "Too many live pages are open: close some." : "Not connected: trying again.", isFull);
      setTimeout(askWhy, 3000);
    }
  }

  open();
  addEventListener("pagehide", () => source.close());
}

// --- The values at the pointer, below a plot.
function plot(svg) {
  const data = JSON.parse(svg.dataset.plot);
  const said = svg.parentElement.querySelector("[data-at]");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "pointer");
  line.setAttribute("y1", "8");
  line.setAttribute("y2", "156");
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * data.w;
    const last = data.t.length - 1;
    const number = Math.min(last, Math.max(0, Math.round(((x - data.x0) / (data.x1 - data.x0)) * last)));
    const at = data.x0 + ((data.x1 - data.x0) * number) / Math.max(1, last);
    line.setAttribute("x1", String(at));
    line.setAttribute("x2", String(at));
    svg.append(line);
    const values = data.lines.map((one) => `${one.name} ${one.v[number] ?? "–"}`).join(", ");
    said.textContent = `${local(new Date(data.t[number]), true).slice(0, 16)}: ${values} (${data.unit})`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { line.remove(); said.textContent = ""; });
}

// --- Keys: "/" finds, j and k go through the rows of a list, Enter opens.
let here = -1;

function move(step) {
  const rows = all("table[data-rows] tbody tr");
  if (!rows.length) return;
  here = Math.min(rows.length - 1, Math.max(0, here + step));
  const link = rows[here].querySelector("a");
  if (link) link.focus();
}

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("[data-search]")?.focus();
  } else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

// --- The link that the command prints: its token stands behind "#", which no server and no log sees.
function logIn(form) {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.key.value = token;
  form.submit();
}

function ready(within) {
  localise(within);
  for (const button of all("[data-copy]", within)) button.hidden = false;
  for (const part of all("[data-renew]", within)) renewLater(part);
  if (within.dataset?.renew) renewLater(within);
  for (const svg of all("svg[data-plot]", within)) plot(svg);
}

ready(document);
all("[data-live]").forEach(live);
all("[data-login]").forEach(logIn);
