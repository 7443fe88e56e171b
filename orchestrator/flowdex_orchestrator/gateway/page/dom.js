// Making elements. Text is always set as text, never parsed as HTML: what documents say cannot become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element.
 *
 * Properties: `class`, `dataset`, `on` (event -> listener) and `style` (CSS property -> value; set through the CSSOM,
 * which the page's content security policy allows); names with a dash and `role` become attributes, the rest properties.
 * Children that are null or false are left out.
 */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children, false);
}

/** The same for SVG, where all else becomes attributes. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children, true);
}

function fill(node, properties, children, attributes) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "class") node.setAttribute("class", value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [key, said] of Object.entries(value)) node.style.setProperty(key, said);
    else if (attributes || name.includes("-") || !(name in node)) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

/**
 * An error as the page shows it: what the gateway said, and what to call the request in its log. `retry` is offered
 * where the same request may do better another time.
 */
export function problem(error, retry) {
  const mine = error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429;
  return el("div", { class: "problem", role: "alert" },
    el("strong", {}, error.title || "Error"), " ", error.message,
    error.requestId ? el("div", { class: "muted small" }, `Request ${error.requestId}`) : null,
    retry && !mine ? el("div", {}, el("button", { type: "button", on: { click: retry } }, "Try again")) : null);
}

/** A command with a button that copies it. */
export function command(text) {
  const button = el("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {  // no permission, or no secure context: the text is selected, and Ctrl+C does the rest
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  const code = el("code", {}, text);
  return el("div", { class: "command" }, code, button);
}
