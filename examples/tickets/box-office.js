// Buying a seat: one call to the gateway. It stays open until the services have decided, and brings their answer.

const PATIENCE_MS = 15_000; // the gateway itself gives up after 5 s

const TEXTS = {
  404: "The box office is not open yet. Try again in a moment.",
  429: "Too many calls at once. Try again in a moment.",
  502: "The shop is out of reach (502). Try again in a moment.",
  503: "The shop can't take orders just now (503). Try again in a moment.",
  504: "No answer in time (504). If the seat was sold to you after all, it turns yours and the mail comes.",
};

/**
 * @param {string} gateway  base URL of the gateway's inbound port
 * @param {{id: string, name: string}} buyer
 * @param {string} seat  such as "C13"
 * @returns {Promise<{state: "mine"|"sold"|"free", owner?: string, left?: number, text: string}>} how the seat is now, as far
 *     as the answer tells, and what to say to the buyer: nothing if all went well
 */
export async function buySeat(gateway, buyer, seat) {
  let answer;
  try {
    answer = await fetch(`${gateway}/tickets/seats/${seat}/buy`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ buyer: buyer.id, name: buyer.name }),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    return { state: "free", text: "The gateway did not answer. The map shows what came of it once it is live again." };
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return { state: "mine", left: body.left, text: "" };
  const text = body.error ?? TEXTS[answer.status] ?? `The purchase failed (${answer.status}).`;
  // Only a lost race says who has the seat; after anything else it may still be free.
  return { state: body.sold ? "sold" : "free", owner: body.name, text };
}
