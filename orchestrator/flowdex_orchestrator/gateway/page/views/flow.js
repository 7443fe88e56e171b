// Flow: the executors as they are now.

import { el, problem } from "../dom.js";

export default {
  title: "Flow",
  mount(root, { api }) {
    api.get("status").then(
      status => root.replaceChildren(...status.executors.map(each =>
        el("article", { class: "panel" }, el("h2", {}, each.name), `${each.replicas.length} replicas`))),
      error => root.replaceChildren(problem(error)));
    return () => {};
  },
};
