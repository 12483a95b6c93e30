// The live parts. Everything else works without.
"use strict";

const words = {
  accepted: "Accepted", deferred: "Waiting", placed: "Placed", ringing: "Ringing", answered: "Answered, the code is being read",
  delivered: "Delivered", hung_up: "Hung up", voicemail: "Voicemail", busy: "Busy", no_answer: "No answer", failed: "Failed",
  expired: "Expired", cancelled: "Cancelled", rejected: "Rejected", in_progress: "In progress",
};
const tones = { delivered: "good", failed: "bad", rejected: "bad", busy: "warn", no_answer: "warn", hung_up: "warn", voicemail: "warn", expired: "warn", cancelled: "warn" };

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// As the server writes it: UTC.
function clock(time) {
  return time.slice(0, 19).replace("T", " ");
}

function listen(url, told) {
  const source = new EventSource(url);
  source.addEventListener("statuses", (event) => told(JSON.parse(event.data), source));
  return source;
}

// A link with a code in its fragment, which no server sees, signs in.
function signIn() {
  const form = document.querySelector("form[data-sign-in]");
  if (!form || !location.hash.startsWith("#code=")) return;
  form.elements.code.value = location.hash.slice("#code=".length);
  history.replaceState(null, "", location.pathname);
  form.submit();
}

function timeline() {
  const list = document.querySelector("ol[data-events]");
  if (!list) return;
  const seen = new Set(Array.from(list.querySelectorAll("li[data-sequence]"), (item) => item.dataset.sequence));
  let first = true;
  listen(list.dataset.events, ({ statuses }, source) => {
    if (first && statuses.length) {
      list.replaceChildren();
      seen.clear();
      first = false;
    }
    for (const status of statuses) {
      if (seen.has(String(status.sequence))) continue;
      seen.add(String(status.sequence));
      const item = element("li", "fresh");
      item.append(element("span", "pill " + (tones[status.status] || ""), words[status.status] || status.status));
      item.append(element("time", "", clock(status.time)));
      if (status.reason) item.append(element("p", "", status.reason.message));
      list.append(item);
      if (status.final) source.close();
    }
  });
}

function deliveries() {
  const body = document.querySelector("tbody[data-live]");
  if (!body) return;
  const note = document.querySelector("[data-live-note]");
  const most = 200;
  const wanted = (body.dataset.status || "").split(",").filter(Boolean);
  listen(body.dataset.live, ({ statuses, missed }) => {
    for (const status of statuses) {
      const word = status.status;
      let row = body.querySelector(`tr[data-delivery="${CSS.escape(status.delivery_id)}"]`);
      const fits = !wanted.length || wanted.includes(status.final ? status.status : "in_progress");
      if (!fits) { if (row) row.remove(); continue; }
      if (!row) {
        if (body.dataset.plain !== "true") continue;
        row = element("tr");
        row.dataset.delivery = status.delivery_id;
        const time = element("td", "", clock(status.time));
        const id = element("td", "wrap");
        const link = element("a", "mono", status.delivery_id);
        link.href = `${body.dataset.base}/${encodeURIComponent(status.delivery_id)}`;
        id.append(link);
        row.append(element("td"), id, element("td", "mono", status.to_masked || ""), time, element("td", "", String(status.attempt)));
        body.prepend(row);
        const empty = document.querySelector("[data-empty]");
        if (empty) empty.remove();
        while (body.rows.length > most) body.deleteRow(-1);
      }
      row.cells[0].replaceChildren(element("span", "pill " + (tones[word] || ""), words[word] || word));
      row.cells[4].textContent = String(status.attempt);
      row.classList.remove("fresh");
      void row.offsetWidth;
      row.classList.add("fresh");
    }
    if (missed && note) note.textContent = `${missed} statuses came faster than they can be shown: reload to see all.`;
  });
}

async function balance() {
  const stat = document.querySelector("[data-balance]");
  if (!stat) return;
  const answer = await fetch(stat.dataset.balance);
  if (!answer.ok) return;
  const told = await answer.json();
  if (told.balance) stat.textContent = `${told.balance} ${told.currency || ""}`;
}

balance();
signIn();
addEventListener("hashchange", signIn);
timeline();
deliveries();
