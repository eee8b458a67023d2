// The connection to the gateway: one subscription, two transports, and a way back after every interruption. The way back
// begins where the stream broke off: each event has a cursor, and the gateway goes on behind the one that it is given.

const SILENCE_MS = 8_000; // the shop publishes figures every second: a stream this quiet is dead
const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 5_000;
const HISTORY_LOST = "tidegate.history_lost"; // events are missing, and the gateway can't bring them

/**
 * Keeps subscriptions alive until the page closes.
 *
 * @param {object} options
 * @param {string} options.gateway   base URL of the gateway's inbound port
 * @param {"sse"|"ws"} options.transport
 * @param {{eventType: string, oneOf?: object[]}[]} options.subscriptions  CloudEvent types, and which values of their fields
 * @param {(state: "connecting"|"live"|"reconnecting") => void} options.onState
 * @param {string} [options.token]   who is in front of the screen, for subscriptions that come from tokens
 * @param {(how: {resumed: boolean}) => Promise<void>|void} options.onSubscribed  the subscription is in force; unless it
 *     was `resumed`, what happened before may be missing: the connection counts as live once the promise resolves
 * @param {() => Promise<void>} options.onHistoryLost  a resumed subscription has a gap after all
 * @param {(event: object) => void} options.onEvent  one CloudEvent
 */
export function connect({ gateway, transport, token, subscriptions, onState, onSubscribed, onHistoryLost, onEvent }) {
  const types = subscriptions.map(({ eventType }) => eventType);
  const query = encodeURIComponent(JSON.stringify(subscriptions));
  const base = `${gateway}/_rig/v1/connection/${transport}?subscriptions=${query}`;
  const identity = token ? `&jwt=${encodeURIComponent(token)}` : "";
  const open = transport === "ws" ? openWebSocket : openEventSource;
  let stream = null;
  let cursor = ""; // of the newest event
  let resumes = false; // this connection goes on behind an event
  let failures = 0;
  let interruptions = 0;
  let lastSign = Date.now();

  function start() {
    lastSign = Date.now();
    resumes = cursor !== "";
    const position = resumes ? `&lastEventId=${encodeURIComponent(cursor)}` : "";
    stream = open(base + identity + position, types, { receive, lost });
  }

  function receive(event, position) {
    lastSign = Date.now();
    if (position) cursor = position;
    if (event.type === "rig.subscriptions_set") {
      failures = 0;
      const before = interruptions;
      Promise.resolve(onSubscribed({ resumed: resumes })).then(() => interruptions === before && onState("live"));
    } else if (event.type === HISTORY_LOST) {
      onHistoryLost();
    } else if (types.includes(event.type)) {
      onEvent(event);
    }
  }

  // `retries`: the browser's own reconnection is already under way.
  function lost({ retries }) {
    interruptions += 1;
    onState("reconnecting");
    lastSign = Date.now();
    resumes = cursor !== ""; // the browser presents it by itself
    if (retries) return;
    stream?.close();
    stream = null;
    const ceiling = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures);
    failures += 1;
    setTimeout(start, ceiling / 2 + (Math.random() * ceiling) / 2);
  }

  setInterval(() => {
    if (stream && Date.now() - lastSign > SILENCE_MS) lost({ retries: false });
  }, 1_000);
  onState("connecting");
  start();
}

function openEventSource(url, types, { receive, lost }) {
  const source = new EventSource(url);
  const deliver = (message) => receive(JSON.parse(message.data), message.lastEventId);
  for (const type of [...types, "rig.subscriptions_set", HISTORY_LOST]) source.addEventListener(type, deliver);
  source.onerror = () => lost({ retries: source.readyState === EventSource.CONNECTING });
  return {
    close() {
      source.onerror = null;
      source.close();
    },
  };
}

function openWebSocket(url, _types, { receive, lost }) {
  const socket = new WebSocket(`${url.replace(/^http/, "ws")}&cursor=true`);
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    receive(event, event.tidegatecursor);
  };
  socket.onclose = () => lost({ retries: false });
  return {
    close() {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close();
    },
  };
}
