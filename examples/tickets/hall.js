// The seat map: where seats stand, what they look like, and how to reach them with the keyboard.

const AISLE = 0.7; // widths in seat pitches
const SECTION_GAP = 0.8;
const STAGE_DEPTH = 3.1;
const NEAREST_RADIUS = 30; // radius of the first row's arc
const FINGER_PX = 18; // a touch this close to a free seat means that seat

/** Draws the hall into `container`; `onBuy(seat)` is called when a free seat is chosen. */
export class Hall {
  #container;
  #onBuy;
  #seats = new Map();
  #rows = [];

  constructor(container, onBuy) {
    this.#container = container;
    this.#onBuy = onBuy;
    container.addEventListener("click", (event) => this.#click(event));
    container.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Builds the seats of a plan: `[{name, price, rows: [{row, seats}]}]`, front to back. */
  build(sections) {
    const plan = place(sections);
    const { width, height } = plan;
    this.#container.style.setProperty("--columns", width.toFixed(3));
    this.#container.style.setProperty("--lines", height.toFixed(3));
    const stage = document.createElement("div");
    stage.className = "stage";
    stage.textContent = "Stage";
    this.#seats.clear();
    this.#rows = [];
    const buttons = plan.seats.map((seat) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = `seat section-${seat.section}`;
      button.dataset.seat = seat.id;
      button.tabIndex = -1;
      button.style.left = `${((100 * seat.x) / width).toFixed(3)}%`;
      button.style.top = `${((100 * seat.y) / height).toFixed(3)}%`;
      button.style.setProperty("--turn", `${seat.turn.toFixed(2)}deg`);
      const entry = { ...seat, button };
      this.#seats.set(seat.id, entry);
      (this.#rows[seat.line] ??= []).push(entry);
      return button;
    });
    const letters = plan.labels.map(({ text, x, y }) => {
      const label = document.createElement("span");
      label.className = "row-name";
      label.textContent = text;
      label.ariaHidden = "true";
      label.style.left = `${((100 * x) / width).toFixed(3)}%`;
      label.style.top = `${((100 * y) / height).toFixed(3)}%`;
      return label;
    });
    this.#container.replaceChildren(stage, ...letters, ...buttons);
    this.clear();
    if (buttons.length > 0) buttons[0].tabIndex = 0;
  }

  /** Shows every seat as free. */
  clear() {
    for (const id of this.#seats.keys()) this.set(id, "free");
  }

  /**
   * Shows a seat as `free`, `pending`, `sold` or `mine`.
   * @returns {boolean} whether that changed anything
   */
  set(id, state, { animate = false } = {}) {
    const seat = this.#seats.get(id);
    if (!seat || seat.button.dataset.state === state) return false;
    const { button } = seat;
    button.dataset.state = state;
    button.setAttribute("aria-disabled", String(state !== "free"));
    button.setAttribute("aria-label", `${seatName(seat)}, ${seat.price} euros, ${WORDS[state]}`);
    button.title = `${seatName(seat)} · €${seat.price} · ${WORDS[state]}`;
    button.classList.toggle("just-now", animate);
    return true;
  }

  /** The seat's row, number, price and section, or undefined. */
  seat(id) {
    return this.#seats.get(id);
  }

  /** Number of seats that can still be bought, and of all seats. */
  count() {
    let free = 0;
    for (const { button } of this.#seats.values()) {
      if (button.dataset.state === "free" || button.dataset.state === "pending") free += 1;
    }
    return { free, all: this.#seats.size };
  }

  #click(event) {
    const button = event.target.closest(".seat") ?? this.#nearestFree(event.clientX, event.clientY);
    const seat = button && this.#seats.get(button.dataset.seat);
    if (!seat) return;
    this.#focus(seat);
    if (button.dataset.state === "free") this.#onBuy(seat);
  }

  #nearestFree(x, y) {
    let nearest = null;
    let best = FINGER_PX;
    for (const { button } of this.#seats.values()) {
      if (button.dataset.state !== "free") continue;
      const box = button.getBoundingClientRect();
      const distance = Math.hypot(box.x + box.width / 2 - x, box.y + box.height / 2 - y);
      if (distance < best) [nearest, best] = [button, distance];
    }
    return nearest;
  }

  #move(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const seat = this.#seats.get(event.target.dataset?.seat);
    if (!step || !seat) return;
    event.preventDefault();
    const row = this.#rows[seat.line + step[0]];
    if (!row) return;
    const next = step[0] === 0
      ? row[seat.number - 1 + step[1]]
      : row.reduce((a, b) => (Math.abs(b.x - seat.x) < Math.abs(a.x - seat.x) ? b : a));
    if (next) this.#focus(next);
  }

  // One seat at a time is in the tab order; 300 would be a long way to the next control.
  #focus({ button }) {
    this.#container.querySelector('.seat[tabindex="0"]')?.setAttribute("tabindex", "-1");
    button.tabIndex = 0;
    button.focus({ preventScroll: false });
  }
}

const WORDS = { free: "free", pending: "being bought", sold: "sold", mine: "yours" };

/** "Row C seat 14" */
export function seatName({ row, number }) {
  return `Row ${row} seat ${number}`;
}

/** Coordinates in seat pitches: rows are arcs around a point before the stage, parted by two aisles. */
function place(sections) {
  const widest = Math.max(...sections.flatMap((section) => section.rows.map((row) => row.seats)));
  const width = widest + 2 * AISLE + 2.2;
  const seats = [];
  const labels = [];
  let depth = 0;
  let line = 0;
  sections.forEach((section, sectionIndex) => {
    for (const { row, seats: count } of section.rows) {
      const radius = NEAREST_RADIUS + depth;
      const wing = Math.round(count * 0.28);
      const at = (offset) => {
        const angle = offset / radius;
        return {
          x: width / 2 + radius * Math.sin(angle),
          y: STAGE_DEPTH + depth - radius * (1 - Math.cos(angle)),
          turn: (-angle * 180) / Math.PI,
        };
      };
      const span = count - 1 + 2 * AISLE;
      for (let number = 1; number <= count; number += 1) {
        const aisles = Number(number > wing) + Number(number > count - wing);
        const offset = number - 1 + aisles * AISLE - span / 2;
        seats.push({ id: `${row}${number}`, row, number, line, section: sectionIndex, price: section.price, ...at(offset) });
      }
      labels.push({ text: row, ...at(-span / 2 - 1.05) }, { text: row, ...at(span / 2 + 1.05) });
      line += 1;
      depth += 1;
    }
    depth += SECTION_GAP;
  });
  const lowest = Math.min(...seats.map((seat) => seat.y), STAGE_DEPTH);
  const shift = STAGE_DEPTH - lowest;
  for (const spot of [...seats, ...labels]) spot.y += shift;
  return { seats, labels, width, height: Math.max(...seats.map((seat) => seat.y)) + 0.7 };
}
