// The tokens of a hit: which token of the query met which token of the passage (late interaction).
//
//   POST /interaction {query, text} --> cosines --> the passage, coloured; a heat map, a row for each token of the query

import { el, problem } from "../dom.js";
import { counted, spanned } from "../text.js";

/** A heat map that loads itself. */
export function heatMap(api, query, text) {
  const place = el("div", { class: "search-tokens" }, el("p", { class: "muted" }, "Comparing tokens …"));
  const load = () => api.post("interaction", { query, text }).then(
    answer => place.replaceChildren(...drawn(answer, text)),
    error => place.replaceChildren(problem(error, load)));
  load();
  return place;
}

function drawn({ model, query, text: passage, cosines }, text) {
  if (!query.texts.length || !passage.texts.length) {
    return [el("p", { class: "muted" }, "There are no tokens to compare.")];
  }
  const top = Math.max(0.05, ...cosines.map(row => Math.max(...row)));
  // Squared: vectors in context all have something in common, and only what stands out of that should meet the eye.
  const strength = value => `${Math.round(100 * (Math.max(0, value) / top) ** 2)}%`;
  const bestOf = cosines.map(row => row.indexOf(Math.max(...row)));
  const anyBest = passage.texts.map((_, column) => Math.max(...cosines.map(row => row[column])));
  let chosen = null;

  const words = [];
  const running = el("p", { class: "search-text search-running" }, ...spanned(text, passage.spans, (part, index) => {
    words[index] = el("span", { class: "search-word", dataset: { column: index } }, part);
    return words[index];
  }));
  const said = el("p", { class: "small number search-said", role: "status" });
  const buttons = query.texts.map((token, row) => el("button", {
    type: "button", class: "search-token", "aria-pressed": "false",
    title: `Weight ${(100 * query.weights[row]).toFixed(0)} %`, on: { click: () => choose(chosen === row ? null : row) },
  }, token));
  const grid = el("div", {
    class: "search-grid", role: "img",
    "aria-label": `Heat map of ${counted(query.texts.length, "query token")} and ${counted(passage.texts.length, "passage token")}`,
    style: { "--columns": passage.texts.length },
  });
  grid.append(el("span", { class: "search-corner" }), ...passage.texts.map((token, column) =>
    el("span", { class: "search-head", dataset: { column } }, el("span", {}, token))));
  cosines.forEach((values, row) => {
    const best = bestOf[row];
    grid.append(
      el("span", { class: "search-side" }, buttons[row],
        el("span", { class: "muted small number" }, `${passage.texts[best]} ${values[best].toFixed(2)}`)),
      ...values.map((value, column) => el("span", {
        class: column === best ? "search-cell search-best" : "search-cell",
        dataset: { row, column }, style: { "--heat": strength(value) },
      })));
  });

  function choose(row) {
    chosen = row;
    buttons.forEach((button, each) => button.setAttribute("aria-pressed", String(each === row)));
    const values = row === null ? anyBest : cosines[row];
    words.forEach((word, column) => {
      word?.style.setProperty("--heat", strength(values[column]));
      word?.classList.toggle("search-best", row !== null && column === bestOf[row]);
    });
    rest();
  }

  function rest() {
    said.textContent = chosen === null
      ? "The passage shows how near each token is to any of the query’s; choose one of those to see where it met."
      : `“${query.texts[chosen]}” is nearest to “${passage.texts[bestOf[chosen]]}”: ${cosines[chosen][bestOf[chosen]].toFixed(3)}`;
  }

  function point(event) {
    const { row, column } = event.target.dataset ?? {};
    for (const each of grid.querySelectorAll(".search-pointed")) each.classList.remove("search-pointed");
    for (const word of words) word?.classList.remove("search-pointed");
    if (column === undefined) {
      rest();
      return;
    }
    const with_ = row ?? chosen ?? cosines.reduce((best, values, each) => (values[column] > cosines[best][column] ? each : best), 0);
    words[column]?.classList.add("search-pointed");
    grid.querySelector(`.search-head[data-column="${column}"]`).classList.add("search-pointed");
    said.textContent = `“${query.texts[with_]}” × “${passage.texts[column]}”: ${cosines[with_][column].toFixed(3)}`;
  }
  for (const area of [grid, running]) {
    area.addEventListener("pointerover", point);
    area.addEventListener("pointerleave", point);
  }
  choose(null);

  const dropped = passage.dropped || query.dropped;
  return [
    running,
    said,
    el("div", { class: "scroll", tabIndex: 0, "aria-label": "Heat map, scrolls sideways" }, grid),
    el("p", { class: "muted small search-legend" },
      "Cosine 0", el("span", { class: "search-scale", "aria-hidden": "true" }), `${top.toFixed(2)}, by ${model}. `,
      "Each row’s outlined cell is its best match.",
      dropped ? ` ${counted(dropped, "token")} beyond the encoder’s limit ${dropped === 1 ? "is" : "are"} left out.` : ""),
  ];
}
