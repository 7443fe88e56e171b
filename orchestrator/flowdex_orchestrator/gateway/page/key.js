// The field for the API key, where the gateway asks for one: opened by a call that is refused, or by its button.

import { apiKey, KEY_WANTED } from "./api.js";
import { el } from "./dom.js";

/** The button and the field; `changed` is called when another key was given. */
export function keyForm(changed) {
  const input = el("input", {
    type: "password", id: "key", autocomplete: "off", spellcheck: false, placeholder: "fdx_…", "aria-label": "API key",
  });
  const form = el("form", { class: "key", hidden: true },
    input, el("button", { type: "submit" }, "Use"),
    el("button", { type: "button", class: "quiet", on: { click: () => use("") } }, "Forget"));
  const button = el("button", {
    type: "button", class: "quiet", "aria-expanded": "false", title: "The API key of this tab",
    on: { click: () => open(form.hidden) },
  }, "Key");

  function open(shown) {
    form.hidden = !shown;
    button.setAttribute("aria-expanded", String(shown));
    if (shown) input.focus();
  }

  function use(key) {
    apiKey.set(key.trim());
    input.value = "";
    open(false);
    changed();
  }

  form.addEventListener("submit", event => {
    event.preventDefault();
    use(input.value);
  });
  addEventListener(KEY_WANTED, () => open(true));
  return el("div", { class: "keys" }, form, button);
}
