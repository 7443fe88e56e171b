// Search: a query, its hits, and why each is where it is.

import { el, problem } from "../dom.js";

export default {
  title: "Search",
  mount(root, { api, params, navigate, onParams }) {
    const box = el("input", { type: "search", name: "q", "aria-label": "Query", class: "grow", placeholder: "Search" });
    const hits = el("div", { "aria-live": "polite" });
    const form = el("form", { class: "row", role: "search" }, box, el("button", { class: "primary" }, "Search"));
    form.addEventListener("submit", event => {
      event.preventDefault();
      navigate(new URLSearchParams({ q: box.value }));
      run(box.value);
    });
    async function run(query) {
      box.value = query;
      if (!query.trim()) return;
      try {
        const { results: [result] } = await api.post("search", { query });
        hits.replaceChildren(...result.hits.map(hit => el("article", { class: "panel" }, el("h2", {}, hit.id), hit.text)));
      } catch (error) {
        hits.replaceChildren(problem(error));
      }
    }
    onParams(changed => run(changed.get("q") ?? ""));
    root.append(form, hits);
    run(params.get("q") ?? "");
    return () => {};
  },
};
