// Events per second, latency percentiles and the sparkline.

const RATE_WINDOW_MS = 5_000;
const SAMPLES = 120;

export class Meter {
  #arrivals = [];
  #latencies = [];
  #received = 0;
  #elements;

  /** @param {Record<"rate"|"received"|"latency"|"p99"|"spark", Element>} elements where the figures are shown */
  constructor(elements) {
    this.#elements = elements;
    setInterval(() => this.#draw(), 250);
  }

  /** Notes the arrival of one event that was under way for `latencyMs`. */
  record(latencyMs) {
    this.#received += 1;
    this.#arrivals.push(performance.now());
    this.#latencies.push(latencyMs);
    if (this.#latencies.length > SAMPLES) this.#latencies.shift();
  }

  #draw() {
    const { rate, received, latency, p99, spark } = this.#elements;
    const since = performance.now() - RATE_WINDOW_MS;
    while (this.#arrivals.length > 0 && this.#arrivals[0] < since) this.#arrivals.shift();
    if (this.#received === 0) return;
    rate.textContent = (this.#arrivals.length / (RATE_WINDOW_MS / 1_000)).toFixed(1);
    received.textContent = this.#received.toLocaleString("en");
    const sorted = [...this.#latencies].sort((a, b) => a - b);
    latency.textContent = milliseconds(quantile(sorted, 0.5));
    p99.textContent = milliseconds(quantile(sorted, 0.99));
    const [area, line] = spark.children;
    const path = curve(this.#latencies, quantile(sorted, 0.98));
    line.setAttribute("d", path);
    area.setAttribute("d", `${path}L160 56L0 56Z`);
  }
}

function quantile(sorted, q) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
}

function milliseconds(value) {
  return value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

function curve(values, highest) {
  const ceiling = Math.max(2, highest * 1.15);
  const points = values.length > 1 ? values : [values[0], values[0]];
  return points
    .map((value, i) => {
      const x = (160 * i) / (points.length - 1);
      const y = 53 - 50 * Math.min(1, value / ceiling);
      return `${i === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    })
    .join("");
}
