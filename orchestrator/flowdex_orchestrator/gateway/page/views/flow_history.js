// What the counters of /status say about the last minute: rates and percentiles, from the differences of two answers.

const KEPT = 60_000;  // milliseconds of history
const RATE = 10_000;  // over which a rate is taken

/**
 * The answers of the last minute. `add(status, now)` takes the newest one; a gateway that was started anew begins a new
 * history.
 */
export function history() {
  let samples = [];
  return {
    add(status, now) {
      const last = samples.at(-1);
      if (last && status.uptime_s < last.status.uptime_s) samples = [];
      samples.push({ now, status });
      samples = samples.filter(sample => now - sample.now <= KEPT);
    },
    /** Of `pick(status)`, a count of what has ended: rate a second, percentiles, failures, and rates to plot. */
    figures(pick) {
      const bounds = samples[0].status.bounds_ms;
      const none = { count: 0, failed: 0, buckets: new Array(bounds.length + 1).fill(0) };  // not asked for by then
      const counts = samples.map(sample => ({ now: sample.now, ...(pick(sample.status) ?? none) }));
      const end = counts.at(-1);
      const start = counts[0];
      const before = counts.findLast(each => end.now - each.now >= RATE) ?? start;
      const recent = end.count > start.count;
      const buckets = recent ? end.buckets.map((count, index) => count - start.buckets[index]) : end.buckets;
      return {
        rate: end.now > before.now ? 1000 * (end.count - before.count) / (end.now - before.now) : null,
        rates: counts.slice(1).map((each, index) => 1000 * (each.count - counts[index].count) / (each.now - counts[index].now)),
        p50: quantile(bounds, buckets, 0.5),
        p95: quantile(bounds, buckets, 0.95),
        p99: quantile(bounds, buckets, 0.99),
        failed: recent ? end.failed - start.failed : end.failed,
        count: end.count,
        recent,
      };
    },
  };
}

/** Milliseconds in which a share had ended, interpolated in its bucket; null where nothing has. */
export function quantile(bounds, buckets, share) {
  const count = buckets.reduce((sum, each) => sum + each, 0);
  if (!count) return null;
  let below = 0;
  for (const [index, bound] of bounds.entries()) {
    const here = buckets[index];
    if (here && below + here >= share * count) {
      const start = index ? bounds[index - 1] : 0;
      return start + (bound - start) * (share * count - below) / here;
    }
    below += here;
  }
  return bounds.at(-1);
}
