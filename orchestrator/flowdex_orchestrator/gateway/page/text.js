// Offsets. The API counts characters (code points) as Python does; JavaScript's strings count UTF-16 units.

/** `slice(start, end)` of a text by characters, and its `length` in characters. */
export function characters(text) {
  const plain = !/[\uD800-\uDFFF]/.test(text);
  const points = plain ? null : Array.from(text);
  return {
    length: plain ? text.length : points.length,
    slice: (start, end) => (plain ? text.slice(start, end) : points.slice(start, end).join("")),
  };
}

/**
 * A text as nodes, `made(part, index)` in the places of `spans` ([start, end] in characters) and strings between them.
 * Spans must be in order of their starts; of those that overlap, the later ones begin where the one before ended.
 */
export function spanned(text, spans, made) {
  const { length, slice } = characters(text);
  const nodes = [];
  let place = 0;
  spans.forEach(([from, to], index) => {
    const start = Math.max(from, place);
    const end = Math.min(to, length);
    if (end <= start) return;
    if (start > place) nodes.push(slice(place, start));
    nodes.push(made(slice(start, end), index));
    place = end;
  });
  if (place < length) nodes.push(slice(place, length));
  return nodes;
}

/** A number for people: 0.0331, 18.5, 1,600. */
export function short(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return value.toPrecision(size < 1 && size >= 0.001 ? Math.max(2, digits - (size < 0.1 ? 1 : 0)) : digits);
}

/** Milliseconds for people: 0.8 ms, 23 ms, 1.2 s. */
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 0 : 1)} s`;
  return `${ms >= 10 || ms < 0.05 ? Math.round(ms) : ms.toFixed(1)} ms`;
}

/** A number with its noun: "1 hit", "1,600 documents". */
export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
