// Attention: where each token of a text looks, or of two texts that are read as one sequence.
//
//   form --POST attention--> {tokens, weights, ...} --attention_draw.js--> head view, model view
//                          --format html--> a file that draws the same by itself

import { el, problem } from "../dom.js";
import { drawAttention } from "./attention_draw.js";

const EXAMPLE = { text: "The cat sat on the mat", pair: "The cat lay on the rug" };

export default {
  title: "Attention",
  mount(root, { api, params, navigate, onParams }) {
    let drawing = null;
    let running = null;
    const text = el("input", { name: "text", required: true, autocomplete: "off" });
    const pair = el("input", { name: "pair", autocomplete: "off", placeholder: "none" });
    const encoder = el("select", { name: "model" });
    const choice = el("label", { class: "attention-encoder", hidden: true }, "Encoder", encoder);
    const save = el("button", { type: "button", disabled: true }, "Save as HTML");
    const said = el("div", {});
    const place = el("div", {});
    const form = el("form", { class: "attention-form panel", on: { submit } },
      el("div", { class: "attention-texts" },
        el("label", {}, "Text", text),
        el("label", {}, "Second text", pair)),
      el("div", { class: "row" }, el("button", { class: "primary" }, "Show"), save, choice));
    const drawn = el("div", { class: "panel", hidden: true }, place);
    root.append(form, said, drawn);

    function submit(event) {
      event.preventDefault();
      const values = { text: text.value, pair: pair.value, model: choice.hidden ? "" : encoder.value };
      const given = new URLSearchParams(Object.entries(values).filter(([, value]) => value.trim()));
      navigate(given);
      run(given);
    }

    function body(given) {
      return Object.fromEntries([["text", given.get("text")], ["text_pair", given.get("pair")], ["model", given.get("model")]]
        .filter(([, value]) => value));
    }

    async function run(asked) {
      const given = asked.get("text") ? asked : new URLSearchParams({ ...Object.fromEntries(asked), ...EXAMPLE });
      text.value = given.get("text");
      pair.value = given.get("pair") ?? "";
      if (given.get("model")) encoder.value = given.get("model");
      running?.abort();
      const mine = running = new AbortController();
      drawn.classList.add("attention-busy");
      save.disabled = true;
      try {
        const found = await api.post("attention", body(given), { signal: mine.signal });
        said.replaceChildren();
        drawn.hidden = false;
        drawing?.destroy();
        drawing = drawAttention(place, found, drawing?.state);
        save.disabled = false;
        save.onclick = () => download(given);
      } catch (error) {
        if (error.name === "AbortError") return;
        drawn.hidden = true;
        said.replaceChildren(problem(error, error.status >= 500 || !error.status ? () => run(given) : null));
      } finally {
        if (mine === running) drawn.classList.remove("attention-busy");
      }
    }

    /** Save what is shown as a file, which the gateway writes. */
    async function download(given) {
      try {
        const page = await api.post("attention", { ...body(given), format: "html" }, { asText: true });
        const url = URL.createObjectURL(new Blob([page], { type: "text/html" }));
        el("a", { href: url, download: "attention.html" }).click();
        setTimeout(() => URL.revokeObjectURL(url), 60_000);
      } catch (error) {
        said.replaceChildren(problem(error));
      }
    }

    async function encoders() {
      const { executors } = await api.get("status");
      const found = executors.filter(each => each.status?.attention).map(each => each.name);
      encoder.replaceChildren(...found.map(name => el("option", { value: name }, name)));
      choice.hidden = found.length < 2;
    }

    onParams(run);
    encoders().catch(() => {}).finally(() => run(params));  // without the choice of an encoder, the first one answers
    return () => {
      running?.abort();
      drawing?.destroy();
    };
  },
};
