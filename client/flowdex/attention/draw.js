// Attention, drawn: the head view and the model view of BertViz (Vig, 2019), from what POST /attention answers.
//
//   data --weights--> numbers (layers, heads, tokens, tokens)
//     head view    one layer: tokens left and right, a line for each pair of them, a colour a head, opacity by weight
//     model view   every layer and head as a thumbnail; a click opens it in the head view
//
// One module without imports: the gateway's page loads it, and an exported file holds it. Layers and heads count from 0.

const SVG = "http://www.w3.org/2000/svg";
// As Matplotlib's "tab10", of tones that can be told from white and from black; the second half is for more heads.
const COLOURS = [
  "#3f82c4", "#e07b1f", "#3f9b46", "#d9474a", "#9a6fc9", "#a0705c", "#d766b5", "#7f8a94", "#a39a1c", "#1fa3b3",
  "#6a6ee0", "#c2556f", "#6aa32f", "#2f9e86", "#c08a2e", "#b05fd0",
];
const ROW = 22;  // pixels
const FONT = 13;
const PAD = 8;
const NUMBER = 40;  // room for a weight beside a token
const LEAST = 0.01;  // weights below it would be invisible
const FOG = 0.05;  // and of many lines at once, those below it hide the others
const LEVELS = 20;  // of opacity
const LONGEST = 24;  // characters of a token that are shown
const NARROW = { width: 480, longest: 12 };  // where there is less room
const FILTERS = [["all", "All"], ["aa", "A → A"], ["ab", "A → B"], ["ba", "B → A"], ["bb", "B → B"]];

/**
 * Draw attention into an element, replacing what it holds.
 *
 * @param {HTMLElement} root
 * @param {object} data What POST /attention answers.
 * @param {object} start What of `state` to begin with: that of a drawing before this one.
 * @returns {{state: object, destroy: function}} `destroy` stops watching the window.
 */
export function drawAttention(root, data, start = {}) {
  const [layers, heads, count] = data.weights.shape;
  const weights = numbers(data.weights);
  const known = [...(start.heads ?? [])].filter(head => head < heads);
  const state = {
    view: start.view ?? "head",
    layer: Math.min(start.layer ?? layers - 1, layers - 1),
    heads: new Set(known.length ? known : range(heads)),
    filter: "all",
    pinned: null,
  };
  const weight = (layer, head, from, to) => weights[((layer * heads + head) * count + from) * count + to];

  // ---- the controls ----

  const views = group("View", [["head", "Head view"], ["model", "Model view"]].map(([name, label]) =>
    button(label, () => show({ view: name }), { "data-view": name })));
  const layer = select(data.layers.map((number, index) => [index, `Layer ${number}`]), value => show({ layer: +value }));
  const filter = select(FILTERS, value => show({ filter: value, pinned: null }));
  const squares = range(heads).map(head => {
    const square = button("", event => {
      // The second click of a double click: its first one has toggled the head, and this one leaves it alone.
      if (event.detail > 1) return show({ heads: new Set([head]) });
      const chosen = new Set(state.heads);
      if (!chosen.delete(head)) chosen.add(head);
      return show({ heads: chosen });
    }, { class: "attention-square", "data-head": head, "aria-label": `Head ${head}`, title: `Head ${head}; double click: only this one` });
    square.style.setProperty("--colour", colour(head));
    square.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) squares[(head + step + heads) % heads].focus();
      else if (event.key === "Enter" && event.shiftKey) show({ heads: new Set([head]) });
      else return;
      event.preventDefault();
    });
    return square;
  });
  const all = button("All", () => show({ heads: new Set(range(heads)) }), { class: "attention-all", title: "All heads" });
  const headGroup = group("Heads", [node("span", { "aria-hidden": true }, "Heads"), ...squares, all]);
  const layerLabel = labelled("Layer", layer);
  const bar = node("div", { class: "attention-bar" }, views, layerLabel);
  if (data.pair_start !== null) bar.append(labelled("Sentences", filter));
  bar.append(headGroup);
  const canvas = node("div", { class: "attention-canvas", tabindex: "-1" });
  const said = node("p", { class: "attention-said", "aria-live": "polite" });
  const whole = node("div", { class: "attention" }, bar, canvas, said);
  root.replaceChildren(whole);

  function show(changed) {
    if (changed.view && changed.view !== state.view) canvas.scrollTo(0, 0);
    Object.assign(state, changed);
    for (const each of views.children) each.setAttribute("aria-pressed", each.dataset.view === state.view);
    for (const square of squares) square.setAttribute("aria-pressed", state.heads.has(+square.dataset.head));
    layer.value = state.layer;
    filter.value = state.filter;
    layerLabel.hidden = headGroup.hidden = state.view === "model";
    if (state.view === "model") drawModel();
    else drawHead();
  }

  // ---- the head view ----

  /** The tokens on either side, as their positions. */
  function sides() {
    const start = data.pair_start ?? count;
    const part = { a: range(start), b: range(count).slice(start), l: range(count) };
    return state.filter === "all" ? [part.l, part.l] : [...state.filter].map(name => part[name]);
  }

  function drawHead() {
    const [left, right] = sides();
    const chosen = [...state.heads].sort((one, other) => one - other);
    const longest = canvas.clientWidth < NARROW.width ? NARROW.longest : LONGEST;
    const family = getComputedStyle(whole).getPropertyValue("--mono") || "monospace";
    const measure = document.createElement("canvas").getContext("2d");
    measure.font = `${FONT}px ${family}`;
    const widest = Math.max(...data.tokens.map(token => measure.measureText(shorten(token, longest)).width));
    const column = Math.ceil(widest) + 2 * PAD;
    const gap = Math.min(420, Math.max(96, canvas.clientWidth - 2 * (column + NUMBER)));
    const [x1, x2] = [NUMBER + column, NUMBER + column + gap];
    const height = Math.max(left.length, right.length) * ROW;
    // Lines of several heads lie beside each other, not on each other.
    const spread = chosen.length > 1 ? Math.min(1.6, (ROW - 8) / (chosen.length - 1)) : 0;
    const y = (row, place) => row * ROW + ROW / 2 + (place - (chosen.length - 1) / 2) * spread;
    const picture = svg("svg", {
      class: "attention-head", width: x2 + column + NUMBER, height,
      role: "group", "aria-label": `Attention of layer ${data.layers[state.layer]}`,
    });
    const lines = svg("g", { class: "attention-lines" });
    const shares = svg("g", { class: "attention-shares" });
    picture.append(shares, lines);

    /** Lines that are as strong are one path: a long text has more of them than a browser has patience for elements. */
    function drawLines(wanted, least) {
      const paths = new Map();
      chosen.forEach((head, place) => left.forEach((from, i) => right.forEach((to, j) => {
        const value = weight(state.layer, head, from, to);
        if (value < least || !wanted(from, to)) return;
        const key = `${head} ${Math.ceil(value * LEVELS)}`;
        paths.set(key, `${paths.get(key) ?? ""}M${x1} ${y(i, place).toFixed(1)}L${x2} ${y(j, place).toFixed(1)}`);
      })));
      lines.replaceChildren(...[...paths].map(([key, d]) => {
        const [head, level] = key.split(" ");
        return svg("path", { d, stroke: colour(head), "stroke-opacity": level / LEVELS, "data-head": head });
      }));
    }

    const mean = (from, to) => chosen.reduce((sum, head) => sum + weight(state.layer, head, from, to), 0) / chosen.length;
    const texts = { left: new Map(), right: new Map() };
    function drawTokens(side, positions) {
      const start = side === "left";
      positions.forEach((position, row) => {
        const name = data.tokens[position];
        const token = svg("g", {
          class: "attention-token", tabindex: 0, role: "button", "data-side": side, "data-token": position,
          "aria-label": `${name}, token ${position}: ${start ? "what it looks at" : "what looks at it"}`,
        });
        const box = svg("rect", {
          x: start ? NUMBER : x2, y: row * ROW + 1, width: column, height: ROW - 2, rx: 4,
        });
        const middle = row * ROW + ROW / 2 + FONT * 0.36;
        const text = svg("text", { x: start ? x1 - PAD : x2 + PAD, y: middle, "text-anchor": start ? "end" : "start" });
        text.textContent = shorten(name, longest);
        const number = svg("text", {
          class: "attention-number", x: start ? NUMBER - 4 : x2 + column + 4, y: middle, "text-anchor": start ? "end" : "start",
        });
        const title = svg("title");
        title.textContent = described(data, position);
        token.append(box, text, number, title);
        token.addEventListener("pointerenter", () => state.pinned ?? look(side, position));
        token.addEventListener("pointerleave", () => state.pinned ?? look());
        token.addEventListener("focus", () => state.pinned ?? look(side, position));
        token.addEventListener("blur", () => state.pinned ?? look());
        token.addEventListener("click", () => pin(side, position));
        token.addEventListener("keydown", event => {
          const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
          if (step) positions[row + step] !== undefined && texts[side].get(positions[row + step]).token.focus();
          else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
            const other = event.key === "ArrowRight" ? "right" : "left";
            (texts[other].get(position) ?? [...texts[other].values()][Math.min(row, texts[other].size - 1)])?.token.focus();
          } else if (event.key === "Enter" || event.key === " ") pin(side, position);
          else if (event.key === "Escape") pin();
          else return;
          event.preventDefault();
        });
        texts[side].set(position, { token, number, row });
        picture.append(token);
      });
    }

    function pin(side, position) {
      const same = state.pinned && state.pinned.side === side && state.pinned.position === position;
      state.pinned = same || side === undefined ? null : { side, position };
      look(side, position);
    }

    /** Show the lines of one token alone, with their weights; without one, those of all. */
    function look(side, position) {
      const looking = side === "left";
      const others = side === undefined ? [] : looking ? right : left;
      const share = other => (looking ? mean(position, other) : mean(other, position));
      for (const [name, tokens] of Object.entries(texts)) {
        for (const [at, { token, number }] of tokens) {
          token.classList.toggle("attention-on", name === side && at === position);
          const pinned = state.pinned?.side === name && state.pinned.position === at;
          token.classList.toggle("attention-pinned", pinned);
          token.setAttribute("aria-pressed", pinned);
          number.textContent = side !== undefined && name !== side && chosen.length ? share(at).toFixed(2) : "";
          token.classList.toggle("attention-faint", number.textContent === "0.00");
        }
      }
      if (side === undefined) drawLines(() => true, Math.min(FOG, 1.5 / right.length));
      else drawLines((from, to) => (looking ? from : to) === position, LEAST);
      // Behind each token on the other side, a stripe for each head, as strong as its weight.
      const width = column / Math.max(1, chosen.length);
      shares.replaceChildren(...others.flatMap((other, row) => chosen.map((head, place) => svg("rect", {
        x: (looking ? x2 : NUMBER) + place * width, y: row * ROW + 1, width, height: ROW - 2, fill: colour(head),
        "fill-opacity": (looking ? weight(state.layer, head, position, other) : weight(state.layer, head, other, position)).toFixed(3),
      }))));
      if (side === undefined || !chosen.length) {
        said.textContent = chosen.length ? "Point at a token to see its lines alone, weak ones too; click it to keep them." : "No head is on: choose one above.";
        return;
      }
      const most = others.filter(other => share(other) >= LEAST)
        .sort((one, other) => share(other) - share(one)).slice(0, 5)
        .map(other => `${data.tokens[other]} ${share(other).toFixed(2)}`).join(", ");
      const of = chosen.length > 1 ? ` (mean of ${chosen.length} heads)` : ` (head ${chosen[0]})`;
      said.textContent = `${data.tokens[position]} ${looking ? "looks at" : "is looked at by"}: ${most || "no token more than another"}${of}`;
    }

    drawTokens("left", left);
    drawTokens("right", right);
    canvas.replaceChildren(picture);
    if (state.pinned && texts[state.pinned.side].has(state.pinned.position)) look(state.pinned.side, state.pinned.position);
    else look();
  }

  // ---- the model view ----

  function drawModel() {
    const [left, right] = sides();
    const [width, height] = [72, Math.min(96, Math.max(40, Math.max(left.length, right.length) * 4))];
    const table = node("div", { class: "attention-model", role: "group", "aria-label": "All layers and heads" });
    table.style.setProperty("--heads", heads);
    table.append(node("span", {}), ...range(heads).map(head => node("span", { class: "attention-name" }, `${head}`)));
    for (const index of range(layers)) {
      table.append(node("span", { class: "attention-name attention-layer" }, `Layer ${data.layers[index]}`));
      for (const head of range(heads)) {
        const name = `Layer ${data.layers[index]}, head ${head}`;
        const thumbnail = button("", () => {
          show({ view: "head", layer: index, heads: new Set([head]) });
          canvas.focus();
        }, { class: "attention-thumbnail", "aria-label": name, title: name, "data-layer": index, "data-head": head });
        thumbnail.append(drawThumbnail(index, head, left, right, width, height));
        table.append(thumbnail);
      }
    }
    canvas.replaceChildren(table);
    said.textContent = "Rows are layers, columns are heads. Choose one to see it large.";
  }

  function drawThumbnail(index, head, left, right, width, height) {
    const picture = document.createElement("canvas");
    const scale = Math.max(1, devicePixelRatio || 1);
    [picture.width, picture.height] = [width * scale, height * scale];
    picture.style.width = `${width}px`;
    picture.style.height = `${height}px`;
    const context = picture.getContext("2d");
    context.scale(scale, scale);
    context.strokeStyle = colour(head);
    const y = (row, rows) => ((row + 0.5) / rows) * height;
    left.forEach((from, i) => right.forEach((to, j) => {
      const value = weight(index, head, from, to);
      if (value < FOG) return;
      context.globalAlpha = value;
      context.beginPath();
      context.moveTo(2, y(i, left.length));
      context.lineTo(width - 2, y(j, right.length));
      context.stroke();
    }));
    return picture;
  }

  let wide = 0;
  const resized = new ResizeObserver(() => {
    if (canvas.clientWidth !== wide && state.view === "head") drawHead();
    wide = canvas.clientWidth;
  });
  show({});
  wide = canvas.clientWidth;
  resized.observe(canvas);
  return { state, destroy: () => resized.disconnect() };
}

// ---- numbers ----

/** An array {"dtype", "data"}, base64 of little-endian bytes, as float32. */
function numbers({ dtype, data }) {
  const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  if (dtype === "float32") return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => half(view.getUint16(2 * i, true)));
}

/** A half-precision number of IEEE 754 from its bits; weights are neither negative nor infinite. */
function half(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
}

function range(size) {
  return Array.from({ length: size }, (_, index) => index);
}

function colour(head) {
  return COLOURS[head % COLOURS.length];
}

// ---- words ----

function shorten(token, longest) {
  const characters = [...token];
  return characters.length > longest ? `${characters.slice(0, longest - 1).join("")}…` : token;
}

/** A token with the part of the text that it stands for. */
function described(data, position) {
  const [start, end] = data.spans[position];
  const second = data.pair_start !== null && position >= data.pair_start;
  const text = [...(second ? data.text_pair : data.text)].slice(start, end).join("");  // spans count code points
  return text ? `${data.tokens[position]} · “${text}”` : data.tokens[position];
}

// ---- elements ----

function set(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function node(name, attributes = {}, ...children) {
  return set(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return set(document.createElementNS(SVG, name), attributes, children);
}

function button(label, press, attributes = {}) {
  const made = node("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", press);
  return made;
}

function select(options, choose) {
  const made = node("select", {}, ...options.map(([value, label]) => node("option", { value }, label)));
  made.addEventListener("change", () => choose(made.value));
  return made;
}

function group(label, children) {
  return node("div", { role: "group", "aria-label": label, class: "attention-group" }, ...children);
}

function labelled(label, control) {
  control.setAttribute("aria-label", label);  // else the name would be the label with all options
  return node("label", { class: "attention-label" }, label, control);
}
