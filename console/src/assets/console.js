// Keeps pages up to date. Every page works without this script.
"use strict";

const labels = {
  accepted: "Accepted", deferred: "Deferred", placed: "Placed", ringing: "Ringing",
  answered: "Answered, reading the code", delivered: "Delivered", hung_up: "Hung up",
  voicemail: "Voicemail", busy: "Busy", no_answer: "No answer", failed: "Failed",
  expired: "Expired", cancelled: "Cancelled", rejected: "Rejected", in_progress: "In progress",
};
const tones = {
  delivered: "good", failed: "bad", rejected: "bad", busy: "warn", no_answer: "warn",
  hung_up: "warn", voicemail: "warn", expired: "warn", cancelled: "warn",
};

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function statusLabel(status) {
  return element("span", "pill " + (tones[status] || ""), labels[status] || status);
}

// A time as the server writes it, in UTC, to the second.
function toSeconds(time) {
  return time.slice(0, 19).replace("T", " ");
}

function subscribe(url, receive) {
  const source = new EventSource(url);
  source.addEventListener("statuses", (event) => receive(JSON.parse(event.data), source));
  return source;
}

// A sign-in link has its code in the fragment, which browsers send to no server.
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
  const seen = new Set();
  let first = true;
  subscribe(list.dataset.events, ({ statuses }, source) => {
    if (first && statuses.length) {
      list.replaceChildren();
      seen.clear();
      first = false;
    }
    for (const status of statuses) {
      if (seen.has(String(status.sequence))) continue;
      seen.add(String(status.sequence));
      const item = element("li", "fresh");
      item.append(statusLabel(status.status));
      item.append(element("time", "", toSeconds(status.time)));
      if (status.reason) item.append(element("p", "", status.reason.message));
      list.append(item);
      if (status.final) source.close();
    }
  });
}

function newRow(status, href) {
  const row = element("tr");
  row.dataset.delivery = status.delivery_id;
  const link = element("a", "mono", status.delivery_id);
  link.href = href;
  const id = element("td", "wrap");
  id.append(link);
  const number = element("td", "mono", status.to_masked || "");
  const time = element("td", "", toSeconds(status.time));
  row.append(element("td"), id, number, time, element("td", "", String(status.attempt)));
  return row;
}

function deliveries() {
  const body = document.querySelector("tbody[data-live]");
  if (!body) return;
  const note = document.querySelector("[data-live-note]");
  const maxRows = 200;
  const wanted = (body.dataset.status || "").split(",").filter(Boolean);
  subscribe(body.dataset.live, ({ statuses, missed }) => {
    for (const status of statuses) {
      const id = status.delivery_id;
      let row = body.querySelector(`tr[data-delivery="${CSS.escape(id)}"]`);
      const outcome = status.final ? status.status : "in_progress";
      const matches = !wanted.length || wanted.includes(outcome);
      if (!matches) {
        if (row) row.remove();
        continue;
      }
      if (!row) {
        if (body.dataset.unfiltered !== "true") continue;
        row = newRow(status, `${body.dataset.base}/${encodeURIComponent(id)}`);
        body.prepend(row);
        const empty = document.querySelector("[data-empty]");
        if (empty) empty.remove();
        while (body.rows.length > maxRows) body.deleteRow(-1);
      }
      row.cells[0].replaceChildren(statusLabel(status.status));
      row.cells[4].textContent = String(status.attempt);
      row.classList.remove("fresh");
      void row.offsetWidth;
      row.classList.add("fresh");
    }
    if (missed && note) {
      note.textContent =
        `${missed} statuses arrived too fast to be shown. Reload the page to see all deliveries.`;
    }
  });
}

async function showBalance() {
  const stat = document.querySelector("[data-balance]");
  if (!stat) return;
  const answer = await fetch(stat.dataset.balance);
  if (!answer.ok) return;
  const { balance, currency } = await answer.json();
  if (balance) stat.textContent = `${balance} ${currency || ""}`;
}

showBalance();
signIn();
addEventListener("hashchange", signIn);
timeline();
deliveries();
