// The filter of a search: conditions on tags as rows of field, condition and value, or the JSON that they stand for.

import { el } from "../dom.js";

const CONDITIONS = {
  $eq: "is", $ne: "is not", $in: "is one of", $nin: "is none of",
  $gte: "at least", $gt: "more than", $lte: "at most", $lt: "less than", exists: "exists", missing: "is missing",
};
const WITHOUT_VALUE = new Set(["exists", "missing"]);
const LISTS = new Set(["$in", "$nin"]);
let made = 0;

/**
 * The parts of a filter: `toggle` (a button), `panel`, `value()` (an object, null for none; throws Error),
 * `set(json)`, `add(field, value)`, `know(tags)` for suggestions, `complain(message)`.
 */
export function filterBuilder(onChange) {
  const names = new Set(["id"]);
  const known = el("datalist", { id: `search-fields-${++made}` });
  const rows = el("div", { class: "search-rows" });
  const raw = el("textarea", { rows: 4, spellcheck: false, "aria-label": "Filter as JSON", hidden: true });
  const asJson = el("input", { type: "checkbox" });
  const said = el("p", { class: "search-complaint", role: "alert", hidden: true });
  const hint = el("p", { class: "muted small" }, "All conditions must hold. Numbers and true or false are taken as such, ",
    "“quotes” make a text of them; several values are separated by commas.");
  const addButton = el("button", { type: "button", on: { click: () => { rows.append(row()); rows.lastChild.querySelector("input").focus(); } } }, "Add a condition");
  const apply = el("button", { type: "button", on: { click: onChange } }, "Apply");
  const panel = el("div", { class: "search-filter", hidden: true, id: `search-filter-${made}` }, rows, raw, said, hint,
    el("div", { class: "row" }, addButton, apply, el("label", { class: "small" }, asJson, "as JSON")), known);
  const toggle = el("button", { type: "button", "aria-expanded": "false", "aria-controls": panel.id }, "Filter");

  toggle.addEventListener("click", () => {
    open(panel.hidden);
    if (!panel.hidden && !rows.children.length && !asJson.checked) rows.append(row());
  });
  asJson.addEventListener("change", () => {
    try {
      if (asJson.checked) {
        const condition = fromRows();
        raw.value = condition ? JSON.stringify(condition, null, 2) : "";
      } else {
        const parsed = parse(raw.value);
        const found = toRows(parsed);
        if (!found) throw new Error("This filter says more than rows can show.");
        rows.replaceChildren(...found.map(each => row(...each)));
      }
      complain("");
    } catch (error) {
      complain(error.message);
      asJson.checked = !asJson.checked;
    }
    arrange();
  });

  function open(shown) {
    panel.hidden = !shown;
    toggle.setAttribute("aria-expanded", String(shown));
  }

  function arrange() {
    raw.hidden = !asJson.checked;
    rows.hidden = addButton.hidden = hint.hidden = asJson.checked;
  }

  function complain(message) {
    said.textContent = message;
    said.hidden = !message;
    if (message) open(true);
  }

  function row(field = "", condition = "$eq", value = "") {
    const name = el("input", { value: field, placeholder: "field", "aria-label": "Field", spellcheck: false });
    name.setAttribute("list", known.id);
    const kind = el("select", { "aria-label": "Condition" },
      ...Object.entries(CONDITIONS).map(([key, label]) => el("option", { value: key }, label)));
    kind.value = condition;
    const input = el("input", { value, placeholder: "value", "aria-label": "Value", spellcheck: false, class: "grow" });
    const remove = el("button", { type: "button", class: "quiet", "aria-label": "Remove this condition" }, "×");
    const line = el("div", { class: "search-row" }, name, kind, input, remove);
    const needed = () => { input.hidden = WITHOUT_VALUE.has(kind.value); };
    kind.addEventListener("change", needed);
    needed();
    remove.addEventListener("click", () => { line.remove(); onChange(); });
    return line;
  }

  function fromRows() {
    const conditions = [...rows.children].map(line => {
      const [name, input] = line.querySelectorAll("input");
      return { field: name.value.trim(), condition: line.querySelector("select").value, text: input.value.trim() };
    }).filter(({ field, text }) => field || text);
    const found = conditions.map(({ field, condition, text }) => {
      if (!field) throw new Error("A condition has no field: name a tag, or remove the row.");
      if (condition === "exists" || condition === "missing") return { [field]: { $exists: condition === "exists" } };
      if (!text) throw new Error(`The condition on “${field}” has no value.`);
      if (LISTS.has(condition)) return { [field]: { [condition]: split(text).map(typed) } };
      return { [field]: condition === "$eq" ? typed(text) : { [condition]: typed(text) } };
    });
    if (!found.length) return null;
    const fields = found.map(each => Object.keys(each)[0]);
    return new Set(fields).size === fields.length ? Object.assign({}, ...found) : { $and: found };
  }

  return {
    toggle,
    panel,
    complain,
    value() {
      const condition = asJson.checked ? parse(raw.value) : fromRows();
      complain("");
      toggle.textContent = condition ? "Filter (on)" : "Filter";
      return condition;
    },
    set(json) {
      let condition = null;
      let found = [];
      try {
        condition = parse(json);
        found = toRows(condition);
      } catch {
        found = null;  // shown as it is, for the reader to mend
      }
      asJson.checked = found === null;
      raw.value = found === null ? json : "";
      rows.replaceChildren(...(found ?? []).map(each => row(...each)));
      complain("");
      toggle.textContent = json ? "Filter (on)" : "Filter";
      if (json) open(true);
      else if (!panel.hidden) rows.append(row());
      arrange();
    },
    add(field, value) {
      if (asJson.checked) {
        const condition = parse(raw.value);
        raw.value = JSON.stringify(condition ? { $and: [condition, { [field]: value }] } : { [field]: value }, null, 2);
        return;
      }
      for (const line of [...rows.children]) if (!line.querySelector("input").value.trim()) line.remove();
      rows.append(row(field, "$eq", written(value)));
    },
    know(tags) {
      for (const each of tags) collect(each, "", names);
      known.replaceChildren(...[...names].sort().map(value => el("option", { value })));
    },
  };
}

/** Names of tags, nested ones with dots. */
function collect(tags, prefix, names) {
  for (const [key, value] of Object.entries(tags ?? {})) {
    if (value && typeof value === "object" && !Array.isArray(value)) collect(value, `${prefix}${key}.`, names);
    else names.add(prefix + key);
  }
}

function parse(json) {
  if (!json.trim()) return null;
  let condition;
  try {
    condition = JSON.parse(json);
  } catch (error) {
    throw new Error(`The filter is not JSON: ${error.message}`);
  }
  if (!condition || typeof condition !== "object" || Array.isArray(condition)) {
    throw new Error('The filter must be a JSON object, such as {"year": {"$gte": 1960}}.');
  }
  return Object.keys(condition).length ? condition : null;
}

/** Rows that mean the same, or null where there are none. */
function toRows(condition) {
  if (!condition) return [];
  const found = [];
  for (const [field, value] of Object.entries(condition)) {
    if (field === "$and" && Array.isArray(value)) {
      const parts = value.map(each => (each && typeof each === "object" ? toRows(each) : null));
      if (parts.some(part => part === null)) return null;
      found.push(...parts.flat());
    } else if (field.startsWith("$")) {
      return null;
    } else if (value === null) {
      found.push([field, "missing", ""]);
    } else if (typeof value !== "object") {
      found.push([field, "$eq", written(value)]);
    } else if (Array.isArray(value)) {
      return null;
    } else {
      for (const [operator, operand] of Object.entries(value)) {
        if (operator === "$exists" && typeof operand === "boolean") found.push([field, operand ? "exists" : "missing", ""]);
        else if (LISTS.has(operator) && Array.isArray(operand)) found.push([field, operator, operand.map(written).join(", ")]);
        else if (operator in CONDITIONS && operand !== null && typeof operand !== "object") found.push([field, operator, written(operand)]);
        else return null;
      }
    }
  }
  return found;
}

/** What a text typed for a value means. */
function typed(text) {
  if (/^-?(0|[1-9]\d*)(\.\d+)?$/.test(text)) return Number(text);
  if (text === "true" || text === "false") return text === "true";
  const quoted = /^["“](.*)["”]$/s.exec(text);
  return quoted ? quoted[1].replaceAll('\\"', '"') : text;
}

/** The text to type for a value. */
function written(value) {
  if (typeof value !== "string") return String(value);
  return typed(value) === value && !value.includes(",") && value === value.trim() ? value : `"${value.replaceAll('"', '\\"')}"`;
}

/** Parts between commas that are not within quotes. */
function split(text) {
  return (text.match(/(?:"(?:\\"|[^"])*"|[^,])+/g) ?? []).map(part => part.trim()).filter(Boolean);
}
