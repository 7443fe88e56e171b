// The page: which view is shown. The part of the address after # says so: #/search?q=moon&mode=dense
//
//   hashchange --> route --> the view is mounted, or told its new parameters
//
// A view is `export default { title, mount(root, { api, params, onParams, navigate }) { ...; return cleanup; } }`:
//   root      an empty element that is the view's own
//   params    URLSearchParams of the address
//   onParams  given a function, that one is called with new parameters instead of mounting the view again
//   navigate  (params, { replace }) writes parameters to the address, as a new entry of the history or in place
//   cleanup   stops timers and requests
// Its style sheet, if it has one, is page/views/NAME.css and is named in VIEWS.

import { api } from "./api.js";
import { keyForm } from "./key.js";
import { el, problem } from "./dom.js";

const VIEWS = {
  search: { label: "Search", load: () => import("./views/search.js"), style: true },
  flow: { label: "Flow", load: () => import("./views/flow.js"), style: true },
  attention: { label: "Attention", load: () => import("./views/attention.js"), style: true },
  map: { label: "Map", load: () => import("./views/map.js"), style: true },
  compare: { label: "Compare", load: () => import("./views/compare.js"), style: true },
};
const FIRST = "search";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const shown = { name: null, cleanup: null, update: null };
let turn = 0;

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { name: path || FIRST, params: new URLSearchParams(query) };
}

function href(name, params) {
  const query = params ? params.toString() : "";
  return `#/${name}${query ? `?${query}` : ""}`;
}

async function route() {
  if (location.hash === "#main") {  // the link that skips the navigation
    history.replaceState(null, "", href(shown.name ?? FIRST));
    main.focus();
    return;
  }
  const { name, params } = address();
  if (name === shown.name && shown.update) {
    shown.update(params);
    return;
  }
  const mine = ++turn;
  shown.cleanup?.();
  Object.assign(shown, { name, cleanup: null, update: null });
  for (const link of nav.children) {
    if (link.dataset.view === name) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });  // on a narrow screen the links scroll sideways
    } else {
      link.removeAttribute("aria-current");
    }
  }
  const view = VIEWS[name];
  if (!view) {
    main.replaceChildren(problem({ title: "No such view", message: `There is no view named “${name}”.` }));
    return;
  }
  try {
    const [{ default: loaded }] = await Promise.all([view.load(), view.style ? style(name) : null]);
    if (mine !== turn) return;  // another view was chosen meanwhile
    document.title = `${loaded.title} · flowdex`;
    const root = el("section", { class: `view ${name}`, "aria-label": loaded.title });
    main.replaceChildren(root);
    shown.cleanup = loaded.mount(root, {
      api,
      params,
      onParams: update => { shown.update = update; },
      navigate: (changed, { replace = false } = {}) => {
        const to = href(name, changed);
        if (to === location.hash) return;
        if (replace) history.replaceState(null, "", to);
        else history.pushState(null, "", to);
      },
    });
  } catch (error) {
    if (mine !== turn) return;
    main.replaceChildren(problem({ title: "This view could not be shown.", message: error.message },
      () => location.reload()));
  }
}

/** Load a view's style sheet once, before it is shown. */
function style(name) {
  const url = new URL(`views/${name}.css`, import.meta.url).href;
  if ([...document.styleSheets].some(sheet => sheet.href === url)) return null;
  return new Promise((resolve, reject) => {
    const link = el("link", { rel: "stylesheet", href: url });
    link.addEventListener("load", resolve);
    link.addEventListener("error", () => reject(new Error(`${url} could not be loaded`)));
    document.head.append(link);
  });
}

/** Mount the view that is shown again, from its address. */
function again() {
  shown.name = shown.update = null;
  return route();
}

document.querySelector("header.top").append(keyForm(again));
for (const [name, view] of Object.entries(VIEWS)) {
  nav.append(el("a", { href: href(name), dataset: { view: name } }, view.label));
}
nav.addEventListener("keydown", event => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const links = [...nav.children];
  const at = links.indexOf(document.activeElement);
  if (!step || at < 0) return;
  event.preventDefault();
  links[(at + step + links.length) % links.length].focus();
});
addEventListener("hashchange", route);
route();
