// Who is in front of the screen: a guest of this window, or somebody who is the same buyer on every device.

/** The buyer of this page: `{id, name, token}`. The id is a secret: the mail goes to whoever knows it. */
export function currentBuyer() {
  return {
    id: (sessionStorage.buyer ??= secret()),
    name: (sessionStorage.name ??= `Guest ${Math.random().toString(36).slice(2, 7).toUpperCase()}`),
    token: sessionStorage.token ?? "", // what the gateway knows them by
  };
}

/**
 * Lets people sign in and out. Either changes everything that the page shows, so it begins anew.
 *
 * @param {{who: Element, form: HTMLFormElement, note: Element, out: HTMLButtonElement}} elements
 * @param {{name: string}} buyer
 */
export function showAccount({ who, form, note, out }, buyer) {
  const signedIn = sessionStorage.signedIn === "yes";
  who.textContent = buyer.name;
  form.hidden = note.hidden = signedIn;
  out.hidden = !signedIn;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    note.textContent = await signIn(Object.fromEntries(new FormData(form)));
  });
  out.addEventListener("click", () => {
    sessionStorage.clear();
    location.reload();
  });
}

/** Resolves with the reason if that fails. */
async function signIn(who) {
  let answer;
  try {
    answer = await fetch("/api/sign-in", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(who),
    });
  } catch {
    return "The shop did not answer. Try again in a moment.";
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) return body.error ?? `Signing in failed (${answer.status}).`;
  sessionStorage.clear();
  Object.assign(sessionStorage, { buyer: body.id, name: body.name, token: body.token ?? "", signedIn: "yes" });
  location.reload();
  return "Signed in.";
}

function secret() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
