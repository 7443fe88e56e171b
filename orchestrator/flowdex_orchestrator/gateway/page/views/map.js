// Map: the passages of the collection in a plane, near ones alike; a search lights up what it finds.
//
//   /map --points--> Plot (map_plot.js), coloured by groups (map_colours.js)
//   query --/search--> hits --/map {query, ids}--> places of the query and of hits outside of the sample

import { command, el, problem } from "../dom.js";
import { characters, short } from "../text.js";
import { choices, groups } from "./map_colours.js";
import { Plot } from "./map_plot.js";

const SIZES = [500, 2000, 5000, 10000];
const DEFAULT_SIZE = 2000;
const HITS = 50;
const MODES = [["hybrid", "meaning and words"], ["dense", "meaning"], ["sparse", "words"]];

export default {
  title: "Map",
  mount(root, { api, params, navigate, onParams }) {
    const view = new MapView(root, { api, navigate });
    onParams(changed => view.update(changed));
    view.update(params);
    return () => view.close();
  },
};

class MapView {
  constructor(root, { api, navigate }) {
    Object.assign(this, { root, api, navigate });
    this.base = [];  // the sample
    this.points = [];  // and hits that are not in it
    this.hits = [];
    this.query = null;  // its place
    this.wanted = { q: "", mode: "hybrid", n: DEFAULT_SIZE, colour: "" };
    this.shownSize = null;
    this.turn = 0;
    this.abort = new AbortController();
    this.build();
    this.plot = new Plot(this.canvas, {
      layers: () => this.layers(),
      overlay: (context, toScreen) => this.drawQuery(context, toScreen),
      onPoint: (index, place) => this.point(index, place),
      onPick: index => this.pick(index),
    });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.onScheme = () => this.recolour();
    this.scheme.addEventListener("change", this.onScheme);
  }

  close() {
    this.abort.abort();
    this.plot.close();
    this.scheme.removeEventListener("change", this.onScheme);
  }

  // ---- the page ----

  build() {
    this.box = el("input", { type: "search", name: "q", "aria-label": "Query", placeholder: "Search the map", class: "grow" });
    this.mode = select("Search by", MODES);
    const form = el("form", { class: "row", role: "search" }, this.box, this.mode,
      el("button", { class: "primary" }, "Search"));
    form.addEventListener("submit", event => {
      event.preventDefault();
      this.go({ q: this.box.value.trim() });
    });
    this.box.addEventListener("search", () => { if (!this.box.value) this.go({ q: "" }); });  // its cross was pressed
    this.mode.addEventListener("change", () => this.go({ mode: this.mode.value }));
    this.colour = select("Colour by", [["", "one colour"]]);
    this.colour.addEventListener("change", () => this.go({ colour: this.colour.value }));
    this.size = select("Passages", SIZES.map(size => [String(size), size.toLocaleString("en")]));
    this.size.addEventListener("change", () => this.go({ n: Number(this.size.value) }));
    this.canvas = el("canvas", {
      class: "map-canvas", tabindex: "0", role: "application",
      "aria-label": "Map of passages. Arrow keys move it, plus and minus zoom, 0 shows all, Enter opens the passage in the middle.",
    });
    this.tip = el("div", { class: "map-tip", role: "tooltip", hidden: true });
    const zoom = (label, text, act) =>
      el("button", { type: "button", "aria-label": label, title: label, on: { click: act } }, text);
    this.figure = el("div", { class: "map-figure" }, this.canvas, this.tip,
      el("div", { class: "map-zoom" },
        zoom("Zoom in", "+", () => this.plot.zoom(1.5)),
        zoom("Zoom out", "−", () => this.plot.zoom(1 / 1.5)),
        zoom("Show all", "⤢", () => this.plot.fit())));
    this.legend = el("ul", { class: "map-legend", "aria-label": "Legend" });
    this.about = el("p", { class: "muted small map-about" }, "Loading the map …");
    this.side = el("aside", { class: "map-side", "aria-label": "Passages" });
    this.opened = el("div", { "aria-live": "polite" });
    this.list = el("div", {});
    this.side.append(this.opened, this.list);
    this.trouble = el("div", {});
    this.spoken = el("div", { class: "map-spoken", "aria-live": "polite" });
    this.body = el("div", { class: "map-body" },
      el("div", { class: "map-main" }, this.figure, this.legend, this.about), this.side);
    this.root.append(el("h1", { class: "map-title" }, "Map"), form,
      el("div", { class: "row map-choices" },
        el("label", {}, "Colour by", this.colour), el("label", {}, "Passages", this.size)),
      this.trouble, this.body, this.spoken);
  }

  // ---- what is asked for ----

  go(changed) {
    Object.assign(this.wanted, changed);
    const { q, mode, n, colour } = this.wanted;
    const address = new URLSearchParams();
    if (q) address.set("q", q);
    if (mode !== "hybrid") address.set("mode", mode);
    if (n !== DEFAULT_SIZE) address.set("n", n);
    if (colour) address.set("colour", colour);
    this.navigate(address);
    this.run();
  }

  update(params) {
    const n = Number(params.get("n"));
    this.wanted = {
      q: params.get("q") ?? "",
      mode: MODES.some(([mode]) => mode === params.get("mode")) ? params.get("mode") : "hybrid",
      n: SIZES.includes(n) ? n : DEFAULT_SIZE,
      colour: params.get("colour") ?? "",
    };
    this.run();
  }

  async run() {
    const mine = ++this.turn;
    const { q, mode, n } = this.wanted;
    this.box.value = q;
    this.mode.value = mode;
    this.size.value = String(n);
    const { signal } = this.abort;
    try {
      this.figure.setAttribute("aria-busy", "true");
      if (this.shownSize !== n) {
        const map = await this.api.post("map", { limit: n }, { signal });
        if (mine !== this.turn) return;
        this.showMap(map, n);
      }
      const found = q && this.base.length ? await this.search(q, mode, n, signal) : { hits: [], placed: [], query: null, notes: [] };
      if (mine !== this.turn) return;
      this.showHits(q, found);
      this.trouble.replaceChildren();
    } catch (error) {
      if (error.name === "AbortError" || mine !== this.turn) return;
      this.trouble.replaceChildren(problem(error, () => this.run()));
      if (!this.base.length) this.body.hidden = true;
    } finally {
      if (mine === this.turn) this.figure.removeAttribute("aria-busy");
    }
  }

  async search(query, mode, limit, signal) {
    const asked = { query, mode, limit: HITS, group: "passage", highlight: false };
    const { results: [result] } = await this.api.post("search", asked, { signal });
    const ids = result.hits.map(hit => hit.id);
    // Words alone have no place among vectors, so the query is drawn where its meaning counts.
    const place = { limit, points: false, ids, ...(mode === "sparse" ? {} : { query }) };
    const { placed, query: where, notes } = await this.api.post("map", place, { signal });
    return { hits: result.hits, placed, query: where, notes: [...result.notes, ...notes] };
  }

  // ---- what came ----

  showMap(map, size) {
    this.shownSize = size;
    this.base = this.points = map.points;
    this.body.hidden = !map.points.length;
    this.hits = [];
    this.picked = null;
    this.opened.replaceChildren();
    if (!map.points.length) {
      this.root.querySelector(".map-empty")?.remove();
      this.body.before(el("div", { class: "panel map-empty" },
        el("h2", {}, "There is nothing to draw yet"),
        el("p", {}, "Index some documents, and their passages appear here as points: near ones say similar things."),
        command("flowdex index documents.jsonl"),
        el("button", { type: "button", on: { click: () => { this.shownSize = null; this.run(); } } }, "Look again")));
      return;
    }
    this.root.querySelector(".map-empty")?.remove();
    const [across, up] = map.variance.map(share => Math.round(100 * share));
    const shown = map.shown < map.total
      ? `${count(map.shown, "passage")} of ${map.total.toLocaleString("en")}, evenly drawn`
      : count(map.total, "passage");
    this.about.textContent = `${shown}. The map keeps ${across + up} % of what their vectors vary `
      + `(${across} % from left to right, ${up} % up and down): near points are alike, but not all that are alike are near.`;
    const options = choices(map.points);
    this.colour.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
    this.plot.setPoints(this.points);
    this.recolour();
  }

  showHits(query, { hits, placed, query: place, notes }) {
    const known = new Map(this.base.map((point, index) => [point.id, index]));
    this.points = [...this.base, ...placed];
    placed.forEach((point, number) => known.set(point.id, this.base.length + number));
    this.hits = hits.map((hit, rank) => ({ ...hit, rank: rank + 1, index: known.get(hit.id) ?? -1 }));
    this.query = place;
    if (this.picked !== null && this.picked >= this.points.length) this.unpick();
    this.plot.setPoints(this.points, { fit: false });
    if (![...this.colour.options].some(option => option.value === this.wanted.colour)) this.wanted.colour = "";
    this.colour.value = this.wanted.colour;
    this.recolour();
    if (!query) {
      this.list.replaceChildren(this.picked === null || this.picked === undefined
        ? el("p", { class: "muted" }, "Point at a passage to read it, click it to keep it here. Search to see where the hits are.")
        : "");
      return;
    }
    const rows = this.hits.map(hit => el("li", {}, this.hitButton(hit)));
    this.list.replaceChildren(
      ...notes.map(note => el("p", { class: "note" }, note)),
      el("h2", {}, hits.length ? count(hits.length, "hit") : "No hits"),
      rows.length ? el("ol", { class: "map-hits" }, ...rows)
        : el("p", { class: "muted" }, "No passage has what you look for. Try other words, or search by meaning."));
  }

  hitButton(hit) {
    const show = () => {
      if (hit.index < 0) return;
      this.plot.centre(hit.index);
      this.point(hit.index, this.plot.toScreen(this.points[hit.index]), { quiet: true });
    };
    const hide = () => this.point(-1, null);
    return el("button", {
      type: "button", class: "map-hit",
      on: { mouseenter: show, focus: show, mouseleave: hide, blur: hide, click: () => this.pick(hit.index) },
    }, el("span", { class: "map-rank number" }, String(hit.rank)),
    el("span", { class: "map-text" }, flat(hit.text)),
    el("span", { class: "muted small number" }, short(hit.score)));
  }

  // ---- drawing ----

  recolour() {
    const scores = new Map(this.hits.map(hit => [hit.id, hit.score]));
    const style = getComputedStyle(this.root);
    const colour = name => style.getPropertyValue(name).trim();
    this.colours = { ink: colour("--ink"), accent: colour("--accent"), panel: colour("--panel"), warn: colour("--warn") };
    this.groups = groups(this.points, this.wanted.colour, scores).map(each => ({ ...each, paint: colour(each.colour) }));
    const keys = this.groups.map(({ label, paint, indices }) =>
      el("li", {}, el("span", { class: "map-key", style: { "background-color": paint } }),
        label, el("span", { class: "muted number" }, ` (${indices.length.toLocaleString("en")})`)));
    if (this.hits.length) keys.push(el("li", {}, el("span", { class: "map-key map-key-hit" }), "hit"));
    if (this.query) keys.push(el("li", {}, el("span", { class: "map-key-query" }, "✕"), "query"));
    this.legend.replaceChildren(...keys);
    this.plot.redraw();
  }

  layers() {
    if (!this.groups) return [];
    const searching = this.hits.length > 0;
    const radius = this.points.length > 4000 ? 2.2 : this.points.length > 800 ? 3 : this.points.length > 100 ? 4 : 6;
    const layers = this.groups.map(({ indices, paint }) =>
      ({ indices, radius, fill: paint, alpha: searching && this.wanted.colour !== "score" ? 0.3 : 0.8 }));
    const found = new Set(this.hits.map(hit => hit.index));
    found.delete(-1);
    for (const { indices, paint } of searching ? this.groups : []) {
      const here = indices.filter(index => found.has(index));
      const fill = this.wanted.colour ? paint : this.colours.accent;
      if (here.length) layers.push({ indices: here, radius: radius + 2.5, fill, stroke: this.colours.ink });
    }
    for (const index of [this.picked, this.pointed]) {
      if (index >= 0 && index !== null) layers.push({ indices: [index], radius: radius + 5, stroke: this.colours.ink });
    }
    return layers;
  }

  drawQuery(context, toScreen) {
    if (!this.query) return;
    const [x, y] = toScreen(this.query);
    for (const [colour, width] of [[this.colours.panel, 6], [this.colours.warn, 2.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x - 8, y - 8);
      context.lineTo(x + 8, y + 8);
      context.moveTo(x + 8, y - 8);
      context.lineTo(x - 8, y + 8);
      context.stroke();
    }
  }

  // ---- one passage ----

  point(index, place, { quiet = false } = {}) {
    if (this.pointed !== index) {
      this.pointed = index;
      this.plot.redraw();
    }
    this.canvas.classList.toggle("map-at-point", index >= 0);
    this.tip.hidden = index < 0;
    if (index < 0) return;
    const { document_id, text } = this.points[index];
    this.tip.replaceChildren(el("strong", {}, document_id), el("span", {}, flat(text)));
    const [x, y] = place;
    const [width, height] = [this.tip.offsetWidth, this.tip.offsetHeight];
    const left = Math.min(Math.max(4, x + 12), this.plot.width - width - 4);
    const top = y + 14 + height > this.plot.height ? Math.max(4, y - height - 12) : y + 14;
    this.tip.style.setProperty("transform", `translate(${Math.max(4, left)}px, ${top}px)`);
    if (this.plot.steered && !quiet) this.spoken.textContent = `${document_id}: ${flat(text)}`;
  }

  pick(index) {
    if (index < 0) {
      this.unpick();
      return;
    }
    this.picked = index;
    this.plot.redraw();
    const { id, document_id, text, location, tags } = this.points[index];
    const cut = location[1] - location[0] > characters(text).length;
    const whole = this.hits.find(hit => hit.index === index)?.text;
    const line = flat(whole ?? text).slice(0, 200);
    const shown = Object.entries(tags).map(([name, value]) =>
      el("span", { class: "tag" }, `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`));
    const reading = el("p", { class: "map-passage" }, whole ?? `${text}${cut ? " …" : ""}`);
    this.opened.replaceChildren(el("article", { class: "panel map-open" },
      el("div", { class: "row" }, el("h2", { class: "grow" }, document_id),
        el("button", { type: "button", class: "quiet", "aria-label": "Close", on: { click: () => this.unpick() } }, "✕")),
      el("p", { class: "muted small number" }, `Passage ${id.slice(id.lastIndexOf("#") + 1)}, characters ${location[0]} to ${location[1]}`),
      reading,
      shown.length ? el("p", { class: "row" }, ...shown) : null,
      el("p", {}, el("a", { href: `#/search?${new URLSearchParams({ q: line })}` }, "Search for passages like this"))));
    if (!whole && cut) this.readWhole(id, document_id, location, reading);
  }

  /** The map has the beginnings of texts alone. */
  async readWhole(id, documentId, location, reading) {
    try {
      const found = await this.api.get(`documents/${encodeURIComponent(documentId)}?passages=true`, { signal: this.abort.signal });
      const passage = found.passages?.find(each => each.id === id);
      if (passage) reading.textContent = passage.text;
    } catch (error) {
      if (error.name !== "AbortError" && error.status !== 404) reading.after(el("p", { class: "muted small" }, error.message));
    }
  }

  unpick() {
    this.picked = null;
    this.opened.replaceChildren();
    this.plot.redraw();
  }
}

function select(label, options) {
  return el("select", { "aria-label": label }, ...options.map(([value, text]) => el("option", { value }, text)));
}

function count(number, what) { return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`; }

function flat(text) { return text.replace(/\s+/g, " ").trim(); }

