// What the points of the map are coloured by: nothing, a document, a tag, the score of a search.
//
//   points --choices--> what there is to choose
//   points, choice --groups--> [{ label, colour, indices }]   for drawing and for the legend

import { short } from "../text.js";

const COLOURS = 8;  // that people can tell apart; the rest is "others"
const STEPS = 6;  // of a number

/** What points can be coloured by: [value, label] for each. */
export function choices(points) {
  const tags = new Map();
  for (const { tags: own } of points) {
    for (const [name, value] of Object.entries(own)) {
      if (!tags.has(name)) tags.set(name, new Set());
      for (const each of asList(value)) tags.get(name).add(each);
    }
  }
  const telling = [...tags].filter(([, values]) => values.size > 1).map(([name]) => [`tag:${name}`, name]);
  return [["", "one colour"], ["score", "score of the search"], ["document", "document"], ...telling];
}

/** The groups of points, in the order of the legend. */
export function groups(points, choice, scores) {
  const all = points.map((_, index) => index);
  if (choice === "score") return byScore(points, scores);
  if (choice === "document") return byName(points, all, point => point.document_id);
  if (choice.startsWith("tag:")) {
    const name = choice.slice(4);
    const values = points.map(point => point.tags[name]).filter(value => value !== undefined);
    if (new Set(values).size > COLOURS && values.every(value => typeof value === "number")) {
      return byNumber(points, all, point => point.tags[name]);
    }
    return byName(points, all, point => label(point.tags[name]));
  }
  return [{ label: "passage", colour: "--map-plain", indices: all }];
}

function byName(points, all, name) {
  const found = new Map();
  for (const index of all) {
    const key = name(points[index]);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(index);
  }
  const sorted = [...found].sort((a, b) => (a[0] === null) - (b[0] === null) || b[1].length - a[1].length);
  const named = sorted.slice(0, sorted.length > COLOURS ? COLOURS - 1 : COLOURS).filter(([key]) => key !== null);
  const rest = sorted.filter(each => !named.includes(each)).flatMap(([, indices]) => indices);
  const shown = named.map(([key, indices], number) => ({ label: key, colour: `--map-${number}`, indices }));
  if (rest.length) {
    const others = sorted.length - named.length;
    shown.push({
      label: named.length === sorted.filter(([key]) => key !== null).length ? "without" : `${others} others`,
      colour: "--map-plain",
      indices: rest,
    });
  }
  return shown;
}

function byNumber(points, all, number) {
  const given = all.filter(index => typeof number(points[index]) === "number");
  const values = given.map(index => number(points[index])).sort((a, b) => a - b);
  const bounds = [];
  for (let step = 0; step <= STEPS; step++) {  // as many points in each step, as far as values allow
    const value = values[Math.min(values.length - 1, Math.floor((step * values.length) / STEPS))];
    if (value !== bounds.at(-1)) bounds.push(value);
  }
  const shown = bounds.slice(0, -1).map((low, step) => ({
    label: `${bounds.length > 2 ? "from " : ""}${low}`,
    colour: `--map-step-${Math.round((step * (STEPS - 1)) / Math.max(1, bounds.length - 2))}`,
    indices: given.filter(index => {
      const value = number(points[index]);
      return value >= low && (step === bounds.length - 2 || value < bounds[step + 1]);
    }),
  }));
  const without = all.filter(index => typeof number(points[index]) !== "number");
  return without.length ? [...shown, { label: "without", colour: "--map-plain", indices: without }] : shown;
}

function byScore(points, scores) {
  const found = points.map((point, index) => [index, scores.get(point.id)]).filter(([, score]) => score !== undefined);
  const rest = points.map((_, index) => index).filter(index => !scores.has(points[index].id));
  if (!found.length) return [{ label: "not found", colour: "--map-plain", indices: rest }];
  const values = found.map(([, score]) => score);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const steps = Array.from({ length: STEPS }, (_, step) => ({
    label: short(low + ((high - low) * step) / STEPS),
    colour: `--map-step-${step}`,
    indices: [],
  }));
  for (const [index, score] of found) {
    const step = high > low ? Math.min(STEPS - 1, Math.floor(((score - low) / (high - low)) * STEPS)) : STEPS - 1;
    steps[step].indices.push(index);
  }
  const shown = steps.filter(step => step.indices.length).map(step => ({ ...step, label: `from ${step.label}` }));
  return [{ label: "not found", colour: "--map-plain", indices: rest }, ...shown].filter(each => each.indices.length);
}

function asList(value) { return Array.isArray(value) ? value : [value]; }

function label(value) {
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return value.map(String).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

