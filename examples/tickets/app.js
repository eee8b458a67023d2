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

let opening = 0; // number of the show on screen; a later one has a greater number
const sold = new Set(); // seats that events have told of
let toastTimer = 0;
let gateway = ""; // base URL, as soon as the shop has told it

// ---- the hall's state: from the gateway the newest event of each seat, then every change

/** What the shop itself says: how the hall is built, and what time it is there. */
async function askShop() {
  const sentMs = now();
  const answer = await fetchJson("/api/hall");
  synchronise(answer.timeMs, sentMs, now());
  return answer;
}

/** Only a gateway that keeps no newest events, or has lost some, leaves the shop to be asked. */
async function completeFromShop({ complete }) {
  if (complete) return;
  const answer = await askShop();
  open(answer, { initial: true });
  for (const sale of answer.sold) sell({ ...sale, opening: answer.opening }, { initial: true });
}

function receive({ type, time, data }, how) {
  if (!how.initial) meter.record(ageMs(time));
  if (type === STATS) $("viewers").textContent = data.viewers?.toLocaleString("en") ?? "–";
  // The gateway compares the id; a gateway that was not told which field to compare sends everybody's mail.
  if (type === MAIL_SENT && data.buyer === buyer.id) inbox.add(data);
  if (type === SEAT_RELEASED && data.seat) say(`${seatName(data)} is free again`, "released", `no payment by ${data.buyer}`);
  if (type === HALL_RESET) open(data, how);
  if (type === SEAT_SOLD) sell(data, how);
}

/** A show opens. The gateway may bring it before or after its first sales: they come in the order of each seat. */
function open({ show, opening: number }, { initial }) {
  if (number < opening) return;
  turnTo(number, { initial });
  if ($("show").textContent === show) return;
  $("show").textContent = show;
  if (!initial) say(`Doors open: ${show}`, "reset");
}

function sell(sale, { initial }) {
  if (sale.opening < opening) return; // of a show that is over
  turnTo(sale.opening, { initial });
  if (sold.has(sale.seat)) return;
  sold.add(sale.seat);
  hall.set(sale.seat, ownership(sale.buyer), { animate: !initial });
  const mine = sale.buyer === buyer.name;
  if (!initial) say(`${seatName(sale)} sold`, mine ? "mine" : "sold", mine ? "to you" : `to ${sale.buyer}`);
  count();
}

/** With a new show, every seat is free. */
function turnTo(number, { initial }) {
  if (number === opening) return;
  opening = number;
  sold.clear();
  if (!initial) $("purse").textContent = sessionStorage.left = "";
  hall.clear();
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
const plan = await askShop();
$("show").textContent = plan.show;
opening = plan.opening;
hall.build(plan.sections);
$("legend").replaceChildren(...plan.sections.map(legendEntry));
count();
({ gateway } = await fetchJson("/config.json"));
connect({
  gateway,
  transport,
  token: buyer.token,
  subscriptions: [
    ...[HALL_RESET, SEAT_SOLD].map((eventType) => ({ eventType, snapshot: true })),
    ...[SEAT_RELEASED, STATS].map((eventType) => ({ eventType })),
    { eventType: MAIL_SENT, oneOf: [{ buyer: buyer.id }] },
  ],
  onState: setLink,
  onSnapshot: completeFromShop,
  onEvent: receive,
});
