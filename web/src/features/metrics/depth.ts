import type { Schemas } from '~/api/client';
import type { Span } from './groups';

/** How many waited on a queue, one value for each bucket of a span. */
export type Depths = ReadonlyMap<string, number[]>;

/**
 * The depths of queues as the server measured them: of each bucket the last measurement that fell into it or, where none
 * did, the one before. A queue without a figure had nobody waiting.
 *
 * @param now what waits at this moment, which is the last bucket's value
 */
export function depths(rows: Schemas['Metric'][], now: ReadonlyMap<string, number>, span: Span): Depths {
  const size = Math.round((span.end - span.start) / span.bucketMs);
  const measured = new Map<number, { until: number; of: Map<string, number> }>();
  for (const row of rows) {
    const at = Date.parse(row.timeBucket) + row.granularity * 1_000;
    let moment = measured.get(at);
    if (!moment) {
      // Beyond twice the usual distance to the next one it is no longer known.
      moment = { until: at + row.granularity * 2_000, of: new Map() };
      measured.set(at, moment);
    }
    if (row.metricType === 'queue_depth') moment.of.set(row.metricName, row.value);
  }
  const moments = [...measured].sort(([a], [b]) => a - b);
  const names = new Set([...now.keys(), ...moments.flatMap(([, moment]) => [...moment.of.keys()])]);
  const found = new Map([...names].map((name) => [name, Array.from({ length: size }, () => 0)]));
  let next = 0;
  let last: (typeof moments)[number] | undefined;
  for (let bucket = 0; bucket < size; bucket += 1) {
    const from = span.start + bucket * span.bucketMs;
    while (next < moments.length && (moments[next]?.[0] ?? 0) < from + span.bucketMs) {
      last = moments[next];
      next += 1;
    }
    if (!last || last[1].until < from) continue;
    for (const [name, value] of last[1].of) {
      const values = found.get(name);
      if (values) values[bucket] = value;
    }
  }
  for (const [name, values] of found) values[size - 1] = now.get(name) ?? 0;
  return found;
}

/** All queues together, or only the one that is named. */
export function depthOf(all: Depths, span: Span, name: string | undefined): number[] {
  const sum = Array.from({ length: Math.round((span.end - span.start) / span.bucketMs) }, () => 0);
  for (const [queue, values] of all) {
    if (name !== undefined && queue !== name) continue;
    values.forEach((value, at) => {
      sum[at] = (sum[at] ?? 0) + value;
    });
  }
  return sum;
}
