// A scatter of points on a canvas: drawing, panning and zooming, and which point is meant.
//
//   points {x, y} --Grid--> the nearest one to a place, in a few cells of many
//   view {x, y, scale} <-- pointer, two fingers, wheel, keys;   draw() at most once a frame
//
// The plot knows nothing of what points mean: `style(index)` says how each is drawn.

const REACH = 14;  // pixels within which a point is meant
const FOCUS_REACH = 60;  // from the middle, for those who steer with keys
const MOST_ZOOM = 400;

/** Points in cells of a plane, some in each. */
export class Grid {
  constructor(points) {
    this.points = points;
    const xs = points.map(point => point.x), ys = points.map(point => point.y);
    this.bounds = points.length
      ? [xs.reduce(least), ys.reduce(least), xs.reduce(most), ys.reduce(most)]
      : [0, 0, 1, 1];
    const [left, top, right, bottom] = this.bounds;
    this.columns = Math.max(1, Math.ceil(Math.sqrt(points.length)));
    this.width = (right - left) / this.columns || 1;
    this.height = (bottom - top) / this.columns || 1;
    this.cells = new Map();
    points.forEach((point, index) => {
      const key = this.row(point.y) * this.columns + this.column(point.x);
      const cell = this.cells.get(key);
      if (cell) cell.push(index);
      else this.cells.set(key, [index]);
    });
  }

  column(x) { return within(Math.floor((x - this.bounds[0]) / this.width), 0, this.columns - 1); }

  row(y) { return within(Math.floor((y - this.bounds[1]) / this.height), 0, this.columns - 1); }

  /** The index of the point nearest to (x, y) that is no further away than `reach`, or -1. */
  nearest(x, y, reach) {
    let found = -1, closest = reach * reach;
    for (let row = this.row(y - reach); row <= this.row(y + reach); row++) {
      for (let column = this.column(x - reach); column <= this.column(x + reach); column++) {
        for (const index of this.cells.get(row * this.columns + column) ?? []) {
          const point = this.points[index];
          const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
          if (distance <= closest) [found, closest] = [index, distance];
        }
      }
    }
    return found;
  }
}

/**
 * @param canvas   The element, which has the size that its style gives it.
 * @param layers   () => [{ indices, radius, fill, stroke, alpha }]: what to draw, from the bottom up.
 * @param overlay  (context, toScreen) => void: what to draw on top.
 * @param onPoint  (index, place) => void: the pointer or the middle is at a point, or at none (-1).
 * @param onPick   (index) => void: a point was chosen.
 */
export class Plot {
  constructor(canvas, { layers, overlay, onPoint, onPick }) {
    Object.assign(this, { canvas, layers, overlay, onPoint, onPick });
    this.context = canvas.getContext("2d");
    this.view = { x: 0, y: 0, scale: 1 };
    this.least = 1;
    this.grid = new Grid([]);
    this.fingers = new Map();
    this.steered = false;  // with keys: the middle of the canvas points
    this.frame = 0;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(canvas);
    this.listen();
  }

  close() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
  }

  setPoints(points, { fit = true } = {}) {
    this.grid = new Grid(points);
    if (fit) this.fit();
    this.redraw();
  }

  get width() { return this.canvas.clientWidth; }

  get height() { return this.canvas.clientHeight; }

  resize() {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (!width || (this.canvas.width === width && this.canvas.height === height)) return;
    const whole = Math.abs(this.view.scale - this.least) < 1e-9;
    Object.assign(this.canvas, { width, height });
    if (whole) this.fit();
    this.draw();
  }

  /** Show all points. */
  fit() {
    const [left, top, right, bottom] = this.grid.bounds;
    const [width, height] = [right - left || 1, bottom - top || 1];
    const margin = 28;
    this.least = Math.max(1e-6, Math.min((this.width - 2 * margin) / width, (this.height - 2 * margin) / height));
    this.view = { x: (left + right) / 2, y: (top + bottom) / 2, scale: this.least };
    this.redraw();
  }

  /** Show a point in the middle, no closer than it is. */
  centre(index) {
    const { x, y } = this.grid.points[index];
    const [screenX, screenY] = this.toScreen({ x, y });
    const margin = 20;
    if (screenX > margin && screenY > margin && screenX < this.width - margin && screenY < this.height - margin) return;
    Object.assign(this.view, { x, y });
    this.redraw();
  }

  zoom(factor, [screenX, screenY] = [this.width / 2, this.height / 2]) {
    const { x, y } = this.toPlane(screenX, screenY);
    const scale = within(this.view.scale * factor, this.least / 2, this.least * MOST_ZOOM);
    this.view = {
      scale,
      x: x - (screenX - this.width / 2) / scale,
      y: y + (screenY - this.height / 2) / scale,
    };
    this.redraw();
  }

  pan(across, down) {
    this.view.x -= across / this.view.scale;
    this.view.y += down / this.view.scale;
    this.redraw();
  }

  toScreen({ x, y }) {
    return [
      (x - this.view.x) * this.view.scale + this.width / 2,
      (this.view.y - y) * this.view.scale + this.height / 2,
    ];
  }

  toPlane(screenX, screenY) {
    return {
      x: this.view.x + (screenX - this.width / 2) / this.view.scale,
      y: this.view.y - (screenY - this.height / 2) / this.view.scale,
    };
  }

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { context, width, height } = this;
    if (!width || !this.canvas.width) return;
    const ratio = this.canvas.width / width;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    for (const layer of this.layers()) this.drawLayer(layer);
    context.globalAlpha = 1;
    this.overlay(context, place => this.toScreen(place));
    if (this.steered) this.drawMiddle();
  }

  drawLayer({ indices, radius, fill, stroke, alpha = 1 }) {
    const { context, width, height } = this;
    context.globalAlpha = alpha;
    if (fill) context.fillStyle = fill;
    if (stroke) context.strokeStyle = stroke;
    context.lineWidth = 1.5;
    const { points } = this.grid;
    const { scale } = this.view;
    const [left, top] = [width / 2 - this.view.x * scale, height / 2 + this.view.y * scale];
    for (const index of indices) {
      const x = points[index].x * scale + left, y = top - points[index].y * scale;  // as toScreen, without an array
      if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
      context.beginPath();  // a path each: one of ten thousand discs takes twice as long, and hides where they overlap
      context.arc(x, y, radius, 0, 2 * Math.PI);
      if (fill) context.fill();
      if (stroke) context.stroke();
    }
  }

  drawMiddle() {
    const { context, width, height } = this;
    context.strokeStyle = getComputedStyle(this.canvas).color;
    context.lineWidth = 1;
    context.beginPath();
    for (const [across, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(width / 2 + 6 * across, height / 2 + 6 * down);
      context.lineTo(width / 2 + 16 * across, height / 2 + 16 * down);
    }
    context.stroke();
  }

  // ---- which point is meant ----

  at(screenX, screenY, reach = REACH) {
    const { x, y } = this.toPlane(screenX, screenY);
    return this.grid.nearest(x, y, reach / this.view.scale);
  }

  point(screenX, screenY, reach) {
    const index = this.at(screenX, screenY, reach);
    this.onPoint(index, index < 0 ? null : this.toScreen(this.grid.points[index]));
    return index;
  }

  pointAtMiddle() { return this.point(this.width / 2, this.height / 2, FOCUS_REACH); }

  // ---- hands ----

  listen() {
    const { canvas } = this;
    let moved = 0;
    const place = event => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", event => {
      this.steered = false;
      canvas.setPointerCapture(event.pointerId);
      this.fingers.set(event.pointerId, place(event));
      if (this.fingers.size === 1) moved = 0;
    });
    canvas.addEventListener("pointermove", event => {
      const now = place(event);
      const before = this.fingers.get(event.pointerId);
      if (!before) {
        if (event.pointerType === "mouse") this.point(...now);
        return;
      }
      const others = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      this.fingers.set(event.pointerId, now);
      const share = 1 / this.fingers.size;
      this.pan((now[0] - before[0]) * share, (now[1] - before[1]) * share);
      if (others.length === 1) {
        const [other] = others;
        const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
        this.zoom(apart(now, other) / (apart(before, other) || 1), middle);
      }
      moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (moved > 4) this.onPoint(-1, null);
    });
    const lift = event => {
      const known = this.fingers.delete(event.pointerId);
      if (!known || event.type === "pointercancel" || moved > 4 || this.fingers.size) return;
      const index = this.point(...place(event), event.pointerType === "touch" ? 2 * REACH : REACH);
      this.onPick(index);
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("pointerleave", () => { if (!this.steered) this.onPoint(-1, null); });
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.zoom(Math.exp(-within(event.deltaY * lines, -240, 240) / 400), place(event));
      this.point(...place(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", event => this.zoom(2, place(event)));
    canvas.addEventListener("keydown", event => this.key(event));
    canvas.addEventListener("blur", () => {
      this.steered = false;
      this.onPoint(-1, null);
      this.redraw();
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 160 : 40;
    const keys = {
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
      "0": () => this.fit(),
      Enter: () => this.onPick(this.at(this.width / 2, this.height / 2, FOCUS_REACH)),
      Escape: () => this.onPick(-1),
    };
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    this.steered = true;
    act();
    this.pointAtMiddle();
  }
}

function least(a, b) { return Math.min(a, b); }

function most(a, b) { return Math.max(a, b); }

function within(value, low, high) { return Math.min(high, Math.max(low, value)); }

function apart([x, y], [otherX, otherY]) { return Math.hypot(x - otherX, y - otherY); }
