// The hits of a search: passages with the query's words marked, tags, and what each stage of the search thought of them.

import { el, problem } from "../dom.js";
import { short, spanned } from "../text.js";
import { heatMap } from "./search_tokens.js";

const STAGES = { dense: "Dense", sparse: "Sparse", fusion: "Fusion", rerank: "Rerank" };
const STAGE_HELP = {
  dense: "Cosine of the vectors", sparse: "BM25 of the words", fusion: "Both rankings as one",
  rerank: "A second look at the best hits",
};
const MOST_TAGS = 8;

/**
 * An ordered list of hits.
 *
 * `first`: how many hits were on the pages before; `onTag(field, value)`: a tag was chosen as a condition.
 */
export function hitList(hits, context) {
  const stages = Object.keys(STAGES).filter(stage => hits.some(hit => hit.explain?.[stage]));
  const best = Object.fromEntries(stages.map(stage => [stage, Math.max(...hits.map(hit => hit.explain?.[stage]?.score ?? 0))]));
  return el("ol", { class: "search-hits", start: context.first + 1 },
    ...hits.map((hit, index) => el("li", {}, card(hit, context.first + index + 1, stages, best, context))));
}

function card(hit, rank, stages, best, context) {
  const title = titleOf(hit);
  const more = el("div", { class: "search-more" });
  const opener = toggles(more);
  const others = hit.passages.filter(passage => passage.text !== hit.text || String(passage.location) !== String(hit.location));
  return el("article", { class: "panel search-hit", "aria-label": `Hit ${rank}: ${title}` },
    el("header", {},
      el("span", { class: "search-rank number muted" }, rank),
      el("h2", {}, title),
      el("span", { class: "number search-score", title: "Score" }, short(hit.score))),
    title === hit.id ? null : el("p", { class: "muted small search-id" }, hit.id),
    el("div", { class: "search-columns" },
      el("div", {}, passage(hit.text, hit.highlights), tags(hit.tags, context.onTag)),
      stages.length ? why(hit, stages, best) : null),
    el("div", { class: "row search-actions" },
      opener("Tokens", () => heatMap(context.api, context.query, hit.text), !("/encode" in context.endpoints) && Object.keys(context.endpoints).length > 0),
      opener(others.length === 1 ? "1 more passage" : `${others.length} more passages`, () => passages(others), !others.length),
      opener("Document", () => wholeDocument(context.api, hit), !("/get" in context.endpoints) && Object.keys(context.endpoints).length > 0)),
    more);
}

function titleOf(hit) {
  for (const name of ["title", "name"]) {
    if (typeof hit.tags[name] === "string" && hit.tags[name].trim()) return hit.tags[name];
  }
  return hit.id;
}

/** Buttons of which one at a time shows something below; what it shows is made when it is first wanted. */
function toggles(place) {
  const buttons = [];
  return (label, make, absent) => {
    if (absent) return null;
    let content = null;
    const button = el("button", { type: "button", class: "quiet", "aria-expanded": "false" }, label);
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-expanded") === "true";
      for (const each of buttons) each.setAttribute("aria-expanded", "false");
      if (shown) {
        place.replaceChildren();
        return;
      }
      button.setAttribute("aria-expanded", "true");
      content ??= make();
      place.replaceChildren(content);
    });
    buttons.push(button);
    return button;
  };
}

/** A passage with what matched marked; a long one is cut until asked for. */
function passage(text, highlights = []) {
  const shown = el("p", { class: "search-text" }, ...spanned(text, highlights, part => el("mark", {}, part)));
  const box = el("div", { class: "search-passage" }, shown);
  if (text.length > 600 || text.split("\n").length > 8) {
    shown.classList.add("search-cut");
    const button = el("button", { type: "button", class: "quiet small" }, "Show all of it");
    button.addEventListener("click", () => {
      const cut = shown.classList.toggle("search-cut");
      button.textContent = cut ? "Show all of it" : "Show less";
    });
    box.append(button);
  }
  return box;
}

/** Each stage's rank and score, as a bar that is full for the best score on this page. */
function why(hit, stages, best) {
  return el("dl", { class: "search-why", "aria-label": "Why it is here" },
    ...stages.flatMap(stage => {
      const found = hit.explain?.[stage];
      const share = found && best[stage] > 0 ? Math.max(0, found.score / best[stage]) : 0;
      const label = stage === "fusion" && found?.method ? `${STAGES[stage]} (${found.method})` : STAGES[stage];
      return [
        el("dt", { title: STAGE_HELP[stage] }, label),
        el("dd", { class: "number", dataset: { stage } },
          el("span", { class: "search-place" }, found ? `#${found.rank}` : "–"),
          el("span", { class: "search-bar" }, el("span", { style: { width: `${(100 * share).toFixed(1)}%` } })),
          el("span", { class: "search-value", title: found ? null : "Not found at this stage" }, found ? short(found.score) : "–")),
      ];
    }));
}

function tags(found, onTag) {
  const flat = Object.entries(found ?? {}).filter(([name, value]) => name !== "title" && value !== null && value !== "");
  if (!flat.length) return null;
  const shown = flat.map(([name, value]) => {
    const simple = typeof value !== "object";
    const text = simple ? String(value) : JSON.stringify(value);
    const label = [el("span", { class: "muted" }, `${name} `), text.length > 60 ? `${text.slice(0, 57)}…` : text];
    return simple
      ? el("button", { type: "button", class: "tag", title: `Only hits whose ${name} is ${text}`, on: { click: () => onTag(name, value) } }, ...label)
      : el("span", { class: "tag", title: text }, ...label);
  });
  const list = el("div", { class: "row search-tags" }, ...shown.slice(0, MOST_TAGS));
  if (shown.length > MOST_TAGS) {
    const button = el("button", { type: "button", class: "quiet small" }, `${shown.length - MOST_TAGS} more`);
    button.addEventListener("click", () => button.replaceWith(...shown.slice(MOST_TAGS)));
    list.append(button);
  }
  return list;
}

function passages(others) {
  return el("ul", { class: "search-others" }, ...others.map(each => el("li", {},
    passage(each.text),
    el("span", { class: "muted small number" },
      each.location ? `characters ${each.location[0]}–${each.location[1]}, ` : "", `score ${short(each.score)}`))));
}

/** The document as it was sent, with the passage marked in it. */
function wholeDocument(api, hit) {
  const place = el("div", {}, el("p", { class: "muted" }, "Reading …"));
  const id = hit.parent_id ?? hit.id;
  const load = () => api.get(`documents/${encodeURIComponent(id)}`).then(document => {
    const text = document.text ?? "";
    const fields = Object.entries(document.fields ?? {});
    const marked = text && hit.location && !fields.length ? [hit.location] : [];
    place.replaceChildren(el("div", { class: "search-document", tabIndex: 0, "aria-label": "Document" },
      ...(fields.length
        ? fields.flatMap(([name, value]) => [el("h3", {}, name), el("p", { class: "search-text" }, value)])
        : [el("p", { class: "search-text" }, ...spanned(text, marked, part => el("span", { class: "search-here" }, part)))])));
    place.querySelector(".search-here")?.scrollIntoView({ block: "nearest" });
  }, error => place.replaceChildren(problem(error, load)));
  load();
  return place;
}
