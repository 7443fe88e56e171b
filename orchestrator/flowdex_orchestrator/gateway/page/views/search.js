// Search: a query, its hits, and why each is where it is.
//
//   form --navigate--> #/search?q=&mode=&rerank=&filter=&n=&p= --read--> POST /search --> hits
//
// The address is the state: a link shows the same search, and the back button the one before.

import { command, el, problem } from "../dom.js";
import { counted, duration } from "../text.js";
import { filterBuilder } from "./search_filter.js";
import { hitList } from "./search_hits.js";

const MODES = { hybrid: "Hybrid", dense: "Dense", sparse: "Sparse" };
const MODE_HELP = { hybrid: "Meaning and words", dense: "By meaning: vectors", sparse: "By words: BM25" };
const RERANKS = { "": "As the flow does", none: "None", late_interaction: "Late interaction", cross_encoder: "Cross-encoder" };
const SIZES = [10, 20, 50];
const MOST = 1000;  // of limit and offset, as the API has it

export default {
  title: "Search",
  mount(root, { api, params, navigate, onParams }) {
    let current = read(params);
    let request = null;
    let endpoints = {};

    const box = el("input", {
      type: "search", class: "search-box grow", "aria-label": "Query", placeholder: "Search", autocomplete: "off",
      spellcheck: false, "aria-keyshortcuts": "/",
    });
    const modes = el("fieldset", { class: "search-modes" }, el("legend", {}, "Mode"),
      ...Object.entries(MODES).map(([value, label]) => el("label", { title: MODE_HELP[value] },
        el("input", { type: "radio", name: "mode", value }), el("span", {}, label))));
    const rerank = el("select", { "aria-label": "Rerank" },
      ...Object.entries(RERANKS).map(([value, label]) => el("option", { value }, label)));
    const rerankRow = el("label", { hidden: true }, el("span", { class: "muted" }, "Rerank"), rerank);
    const size = el("select", { "aria-label": "Hits a page" }, ...SIZES.map(n => el("option", { value: n }, String(n))));
    const filter = filterBuilder(() => submit());
    const form = el("form", { role: "search", class: "panel search-form" },
      el("div", { class: "row" }, box, el("button", { class: "primary" }, "Search")),
      el("div", { class: "row search-choices" }, modes, rerankRow,
        el("label", {}, el("span", { class: "muted" }, "Hits"), size), filter.toggle),
      filter.panel);
    const line = el("p", { class: "muted small search-line", role: "status" });
    const notes = el("div", {});
    const hits = el("div", { class: "search-results" });
    root.append(form, line, notes, hits);

    form.addEventListener("submit", event => { event.preventDefault(); submit(); });
    for (const choice of [modes, rerank, size]) choice.addEventListener("change", () => { if (box.value.trim()) submit(); });
    const keys = event => {
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      box.focus();
      box.select();
    };
    document.addEventListener("keydown", keys);

    function submit(page = 1) {
      let condition;
      try {
        condition = filter.value();
      } catch (error) {
        filter.complain(error.message);
        return;
      }
      const wanted = {
        q: box.value, mode: modes.querySelector("input:checked").value, rerank: rerank.value,
        filter: condition ? JSON.stringify(condition) : "", n: Number(size.value), p: page,
      };
      navigate(write(wanted));
      show(wanted);
    }

    /** Show the search that the address asks for. */
    function show(wanted) {
      current = wanted;
      box.value = wanted.q;
      modes.querySelector(`input[value=${wanted.mode}]`).checked = true;
      rerank.value = wanted.rerank;
      size.value = String(wanted.n);
      filter.set(wanted.filter);
      run();
    }

    async function run() {
      request?.abort();
      const mine = request = new AbortController();
      notes.replaceChildren();
      if (!current.q.trim()) {
        hits.replaceChildren();
        await greet(mine);
        return;
      }
      line.textContent = "Searching …";
      hits.setAttribute("aria-busy", "true");
      try {
        const answer = await api.post("search", body(current), { signal: mine.signal });
        const [result] = answer.results;
        notes.replaceChildren(...result.notes.map(note => el("p", { class: "note" }, note)));
        const first = (current.p - 1) * current.n;
        line.textContent = result.hits.length
          ? `${first ? `Hits ${first + 1} to ${first + result.hits.length}` : counted(result.hits.length, "hit")} in ${duration(answer.took_ms)}`
          : `Nothing found in ${duration(answer.took_ms)}`;
        if (result.hits.length) {
          hits.replaceChildren(
            hitList(result.hits, { api, query: current.q, first, endpoints, onTag: addCondition }),
            pages(result.hits.length));
          filter.know(result.hits.map(hit => hit.tags));
        } else {
          const explanation = await nothing(mine);
          if (!mine.signal.aborted) hits.replaceChildren(explanation);
        }
      } catch (error) {
        if (error.name === "AbortError") return;
        line.textContent = "";
        hits.replaceChildren(problem(error, run));
      } finally {
        if (request === mine) hits.removeAttribute("aria-busy");
      }
    }

    function addCondition(field, value) {
      filter.add(field, value);
      submit();
    }

    function pages(count) {
      const turn = (label, to, possible) => el("button", {
        type: "button", disabled: !possible, on: { click: () => { submit(to); scrollTo(0, 0); } },
      }, label);
      const more = count === current.n && current.p * current.n <= MOST;
      if (current.p === 1 && !more) return el("p", { class: "muted small search-end" }, "These are all hits.");
      return el("nav", { class: "row search-pages", "aria-label": "Pages" },
        turn("Previous", current.p - 1, current.p > 1),
        el("span", { class: "muted" }, `Page ${current.p}`),
        turn("Next", current.p + 1, more));
    }

    /** What there is to search, before a query was typed. */
    async function greet(mine) {
      try {
        const { documents, passages } = await api.post("count", {}, { signal: mine.signal });
        if (mine.signal.aborted) return;
        line.textContent = documents ? `${counted(documents, "document")}, ${counted(passages, "passage")}` : "";
        if (!documents) hits.replaceChildren(empty());
      } catch (error) {
        if (error.name === "AbortError") return;
        line.textContent = "";
        hits.replaceChildren(error.status === 404 ? unable() : problem(error, run));
      }
    }

    async function nothing(mine) {
      try {
        const { documents } = await api.post("count", {}, { signal: mine.signal });
        if (!documents) return empty();
      } catch (error) {
        if (error.name === "AbortError") throw error;  // otherwise the hint below does without the number
      }
      return el("div", { class: "panel" }, el("h2", {}, "No hits"),
        el("p", { class: "muted" }, current.filter
          ? "No document that meets all conditions of the filter answers this query."
          : current.mode === "sparse"
            ? "No document has these words. “Dense” and “Hybrid” find what means the same in other words."
            : "Nothing in the index answers this query."),
        current.filter ? el("button", { type: "button", on: { click: () => { filter.set(""); submit(); } } }, "Search without the filter") : null);
    }

    // What the flow can do decides which choices there are; a search does not wait for it.
    api.get("status").then(status => {
      Object.assign(endpoints, status.endpoints);
      const ranker = status.executors.find(each => (status.endpoints["/rank"] ?? []).includes(each.name));
      rerankRow.hidden = !ranker;
      const about = ranker?.status ?? {};
      for (const option of rerank.options) {
        if (option.value === "cross_encoder") option.hidden = option.disabled = !about.cross_encoder;
        if (option.value === "") option.textContent = `As the flow does (${RERANKS[about.rerank?.method ?? about.rerank] ?? "none"})`.toLowerCase().replace("as", "As");
      }
      document.title = `Search · ${status.name}`;
      box.placeholder = `Search ${status.name}`;
    }, () => {});  // the search itself says it when the gateway is away

    onParams(changed => show(read(changed)));
    show(current);
    if (matchMedia("(pointer: fine)").matches) box.focus();
    return () => {
      request?.abort();
      document.removeEventListener("keydown", keys);
    };
  },
};

function read(params) {
  const number = (name, fallback) => Math.max(1, Math.trunc(Number(params.get(name))) || fallback);
  const n = number("n", SIZES[0]);
  return {
    q: params.get("q") ?? "",
    mode: params.get("mode") in MODES ? params.get("mode") : "hybrid",
    rerank: params.get("rerank") in RERANKS ? params.get("rerank") : "",
    filter: params.get("filter") ?? "",
    n: SIZES.includes(n) ? n : SIZES[0],
    p: number("p", 1),
  };
}

function write({ q, mode, rerank, filter, n, p }) {
  const params = new URLSearchParams();
  if (q) params.set("q", q);
  if (mode !== "hybrid") params.set("mode", mode);
  if (rerank) params.set("rerank", rerank);
  if (filter) params.set("filter", filter);
  if (n !== SIZES[0]) params.set("n", n);
  if (p > 1) params.set("p", p);
  return params;
}

function body({ q, mode, rerank, filter, n, p }) {
  const wanted = { query: q, mode, limit: n, offset: (p - 1) * n, explain: true };
  if (rerank) wanted.rerank = rerank;
  if (filter) {
    try {
      wanted.filter = JSON.parse(filter);
    } catch {
      throw new Error("The filter in the address is not JSON.");
    }
  }
  return wanted;
}

function empty() {
  return el("div", { class: "panel" },
    el("h2", {}, "There are no documents yet"),
    el("p", {}, "Index a folder of texts, or JSON lines, from a terminal:"),
    command(`flowdex index docs/ --url ${location.origin}`),
    el("p", {}, "or over HTTP:"),
    command(`curl ${location.origin}/index -H 'content-type: application/json' -d '{"documents": [{"id": "apollo", "text": "Apollo 11 landed on the Moon.", "tags": {"year": 1969}}]}'`),
    el("p", { class: "muted" }, "Then search for it here."));
}

function unable() {
  return el("div", { class: "panel" },
    el("h2", {}, "This flow does not search"),
    el("p", { class: "muted" }, "It has no indexer. What it can do is in the ", el("a", { href: "docs" }, "API’s page"),
      ", and the executors that it has in the view ", el("a", { href: "#/flow" }, "Flow"), "."));
}
