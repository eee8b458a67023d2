// The ticket shop's page. The shop's services decide who gets a seat; the gateway asks them, and tells everybody.

import { currentBuyer, showAccount } from "./account.js";
import { buySeat } from "./box-office.js";
import { ageMs, now, synchronise } from "./clock.js";
import { Hall, seatName } from "./hall.js";
import { Inbox } from "./inbox.js";
import { connect } from "./live.js";
import { Meter } from "./meter.js";

const SEAT_SOLD = "com.tidegate.tickets.seat.sold";
const SEAT_RELEASED = "com.tidegate.tickets.seat.released";
const HALL_RESET = "com.tidegate.tickets.hall.reset";
const STATS = "com.tidegate.tickets.stats";
const MAIL_SENT = "com.tidegate.tickets.mail.sent";
const FEED_LENGTH = 40;
const RETRY_MS = 1_000;

const $ = (id) => document.getElementById(id);
const transport = new URLSearchParams(location.search).get("transport") === "ws" ? "ws" : "sse";
const buyer = currentBuyer();
const hall = new Hall($("map"), buy);
const inbox = new Inbox($("mails"));
const meter = new Meter({
  rate: $("rate"),
  received: $("received"),
  latency: $("latency"),
  p99: $("latency-p99"),
  spark: $("spark"),
});

let planned = ""; // the plan on screen, as JSON
let sequence = -1; // the shop's changes up to here are on screen; -1: nothing yet
let waiting = null; // changes that arrive while the hall is being loaded
let loading = null; // that load, as a promise
let outdated = false; // what is being loaded may be too old already
let toastTimer = 0;
let gateway = ""; // base URL, as soon as the shop has told it

// ---- the hall's state: a snapshot from the shop, then changes from the gateway

/** Catches up with the shop; resolves once everything that happened before the call is on screen. */
function load() {
  outdated = true;
  return (loading ??= catchUp());
}

async function catchUp() {
  waiting = [];
  while (outdated) {
    outdated = false;
    const sentMs = now();
    const snapshot = await fetchJson("/api/hall");
    synchronise(snapshot.timeMs, sentMs, now());
    show(snapshot);
  }
  const late = waiting;
  waiting = null;
  loading = null;
  late.forEach(applyOrKeep);
}

function applyOrKeep(event) {
  if (waiting) waiting.push(event);
  else apply(event);
}

function show({ show: title, sections, sold, sequence: newest }) {
  const plan = JSON.stringify(sections);
  if (plan !== planned) {
    planned = plan;
    hall.build(sections);
    $("legend").replaceChildren(...sections.map(legendEntry));
  }
  const owners = new Map(sold.map((seat) => [seat.seat, seat.buyer]));
  for (const { row, seats } of sections.flatMap((section) => section.rows)) {
    for (let number = 1; number <= seats; number += 1) {
      const id = `${row}${number}`;
      hall.set(id, owners.has(id) ? ownership(owners.get(id)) : "free");
    }
  }
  $("show").textContent = title;
  sequence = newest;
  count();
}

function receive(event) {
  meter.record(ageMs(event.time));
  const { type, data } = event;
  if (type === STATS) $("viewers").textContent = data.viewers?.toLocaleString("en") ?? "–";
  // The gateway compares the id; a gateway that was not told which field to compare sends everybody's mail.
  if (type === MAIL_SENT) return data.buyer === buyer.id && inbox.add(data);
  if (type === SEAT_RELEASED) return data.seat && say(`${seatName(data)} is free again`, "released", `no payment by ${data.buyer}`);
  applyOrKeep(event);
}

function apply({ type, data }) {
  const expected = type === STATS ? sequence : sequence + 1;
  if (data.sequence < expected) return; // the snapshot has it already
  if (data.sequence > expected || type === HALL_RESET) {
    if (type === HALL_RESET) {
      say(`Doors open: ${data.show}`, "reset");
      $("purse").textContent = sessionStorage.left = "";
    }
    load();
    return;
  }
  if (type !== SEAT_SOLD) return;
  sequence = data.sequence;
  hall.set(data.seat, ownership(data.buyer), { animate: true });
  const mine = data.buyer === buyer.name;
  say(`${seatName(data)} sold`, mine ? "mine" : "sold", mine ? "to you" : `to ${data.buyer}`);
  count();
}

function ownership(owner) {
  return owner === buyer.name ? "mine" : "sold";
}

// ---- buying

async function buy(seat) {
  if (!gateway) return toast("The box office opens in a moment.", "bad");
  hall.set(seat.id, "pending");
  const { state, owner, left, text } = await buySeat(gateway, buyer, seat.id);
  if (state === "mine") {
    hall.set(seat.id, "mine", { animate: true });
    toast(`${seatName(seat)} is yours.`, "good");
    $("purse").textContent = `€${(sessionStorage.left = left)} left`;
  } else {
    // Meanwhile an event may have told more than the answer.
    if (pending(seat)) hall.set(seat.id, state === "sold" ? ownership(owner) : "free");
    toast(text, "bad");
  }
  count();
}

function pending(seat) {
  return seat.button.dataset.state === "pending";
}

// ---- what surrounds the map

function count() {
  const { free, all } = hall.count();
  $("free").textContent = free.toLocaleString("en");
  $("sold-bar").style.width = `${((100 * (all - free)) / all).toFixed(1)}%`;
  $("curtain").hidden = free > 0;
  $("curtain").textContent = "Sold out. The next show opens in a moment.";
}

function legendEntry({ name, price }, index) {
  const entry = document.createElement("li");
  const swatch = document.createElement("span");
  swatch.className = `swatch section-${index}`;
  entry.append(swatch, `${name} `, Object.assign(document.createElement("b"), { textContent: `€${price}` }));
  return entry;
}

function say(what, kind, who = "") {
  const entry = document.createElement("li");
  entry.className = kind;
  const text = document.createElement("span");
  text.textContent = what;
  const whom = Object.assign(document.createElement("i"), { textContent: who && ` ${who}` });
  text.append(whom);
  const time = Object.assign(document.createElement("time"), { textContent: new Date().toLocaleTimeString("en-GB") });
  entry.append(text, time);
  $("feed").prepend(entry);
  while ($("feed").children.length > FEED_LENGTH) $("feed").lastChild.remove();
}

function toast(text, kind) {
  clearTimeout(toastTimer);
  Object.assign($("toast"), { textContent: text, hidden: false });
  $("toast").dataset.kind = kind;
  toastTimer = setTimeout(() => ($("toast").hidden = true), 4_000);
}

function setLink(state) {
  const words = { connecting: "Connecting …", live: "Live", reconnecting: "Reconnecting …" };
  $("link").dataset.state = state;
  $("link-text").textContent = words[state];
  $("link-by").textContent = transport === "ws" ? "WebSocket" : "EventSource";
}

/** Asks the shop until it answers: without it there is nothing to show. */
async function fetchJson(path) {
  for (;;) {
    try {
      const answer = await fetch(path, { cache: "no-store" });
      if (answer.ok) return await answer.json();
      console.warn(`${path}: status ${answer.status}, trying again`);
    } catch (error) {
      console.warn(`${path}: no answer, trying again:`, error);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

document.querySelector(`[data-transport="${transport}"]`).setAttribute("aria-current", "page");
if (sessionStorage.left) $("purse").textContent = `€${sessionStorage.left} left`;
showAccount({ who: $("who"), form: $("sign-in"), note: $("account-note"), out: $("sign-out") }, buyer);
setLink("connecting");
await load();
({ gateway } = await fetchJson("/config.json"));
connect({
  gateway,
  transport,
  token: buyer.token,
  subscriptions: [
    ...[SEAT_SOLD, SEAT_RELEASED, HALL_RESET, STATS].map((eventType) => ({ eventType })),
    { eventType: MAIL_SENT, oneOf: [{ buyer: buyer.id }] },
  ],
  onState: setLink,
  // What happened meanwhile comes as events, if the gateway still has it; else the shop has to be asked.
  onSubscribed: ({ resumed }) => (resumed ? undefined : load()),
  onHistoryLost: load,
  onEvent: receive,
});
