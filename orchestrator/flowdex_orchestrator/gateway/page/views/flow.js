// Flow: the executors as they are now, and what may be done to them.
//
//   every two seconds, while the page is visible:  GET /status --> history --> graph, a card an executor, endpoints
//   with the admin key:                            POST /admin/scale, /admin/restart

import { el, problem } from "../dom.js";
import { duration, short } from "../text.js";
import { executorCard } from "./flow_cards.js";
import { flowGraph } from "./flow_graph.js";
import { history } from "./flow_history.js";

const PAUSE = 2000;
let key = "";  // in memory alone: neither the address nor the browser's storage ever has it

export default {
  title: "Flow",
  mount(root, { api }) {
    const past = history();
    const request = new AbortController();
    let timer = null;
    let asking = false;
    let layout = "";
    let graph = null;
    let cards = new Map();
    let latest = null;

    const heading = el("h1", {}, "Flow");
    const line = el("span", { class: "muted small number", role: "status" });
    const away = el("div", {});
    const drawing = el("div", {});
    const [endpoints, idle] = [endpointTable(), endpointTable()];
    const others = el("details", {}, el("summary", { class: "flow-idle" }, "Endpoints that nobody has asked for yet"), idle.node);
    const list = el("div", { class: "flow-cards" });
    const admin = adminPanel(() => { if (latest) show(latest); });
    root.append(el("div", { class: "row flow-top" }, heading, line), away, drawing,
      el("div", { class: "row" }, el("h2", { class: "grow" }, "Executors"), admin.toggle),
      el("p", { class: "muted small" }, "Figures are of the last minute; where nothing ran in it, percentiles and failures are those since the gateway started."),
      admin.panel, list,
      el("h2", {}, "Endpoints"), el("div", { class: "panel scroll" }, endpoints.node, others));

    const act = (path, body) => api.post(path, body, { headers: { authorization: `Bearer ${key}` } });

    async function ask() {
      clearTimeout(timer);
      if (asking || document.hidden || request.signal.aborted) return;
      asking = true;
      try {
        const status = await api.get("status", { signal: request.signal });
        past.add(status, performance.now());
        away.replaceChildren();
        root.classList.remove("flow-stale");
        show(status);
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!error.status && !(error.title)) throw error;
        root.classList.toggle("flow-stale", latest !== null);
        line.textContent = latest ? "as it was" : "";
        away.replaceChildren(problem(Object.assign(error, {
          message: `${error.message} This page asks again every ${PAUSE / 1000} seconds.`,
        })));
      } finally {
        asking = false;
      }
      timer = setTimeout(ask, PAUSE);
    }

    function show(status) {
      latest = status;
      const names = status.executors.map(each => each.name);
      const needs = new Map(status.executors.map(each => [each.name, each.needs]));
      if (layout !== JSON.stringify([...needs])) {
        layout = JSON.stringify([...needs]);
        graph?.close();
        graph = flowGraph(names, needs, name => {
          const card = cards.get(name)?.node;
          (card ?? root).scrollIntoView({ block: "start" });
          card?.focus({ preventScroll: true });
        });
        drawing.replaceChildren(graph.node);
        cards = new Map(names.map(name => [name, executorCard(name, act)]));
        list.replaceChildren(...[...cards.values()].map(card => card.node));
      }
      heading.textContent = status.name;
      line.textContent = `${status.ready ? "ready" : "not ready"} · up ${upTime(status.uptime_s)} · flowdex ${status.version} · ${short(status.in_flight)} in flight`;
      const figures = new Map(names.map(name => [name, past.figures(each => each.executors.find(one => one.name === name)?.calls)]));
      const all = past.figures(each => sum(Object.values(each.requests), each.bounds_ms.length + 1));
      graph.update(status, name => {
        const { rate } = name === "gateway" ? all : figures.get(name);
        return rate === null ? " " : `${short(rate)} /s`;
      });
      for (const executor of status.executors) cards.get(executor.name).update(executor, figures.get(executor.name), key !== "");
      const known = [...new Set([...Object.keys(status.endpoints), ...Object.keys(status.requests)])].filter(Boolean)
        .map(name => ({ name, found: past.figures(each => each.requests[name]), visits: status.endpoints[name] ?? [] }))
        .sort((a, b) => b.found.count - a.found.count || a.name.localeCompare(b.name));
      endpoints.update(known.filter(each => each.found.count));
      idle.update(known.filter(each => !each.found.count));
      others.hidden = known.every(each => each.found.count);
    }

    const seen = () => { if (!document.hidden) ask(); };
    document.addEventListener("visibilitychange", seen);
    ask();
    return () => {
      request.abort();
      clearTimeout(timer);
      graph?.close();
      document.removeEventListener("visibilitychange", seen);
    };
  },
};

/** `{ node, update(rows) }`: what each endpoint visits and what its requests took. */
function endpointTable() {
  const body = el("tbody", {});
  const columns = ["Endpoint", "Visits", "Requests", "a second", "p50", "p95", "p99", "Failed"];
  const visits = name => (name === "Visits" ? { class: "flow-visits" } : {});
  const node = el("table", { class: "flow-endpoints" },
    el("thead", {}, el("tr", {}, ...columns.map(name => el("th", visits(name), name)))), body);
  return {
    node,
    update(rows) {
      node.hidden = !rows.length;
      body.replaceChildren(...rows.map(({ name, found, visits }) => el("tr", {},
        el("td", {}, el("code", {}, name)),
        el("td", { class: "small flow-visits" }, visits.join(" → ") || "gateway"),
        ...[short(found.count), found.rate === null ? "–" : short(found.rate), duration(found.p50), duration(found.p95), duration(found.p99)]
          .map(value => el("td", { class: "number" }, value)),
        el("td", { class: found.failed ? "number flow-bad" : "number" }, short(found.failed)))));
    },
  };
}

/** Where the admin key is typed: `{ toggle, panel }`. */
function adminPanel(onChange) {
  const input = el("input", { type: "password", autocomplete: "off", class: "grow", "aria-label": "Admin key", placeholder: "the runner’s token" });
  const state = el("p", { class: "muted small" });
  const form = el("form", { class: "row" }, input, el("button", { class: "primary" }, "Use it"),
    el("button", { type: "button", on: { click: () => { input.value = ""; set(""); } } }, "Forget it"));
  const panel = el("div", { class: "panel", hidden: true, id: "flow-admin" },
    el("p", {}, "Executors can be scaled and restarted with the token that ", el("code", {}, "flowdex up"), " leaves in ",
      el("code", {}, ".flowdex/run/flow/token"), ", for you alone to read. This page keeps it until it is closed, and nowhere else."),
    form, state);
  const toggle = el("button", { type: "button", "aria-expanded": "false", "aria-controls": panel.id }, "Admin key");
  toggle.addEventListener("click", () => {
    panel.hidden = !panel.hidden;
    toggle.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) input.focus();
  });
  form.addEventListener("submit", event => { event.preventDefault(); set(input.value.trim()); });
  function set(given) {
    key = given;
    state.textContent = key ? "The buttons are in each executor’s card." : "";
    toggle.textContent = key ? "Admin key (given)" : "Admin key";
    onChange();
  }
  if (key) toggle.textContent = "Admin key (given)";
  return { toggle, panel };
}

function sum(all, buckets) {
  const total = { count: 0, failed: 0, buckets: new Array(buckets).fill(0) };
  for (const each of all) {
    total.count += each.count;
    total.failed += each.failed;
    each.buckets.forEach((count, index) => { total.buckets[index] += count; });
  }
  return total;
}

function upTime(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}
