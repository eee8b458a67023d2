// The buyer's mail. It comes as an event to this page alone: the subscription names the buyer's id, which nobody else knows.

const LENGTH = 20;

export class Inbox {
  #list;
  #mails;

  /** @param {Element} list where the mails are shown; they outlive a reload of the page */
  constructor(list) {
    this.#list = list;
    this.#mails = JSON.parse(sessionStorage.mails ?? "[]");
    this.#draw();
  }

  /** Adds a mail: `{ticket, subject, text}`. One that is there already is not added again. */
  add(mail) {
    if (this.#mails.some((known) => known.ticket === mail.ticket && known.text === mail.text)) return;
    this.#mails = [mail, ...this.#mails].slice(0, LENGTH);
    sessionStorage.mails = JSON.stringify(this.#mails);
    this.#draw();
  }

  #draw() {
    this.#list.replaceChildren(...this.#mails.map(entry));
  }
}

function entry({ ticket, subject, text }) {
  const item = document.createElement("li");
  const part = (tag, content) => Object.assign(document.createElement(tag), { textContent: content });
  item.append(part("b", subject), part("code", ticket), part("p", text));
  return item;
}
