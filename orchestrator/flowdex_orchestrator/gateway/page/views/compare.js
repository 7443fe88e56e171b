// Compare: what several encoders, or modes of search, find for one query, side by side.
//
//   GET /compare --> what there is to choose
//   POST /compare --> columns of hits; lines lead from a passage in one column to the same one in the next

import { el, problem, svg } from "../dom.js";
import { short } from "../text.js";

const LIMITS = [5, 10, 20, 50];
const MODES = {
  dense: "dense: by meaning",
  sparse: "sparse: by words (BM25)",
  hybrid: "hybrid: both",
};
const SECOND_ENCODER = `executors:
  # ... the flow's own, and beside them:
  - name: glove
    uses: flowdex_executors.WordVectorEncoder
    needs: gateway
    floating: true            # /encode without a name is the first encoder's
    uses_requests:            # out of the way of /index and /search
      /glove/index: index
      /glove/search: search
  # the executor after it names what it follows:
  - name: indexer
    needs: encoder`;

export default {
  title: "Compare",
  mount(root, { api, params, navigate, onParams }) {
    const view = new CompareView(root, { api, navigate });
    onParams(changed => view.update(changed));
    view.start(params);
    return () => view.close();
  },
};

class CompareView {
  constructor(root, { api, navigate }) {
    Object.assign(this, { root, api, navigate });
    this.abort = new AbortController();
    this.turn = 0;
    this.box = el("input", { type: "search", name: "q", "aria-label": "Query", placeholder: "What do they find for …", class: "grow" });
    this.limit = el("select", { "aria-label": "Hits" }, ...LIMITS.map(value => el("option", { value: String(value) }, `${value} hits`)));
    const form = el("form", { class: "row", role: "search" }, this.box, this.limit,
      el("button", { class: "primary" }, "Compare"));
    form.addEventListener("submit", event => { event.preventDefault(); this.go(); });
    this.limit.addEventListener("change", () => this.go());
    this.chosen = el("div", { class: "compare-choices", role: "group", "aria-label": "Side by side" });
    this.trouble = el("div", {});
    this.hint = el("div", {});
    this.results = el("div", { "aria-live": "polite" });
    root.append(el("h1", { class: "compare-title" }, "Compare"), form, this.chosen, this.hint, this.trouble, this.results);
    this.observer = new ResizeObserver(() => this.drawLines());
  }

  close() {
    this.abort.abort();
    this.observer.disconnect();
  }

  async start(params) {
    try {
      this.choices = await this.api.get("compare", { signal: this.abort.signal });
    } catch (error) {
      if (error.name !== "AbortError") this.trouble.replaceChildren(problem(error, () => this.start(params)));
      return;
    }
    this.trouble.replaceChildren();
    this.buildChoices();
    this.update(params);
  }

  buildChoices() {
    const { encoders, modes } = this.choices;
    const box = (kind, value, label, about) => el("label", { class: "compare-choice" },
      el("input", { type: "checkbox", dataset: { kind, value }, on: { change: () => this.go() } }),
      el("span", {}, label, about ? el("span", { class: "muted small" }, ` ${about}`) : null));
    this.chosen.append(
      ...encoders.map(({ name, model, dimensions }) => box("encoders", name, name,
        [model, dimensions ? `${dimensions} dimensions` : null].filter(Boolean).join(", "))),
      ...modes.map(mode => box("modes", mode, MODES[mode])));
    if (encoders.length > 1) return;
    const open = !modes.length;
    this.hint.replaceChildren(el("details", { class: "panel compare-hint", open },
      el("summary", {}, encoders.length
        ? "This flow has one encoder: compared are the modes of its search. How to add a second one"
        : "This flow has no encoder. How to add two"),
      el("p", {}, "An encoder beside the flow's own answers /encode alone, where it is named. The index keeps the first "
        + "one's vectors; for a comparison the second encodes a sample of the passages, once:"),
      el("pre", { class: "compare-yaml" }, el("code", {}, SECOND_ENCODER)),
      el("p", { class: "muted small" }, "flows/compare.yml is the default flow with GloVe word vectors beside MiniLM.")));
  }

  boxes() { return [...this.chosen.querySelectorAll("input")]; }

  update(params) {
    if (!this.choices) return;
    const { encoders, modes } = this.choices;
    const asked = (params.get("with") ?? "").split(",").filter(Boolean);
    const preset = encoders.length > 1 ? encoders.slice(0, 2).map(each => `encoders:${each.name}`)
      : modes.length ? ["modes:dense", "modes:sparse"] : encoders.map(each => `encoders:${each.name}`);
    const wanted = new Set(asked.length ? asked : preset);
    for (const box of this.boxes()) box.checked = wanted.has(`${box.dataset.kind}:${box.dataset.value}`);
    this.box.value = params.get("q") ?? "";
    this.limit.value = LIMITS.includes(Number(params.get("limit"))) ? params.get("limit") : "10";
    this.run();
  }

  go() {
    const address = new URLSearchParams();
    const q = this.box.value.trim();
    if (q) address.set("q", q);
    if (this.limit.value !== "10") address.set("limit", this.limit.value);
    address.set("with", this.boxes().filter(box => box.checked).map(box => `${box.dataset.kind}:${box.dataset.value}`).join(","));
    this.navigate(address);
    this.run();
  }

  async run() {
    const mine = ++this.turn;
    const query = this.box.value.trim();
    const picked = kind => this.boxes().filter(box => box.checked && box.dataset.kind === kind).map(box => box.dataset.value);
    const [encoders, modes] = [picked("encoders"), picked("modes")];
    this.columns = null;
    this.observer.disconnect();
    if (!query) {
      this.results.replaceChildren(el("p", { class: "muted" },
        "Ask something: each column lists what one of them finds, best first, and lines join a passage with itself."));
      return;
    }
    if (encoders.length + modes.length < 2) {
      this.results.replaceChildren(el("p", { class: "note" }, "Choose two or more to put side by side."));
      return;
    }
    this.results.setAttribute("aria-busy", "true");
    if (!this.results.querySelector(".compare-columns")) {
      this.results.replaceChildren(el("p", { class: "muted" },
        encoders.length ? "Encoding what is not known yet: the first time this takes a while …" : "Searching …"));
    }
    try {
      const body = { query, encoders, modes, limit: Number(this.limit.value) };
      const found = await this.api.post("compare", body, { signal: this.abort.signal });
      if (mine !== this.turn) return;
      this.trouble.replaceChildren();
      this.show(found);
    } catch (error) {
      if (error.name === "AbortError" || mine !== this.turn) return;
      this.results.replaceChildren();
      this.trouble.replaceChildren(problem(error, () => this.run()));
    } finally {
      if (mine === this.turn) this.results.removeAttribute("aria-busy");
    }
  }

  show({ query, columns, agreement, notes }) {
    if (columns.every(column => !column.hits.length)) {
      this.results.replaceChildren(el("div", { class: "panel" }, el("h2", {}, "Nothing found"),
        el("p", { class: "muted" }, "None of them has a hit. Is anything indexed? Words alone find nothing by stop words.")));
      return;
    }
    const label = column => column.name;
    const facts = agreement.map(({ columns: [a, b], shared, overlap, correlation, common }) => el("li", {},
      el("strong", {}, `${label(columns[a])} and ${label(columns[b])}`),
      ` share ${shared} of ${Math.max(columns[a].hits.length, columns[b].hits.length)} hits`,
      el("span", { class: "muted" }, ` (overlap ${overlap.toFixed(2)}`,
        correlation === null ? "" : `, rank correlation ${signed(correlation)} over ${common.toLocaleString("en")} passages`, ")")));
    this.cards = [];
    this.lines = [];
    const parts = columns.flatMap((column, number) => [
      number ? this.gutter() : null,
      this.column(column, number, columns, query),
    ]).filter(Boolean);
    this.board = el("div", { class: "compare-columns" }, ...parts);
    this.board.style.setProperty("--compare-columns", columns.map(() => "minmax(13rem, 1fr)").join(" 3.5rem "));
    this.columns = columns;
    this.results.replaceChildren(
      el("ul", { class: "compare-facts" }, ...facts),
      ...notes.map(note => el("p", { class: "note" }, note)),
      el("div", { class: "compare-scroll" }, this.board));
    this.observer.observe(this.board);
    this.drawLines();
  }

  column(column, number, columns, query) {
    const cards = new Map();
    this.cards.push(cards);
    const items = column.hits.map(hit => {
      const card = this.card(hit, number, columns);
      cards.set(hit.id, card);
      return el("li", {}, card);
    });
    const about = column.kind === "encoder"
      ? [column.model, `${column.ranked.toLocaleString("en")} passages ranked by cosine`].filter(Boolean).join(", ")
      : MODES[column.name].replace(/^\w+: /, "the flow's search, ");
    return el("section", { class: "compare-column", "aria-label": column.name },
      el("h2", {}, column.name),
      el("p", { class: "muted small compare-about" }, about, ". ",
        column.kind === "mode"
          ? el("a", { href: `#/search?${new URLSearchParams({ q: query, mode: column.name })}` }, "Open in Search") : null),
      items.length ? el("ol", { class: "compare-hits" }, ...items) : el("p", { class: "muted" }, "No hits."));
  }

  card(hit, number, columns) {
    const elsewhere = hit.ranks
      .map((rank, other) => ({ rank, other, shown: rank !== null && rank <= columns[other].hits.length }))
      .filter(each => each.other !== number);
    const alone = elsewhere.every(each => !each.shown);
    const chips = elsewhere.map(({ rank, other }) => el("span", { class: "compare-chip number" },
      `${columns[other].name} ${rank === null ? "–" : `#${rank}`}`));
    const card = el("button", {
      type: "button", class: `compare-card${alone ? " compare-alone" : ""}`, "aria-expanded": "false",
      on: {
        mouseenter: () => this.light(hit.id), mouseleave: () => this.light(null),
        focus: () => this.light(hit.id), blur: () => this.light(null),
        click: () => {
          const open = card.getAttribute("aria-expanded") === "false";
          card.setAttribute("aria-expanded", String(open));
          this.drawLines();
        },
      },
    },
    el("span", { class: "compare-head" },
      el("span", { class: "compare-rank number" }, String(hit.rank)),
      el("span", { class: "compare-name muted small" }, hit.document_id ?? ""),
      el("span", { class: "muted small number" }, short(hit.score))),
    el("span", { class: "compare-text" }, hit.text.replace(/\s+/g, " ").trim()),
    el("span", { class: "compare-chips" }, alone ? el("span", { class: "compare-chip compare-only" }, "only here") : null, ...chips));
    return card;
  }

  gutter() {
    const lines = svg("svg", { class: "compare-lines", "aria-hidden": "true" });
    this.lines.push(lines);
    return lines;
  }

  /** From each card to the same passage in the next column, at the height where both are now. */
  drawLines() {
    if (!this.columns) return;
    this.lines.forEach((lines, number) => {
      const top = lines.getBoundingClientRect();
      const [left, right] = [this.cards[number], this.cards[number + 1]];
      const middle = card => {
        const box = card.getBoundingClientRect();
        return box.top - top.top + Math.min(box.height, 120) / 2;
      };
      const paths = [...left].filter(([id]) => right.has(id)).map(([id, card]) => {
        const [from, to] = [middle(card), middle(right.get(id))];
        const bend = top.width / 2;
        return svg("path", { "data-id": id, d: `M0,${from} C${bend},${from} ${bend},${to} ${top.width},${to}` });
      });
      lines.replaceChildren(...paths);
    });
  }

  light(id) {
    for (const cards of this.cards ?? []) {
      for (const [own, card] of cards) card.classList.toggle("compare-lit", own === id);
    }
    for (const path of this.root.querySelectorAll(".compare-lines path")) {
      path.classList.toggle("compare-lit", path.dataset.id === id);
    }
  }
}

function signed(number) { return `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(2)}`; }

