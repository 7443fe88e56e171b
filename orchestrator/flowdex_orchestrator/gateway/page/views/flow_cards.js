// One card an executor: figures of the last minute, its replicas, what it says of itself, and what may be done to it.

import { el, problem, svg } from "../dom.js";
import { counted, duration, short } from "../text.js";

const WIDTH = 160;
const HEIGHT = 36;

/** `{ node, update(executor, figures, admin) }` */
export function executorCard(name, act) {
  const uses = el("span", { class: "muted small flow-uses" });
  const plot = svg("svg", { class: "flow-spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": "Requests a second in the last minute" });
  const facts = el("dl", { class: "flow-facts" });
  const replicas = el("tbody", {});
  const said = el("dl", { class: "flow-said" });
  const more = el("details", {}, el("summary", {}, "What it says of itself"), said);
  const count = el("input", { type: "number", min: 1, max: 999, value: 1, "aria-label": `Replicas of ${name}`, class: "flow-count" });
  const scale = el("button", { type: "button" }, "Scale");
  const restart = el("button", { type: "button" }, "Restart");
  const outcome = el("div", { role: "status" });
  const controls = el("div", { class: "row flow-controls" }, el("label", {}, el("span", { class: "muted" }, "Replicas"), count), scale, restart);
  let touched = false;
  let busy = false;
  count.addEventListener("input", () => { touched = true; });

  const run = async (button, path, body, done) => {
    busy = true;
    scale.disabled = restart.disabled = true;
    outcome.replaceChildren(el("p", { class: "muted" }, `${button.textContent} … this takes until the new replicas serve.`));
    try {
      outcome.replaceChildren(el("p", { class: "flow-good" }, done(await act(path, body))));
      touched = false;
    } catch (error) {
      outcome.replaceChildren(problem(error));
    } finally {
      busy = false;
      scale.disabled = restart.disabled = false;
    }
  };
  scale.addEventListener("click", () => run(scale, "admin/scale", { replicas: { [name]: Number(count.value) } },
    ({ before }) => `It had ${counted(before[name], "replica")} before.`));
  restart.addEventListener("click", () => run(restart, "admin/restart", { executor: name },
    ({ replicas: number }) => `${counted(number, "replica")} replaced.`));

  const node = el("article", { class: "panel flow-card", id: `flow-${name}`, tabIndex: -1, "aria-label": `Executor ${name}` },
    el("header", { class: "row" }, el("h2", {}, name), uses, plot),
    facts,
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ...["Replica", "State", "In flight"].map(each => el("th", {}, each)))), replicas)),
    more, controls, outcome);

  return {
    node,
    update(executor, figures, admin) {
      uses.textContent = executor.uses;
      plot.replaceChildren(...spark(figures.rates));
      const about = executor.status ?? {};
      facts.replaceChildren(...fact("Calls/s", figures.rate === null ? "–" : short(figures.rate)),
        ...fact("p50", duration(figures.p50)), ...fact("p95", duration(figures.p95)), ...fact("p99", duration(figures.p99)),
        ...fact("Waiting", duration(executor.queue_ms)),
        ...(typeof about.queue === "number" ? fact("Queue", short(about.queue)) : []),
        ...fact("In flight", short(executor.replicas.reduce((sum, each) => sum + each.in_flight, 0))),
        ...fact("Failed", short(figures.failed), figures.failed > 0));
      facts.title = figures.recent ? "Of the last minute" : "Since the gateway started";
      replicas.replaceChildren(...executor.replicas.map(each => el("tr", {},
        el("td", {}, el("code", {}, each.address)),
        el("td", { class: each.ready ? "flow-good" : "flow-bad" }, each.ready ? "ready" : each.failure || "not ready"),
        el("td", { class: "number" }, each.in_flight))));
      const entries = Object.entries(about);
      more.hidden = !entries.length;
      said.replaceChildren(...entries.sort(([a], [b]) => a.localeCompare(b)).flatMap(([key, value]) =>
        [el("dt", {}, key), el("dd", {}, shown(value))]));
      controls.hidden = !admin;
      if (!touched && !busy && document.activeElement !== count) count.value = executor.replicas.length;
    },
  };
}

function fact(label, value, bad = false) {
  return [el("div", {}, el("dt", {}, label), el("dd", { class: bad ? "number flow-bad" : "number" }, value))];
}

function shown(value) {
  if (value === null) return "–";
  if (typeof value === "number") return short(value, 4);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Rates as a line over an area; a flat one at the bottom where nothing happened. */
function spark(rates) {
  if (rates.length < 2) return [];
  const top = Math.max(1, ...rates);
  const points = rates.map((rate, index) =>
    `${(WIDTH * index / (rates.length - 1)).toFixed(1)},${(HEIGHT - 2 - (HEIGHT - 4) * rate / top).toFixed(1)}`);
  return [
    svg("polygon", { points: `0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` }),
    svg("polyline", { points: points.join(" ") }),
  ];
}
