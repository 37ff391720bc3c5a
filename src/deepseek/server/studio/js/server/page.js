// The server page: what the server is doing now, and how it did.

import { fill, h } from "../dom.js";
import { apiUrl } from "../api/server.js";
import { Histogram, quantile } from "../charts/histogram.js";
import { Lines } from "../charts/lines.js";
import { MiniBars } from "../charts/mini_bars.js";
import { bytes, number, percent, seconds, t } from "../words.js";
import { history, SPAN } from "./history.js";

const LATENCIES = ["time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"];
const MEMORY = [["weights_bytes", "--series-1"], ["kv_cache_bytes", "--series-2"], ["other", "--series-3"]];

const value = (part) => part ?? null;

function legend(entries) {
  return h("div", { class: "legend" }, entries.map(([text, colour]) => h("span", { class: "key", style: { "--swatch": `var(${colour})` } }, text)));
}

function panel(id, title, ...content) {
  return h("section", { class: "panel", id }, h("div", { class: "panel-head" }, h("h2", {}, title)), content);
}

export class ServerPage {
  constructor() {
    this.cards = h("div", { class: "cards" });
    this.head = h("span", { class: "weak" });
    this.notice = h("div", { class: "notice error", role: "alert", hidden: true });
    const ago = (age) => (age < 1 ? t("now") : t("ago", { seconds: number(age) }));
    this.speed = new Lines({ series: 2, span: SPAN, label: (of) => number(of), ago, title: t("speed.title"), least: 10 });
    this.requests = new Lines({ series: 2, span: SPAN, label: (of) => number(of, of % 1 ? 1 : 0), ago, title: t("requests.title"), least: 4 });
    this.latencies = LATENCIES.map((name) => new Histogram({
      label: seconds, title: t(`latency.${name}`), describe: (low, high, count) => t("latency.bar", { low: seconds(low), high: Number.isFinite(high) ? seconds(high) : "∞", count: number(count) }),
    }));
    this.latencyTexts = LATENCIES.map(() => h("p", { class: "weak number" }));
    this.cache = h("div", { class: "grid-gap" });
    this.memory = h("div", { class: "grid-gap" });
    this.experts = h("div", { class: "row-3" });
    this.expertsPanel = panel("server-experts", t("server.experts"), h("p", { class: "explain" }, t("server.experts.text")), this.experts);
    this.element = h("main", { class: "page board", id: "main" }, h("div", { class: "board-inner" },
      h("div", { class: "board-head" }, h("h1", {}, t("page.server")), this.head,
        h("a", { href: apiUrl("metrics"), target: "_blank", rel: "noopener" }, t("server.metrics"))),
      this.notice, this.cards,
      h("div", { class: "row-2" },
        panel("speed", t("speed.title"), this.speed.element, legend([[t("speed.generated"), "--series-1"], [t("speed.prompt"), "--series-2"]])),
        panel("requests", t("requests.title"), this.requests.element, legend([[t("requests.running"), "--series-1"], [t("requests.waiting"), "--series-2"]]))),
      h("div", { class: "row-3" }, LATENCIES.map((name, place) => panel(name, t(`latency.${name}`), this.latencies[place].element, this.latencyTexts[place]))),
      h("div", { class: "row-2" }, panel("cache", t("cache.title"), this.cache), panel("memory", t("memory.title"), this.memory)),
      this.expertsPanel));
    this.end = history.watch(() => this.draw());
    this.draw();
  }

  leave() {
    this.end();
  }

  themeChanged() {
    this.draw();
  }

  shortcut() {
    return false;
  }

  draw() {
    const status = history.latest;
    this.notice.hidden = history.failure === null;
    if (history.failure) fill(this.notice, t(history.failure.status === 401 ? "link.key" : history.failure.status === 404 ? "server.nostatus" : "link.lost"));
    this.#drawCards(status);
    this.speed.show(history.rates(({ tokens }) => [value(tokens?.generated), value(tokens?.prompt)]));
    this.requests.show(history.levels(({ requests }) => [value(requests?.running), value(requests?.waiting)]));
    if (!status) return;
    this.head.textContent = t("server.about", { version: status.version, model: status.model, uptime: seconds(status.uptime_seconds) }) + (status.draining ? ` · ${t("server.draining")}` : "");
    this.#drawLatencies(status.latency);
    this.#drawCache(status);
    this.#drawMemory(status);
    this.#drawExperts(status.experts);
  }

  #drawCards(status) {
    const card = (name, shown, more = "") => h("div", { class: "card" }, h("span", { class: "name" }, t(name)), h("span", { class: "value" }, shown), h("span", { class: "more" }, more));
    const { requests, tokens, kv_cache: cache, prefix_cache: prefix, memory } = status ?? {};
    const recent = history.rates((one) => [value(one.tokens?.generated)]).slice(-3).map(({ values }) => values[0] ?? 0);
    const speed = recent.length ? recent.reduce((a, b) => a + b, 0) / recent.length : null;
    fill(this.cards,
      card("card.running", [number(requests?.running), requests?.max_running ? h("small", {}, ` / ${number(requests.max_running)}`) : null], t("card.finished", { count: number(requests?.finished) })),
      card("card.waiting", number(requests?.waiting), requests?.rejected ? t("card.rejected", { count: number(requests.rejected) }) : ""),
      card("card.speed", [number(speed), h("small", {}, t("card.speed.unit"))], t("card.generated", { count: number(tokens?.generated) })),
      card("card.cache", percent(cache ? cache.used_blocks / Math.max(1, cache.total_blocks) : null), cache ? t("card.blocks", { used: number(cache.used_blocks), total: number(cache.total_blocks) }) : ""),
      card("card.hits", percent(prefix?.queries ? prefix.hits / prefix.queries : null), t("card.hits.text", { hits: number(prefix?.hits), queries: number(prefix?.queries) })),
      card("card.memory", bytes(memory?.resident_bytes), memory?.available_bytes ? t("card.available", { value: bytes(memory.available_bytes) }) : ""));
  }

  #drawLatencies(latency) {
    LATENCIES.forEach((name, place) => {
      const data = latency?.[name];
      if (!data?.count) {
        this.latencies[place].show({ bounds: [0.01, 0.1, 1], counts: [0, 0, 0, 0] });
        this.latencyTexts[place].textContent = t("latency.none");
        return;
      }
      const [median, high] = [quantile(data, 0.5), quantile(data, 0.99)];
      this.latencies[place].show(data, [{ value: median, text: "p50" }, { value: high, text: "p99" }]);
      this.latencyTexts[place].textContent = t("latency.text", { median: seconds(median), high: seconds(high), mean: seconds(data.sum / data.count), count: number(data.count) });
    });
  }

  #drawCache({ kv_cache: cache, prefix_cache: prefix }) {
    if (!cache) return fill(this.cache, h("p", { class: "weak" }, t("none")));
    const share = (part) => ({ width: `${(100 * part) / Math.max(1, cache.total_blocks)}%` });
    return fill(this.cache,
      h("div", { class: "stack", role: "img", "aria-label": t("card.blocks", { used: cache.used_blocks, total: cache.total_blocks }) },
        h("span", { style: { ...share(cache.used_blocks), "--swatch": "var(--series-1)" } }),
        h("span", { style: { ...share(cache.cached_blocks ?? 0), "--swatch": "var(--heat-mid)", opacity: "0.55" } })),
      legend([[t("cache.used", { count: number(cache.used_blocks) }), "--series-1"], [t("cache.kept", { count: number(cache.cached_blocks) }), "--heat-mid"]]),
      h("p", { class: "weak number" }, t("cache.text", { total: number(cache.total_blocks * cache.block_tokens), bytes: bytes(cache.bytes) }), " ",
        prefix?.queries ? t("cache.hits", { share: percent(prefix.hits / prefix.queries) }) : ""));
  }

  #drawMemory({ memory, kv_cache: cache }) {
    if (!memory?.resident_bytes) return fill(this.memory, h("p", { class: "weak" }, t("none")));
    // The cache is reserved as a whole, but the system gives its memory only to blocks that were written to.
    const written = cache ? Math.min(1, (cache.used_blocks + (cache.cached_blocks ?? 0)) / Math.max(1, cache.total_blocks)) : 1;
    const known = { weights_bytes: Math.min(memory.weights_bytes ?? 0, memory.resident_bytes), kv_cache_bytes: (memory.kv_cache_bytes ?? 0) * written };
    known.other = Math.max(0, memory.resident_bytes - known.weights_bytes - known.kv_cache_bytes);
    const whole = Math.max(memory.total_bytes ?? 0, memory.resident_bytes);
    const parts = MEMORY.filter(([name]) => known[name]);
    return fill(this.memory,
      h("div", { class: "stack", role: "img", "aria-label": t("memory.title") }, parts.map(([name, colour]) => h("span", { style: { width: `${(100 * known[name]) / whole}%`, "--swatch": `var(${colour})` } }))),
      legend(parts.map(([name, colour]) => [t(`memory.${name}`, { value: bytes(known[name]) }), colour])),
      h("p", { class: "weak number" }, t("memory.text", { resident: bytes(memory.resident_bytes), total: bytes(memory.total_bytes) })));
  }

  #drawExperts(experts) {
    this.expertsPanel.hidden = !experts?.layers?.length;
    if (this.expertsPanel.hidden) return;
    const series = { entropy: 2, gini: 2, max_vio: 2 };
    if (!this.experts.children.length) {
      this.bars = Object.keys(series).map((name) => {
        const bars = new MiniBars(t(`balance.${name.replace("_", "")}`), 56);
        const text = h("p", { class: "weak number" });
        this.experts.append(h("div", {}, h("h3", { class: "small-title" }, t(`balance.${name.replace("_", "")}`)), bars.canvas, text));
        return { name, bars, text };
      });
    }
    for (const { name, bars, text } of this.bars) {
      bars.show(experts[name]);
      const worst = experts[name].indexOf(Math[name === "entropy" ? "min" : "max"](...experts[name]));
      text.textContent = t("server.experts.worst", { layer: experts.layers[worst], value: number(experts[name][worst], series[name]) });
    }
  }
}
