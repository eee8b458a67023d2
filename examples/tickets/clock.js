// How long an event was under way, although the shop's clock and the viewer's may differ.

let offsetMs = 0;

/** Wall-clock time with the resolution of the performance timer. */
export function now() {
  return performance.timeOrigin + performance.now();
}

/**
 * Learns how far the shop's clock is ahead from one request, as NTP does: the answer was written half-way between
 * `sentMs` and `receivedMs`, give or take half the round trip. A difference within that doubt is no difference.
 */
export function synchronise(shopMs, sentMs, receivedMs) {
  const doubtMs = (receivedMs - sentMs) / 2 + 1;
  const differenceMs = shopMs - (sentMs + receivedMs) / 2;
  offsetMs = Math.abs(differenceMs) <= doubtMs ? 0 : differenceMs;
}

/** Milliseconds since the RFC 3339 `time`; `Date.parse` stops at whole milliseconds, so the rest is added. */
export function ageMs(time) {
  const fraction = /\.\d{3}(\d+)/.exec(time);
  const writtenMs = Date.parse(time) + (fraction ? Number(`0.${fraction[1]}`) : 0);
  return Math.max(0, now() + offsetMs - writtenMs);
}
