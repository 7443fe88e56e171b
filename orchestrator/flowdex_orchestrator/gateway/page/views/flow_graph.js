// The flow as a graph: boxes in the order in which requests visit them, lines for `needs`.

import { el, svg } from "../dom.js";

/** `{ node, update(status, said), close() }`; `said(name)` is the text under a box, `onChoose(name)` told of a click. */
export function flowGraph(names, needs, onChoose) {
  const levels = levelsOf(names, needs);
  const lines = svg("svg", { class: "flow-lines", "aria-hidden": "true" });
  const boxes = new Map();
  const columns = [];
  for (const name of ["gateway", ...names]) {
    const level = levels.get(name);
    columns[level] ??= el("div", { class: "flow-column" });
    const dots = el("span", { class: "flow-dots" });
    const said = el("span", { class: "muted small number" });
    const box = el("button", { type: "button", class: "flow-box", on: { click: () => onChoose(name) } },
      el("strong", {}, name), dots, said);
    boxes.set(name, { box, dots, said });
    columns[level].append(box);
  }
  const node = el("div", { class: "flow-graph panel", role: "group", "aria-label": "Graph of the flow" }, lines, ...columns);

  function draw() {
    const frame = node.getBoundingClientRect();
    const [left, top] = [frame.left + node.clientLeft - node.scrollLeft, frame.top + node.clientTop];
    lines.style.width = `${node.scrollWidth}px`;  // wide flows scroll sideways
    const down = getComputedStyle(node).flexDirection === "column";  // on a narrow screen, columns are rows
    const paths = names.flatMap(name => sources(name, needs).map(source => {
      const from = boxes.get(source)?.box.getBoundingClientRect();
      const to = boxes.get(name).box.getBoundingClientRect();
      if (!from) return null;
      const [x1, y1] = down ? [from.left + from.width / 2, from.bottom] : [from.right, from.top + from.height / 2];
      const [x2, y2] = down ? [to.left + to.width / 2, to.top] : [to.left, to.top + to.height / 2];
      const [ax, ay, bx, by] = [x1 - left, y1 - top, x2 - left, y2 - top];
      const [mx, my] = [(ax + bx) / 2, (ay + by) / 2];
      return svg("path", { d: down ? `M${ax} ${ay}C${ax} ${my} ${bx} ${my} ${bx} ${by}` : `M${ax} ${ay}C${mx} ${ay} ${mx} ${by} ${bx} ${by}` });
    }));
    lines.replaceChildren(...paths.filter(Boolean));
  }
  const observer = new ResizeObserver(draw);
  observer.observe(node);

  return {
    node,
    update(status, said) {
      for (const [name, box] of boxes) {
        box.said.textContent = said(name);
        if (name === "gateway") {
          box.dots.textContent = status.ready ? "ready" : "not ready";
          box.dots.className = status.ready ? "flow-good small" : "flow-bad small";
          continue;
        }
        const { replicas } = status.executors.find(each => each.name === name);
        const ready = replicas.filter(each => each.ready).length;
        const label = `${ready} of ${replicas.length} ready`;
        box.dots.title = label;
        box.dots.replaceChildren(...replicas.slice(0, 12).map(each => el("span", { class: each.ready ? "flow-dot" : "flow-dot flow-off" })),
          el("span", { class: "small" }, ` ${label}`));
      }
    },
    close: () => observer.disconnect(),
  };
}

function sources(name, needs) {
  const found = needs.get(name) ?? [];
  return found.length ? found : ["gateway"];
}

/** How many steps from the gateway: that of the farthest one needed, and one more. */
function levelsOf(names, needs) {
  const levels = new Map([["gateway", 0]]);
  const level = name => {
    if (!levels.has(name)) {
      levels.set(name, 1);  // so that a circle, which no flow has, would end
      levels.set(name, 1 + Math.max(...sources(name, needs).map(source => (needs.has(source) || source === "gateway" ? level(source) : 0))));
    }
    return levels.get(name);
  };
  names.forEach(level);
  return levels;
}
