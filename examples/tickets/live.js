// The connection to the gateway: one subscription, two transports, and a way back after every interruption. The way back
// begins where the stream broke off: each event has a cursor, and the gateway goes on behind the one that it is given.

const SILENCE_MS = 8_000; // the shop publishes figures every second: a stream this quiet is dead
const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 5_000;
const HISTORY_LOST = "tidegate.history_lost"; // events are missing, and the gateway can't bring them
const SNAPSHOT = "tidegate.snapshot"; // the initial state has been told, from here on it is news

/**
 * Keeps subscriptions alive until the page closes.
 *
 * @param {object} options
 * @param {string} options.gateway   base URL of the gateway's inbound port
 * @param {"sse"|"ws"} options.transport
 * @param {{eventType: string, oneOf?: object[], snapshot?: boolean}[]} options.subscriptions  CloudEvent types, which values
 *     of their fields, and whether the newest event of each key is wanted first
 * @param {(state: "connecting"|"live"|"reconnecting") => void} options.onState
 * @param {string} [options.token]   who is in front of the screen, for subscriptions that come from tokens
 * @param {(how: {complete: boolean}) => Promise<void>|void} options.onSnapshot  the initial state has been told, and all of
 *     it if it is `complete`; the connection counts as live once the promise resolves. A connection that goes on where another
 *     broke off needs none
 * @param {(event: object, how: {initial: boolean}) => void} options.onEvent  one CloudEvent, of the initial state or news
 */
export function connect({ gateway, transport, token, subscriptions, onState, onSnapshot, onEvent }) {
  const types = subscriptions.map(({ eventType }) => eventType);
  const query = encodeURIComponent(JSON.stringify(subscriptions));
  const base = `${gateway}/_rig/v1/connection/${transport}?subscriptions=${query}`;
  const identity = token ? `&jwt=${encodeURIComponent(token)}` : "";
  const open = transport === "ws" ? openWebSocket : openEventSource;
  let stream = null;
  let cursor = ""; // of the newest event
  let resumes = false; // this connection goes on behind an event
  let initial = true; // what comes is the initial state
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
      initial = !resumes;
      if (resumes) onState("live");
    } else if (event.type === SNAPSHOT) {
      initial = false;
      const before = interruptions;
      Promise.resolve(onSnapshot(event.data)).then(() => interruptions === before && onState("live"));
    } else if (event.type === HISTORY_LOST) {
      cursor = ""; // begins anew, with the initial state
      lost({ retries: false });
    } else if (types.includes(event.type)) {
      onEvent(event, { initial });
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
  for (const type of [...types, "rig.subscriptions_set", SNAPSHOT, HISTORY_LOST]) source.addEventListener(type, deliver);
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
