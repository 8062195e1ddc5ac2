import type { Schemas } from '~/api/client';
import type { Series } from '~/ui/Chart';

type Row = Schemas['WorkflowAggregate'];

/** The last `buckets` whole steps of `bucketMs` before `now`: a key that changes once a step, not once a second. */
export function timeWindow(now: number, buckets: number, bucketMs: number): { start: number; end: number } {
  const end = Math.floor(now / bucketMs) * bucketMs + bucketMs;
  return { start: end - buckets * bucketMs, end };
}

/** Rows of an aggregate by status and time, as series for a chart. */
export function outcomeSeries(
  rows: Row[],
  span: { start: number; end: number },
  bucketMs: number,
): { times: number[]; series: Series[]; total: number; failed: number } {
  const buckets = Math.round((span.end - span.start) / bucketMs);
  const times = Array.from({ length: buckets }, (_, at) => (span.start + at * bucketMs) / 1_000);
  const blank = () => times.map(() => 0);
  const ok: Series = { label: 'Succeeded', tone: 'ok', values: blank() };
  const open: Series = { label: 'In progress', tone: 'run', values: blank() };
  const cancelled: Series = { label: 'Cancelled', tone: 'off', values: blank() };
  const failed: Series = { label: 'Failed', tone: 'err', values: blank() };
  for (const row of rows) {
    const at = Math.floor((Number(row.group.time_bucket) - span.start) / bucketMs);
    if (!(at >= 0 && at < buckets)) continue;
    const series = {
      SUCCESS: ok,
      ERROR: failed,
      MAX_RECOVERY_ATTEMPTS_EXCEEDED: failed,
      CANCELLED: cancelled,
    }[row.group.status ?? ''];
    const values = (series ?? open).values;
    values[at] = (values[at] ?? 0) + (row.count ?? 0);
  }
  const sum = (series: Series) => series.values.reduce((total, value) => total + value, 0);
  return {
    times,
    series: [failed, cancelled, open, ok],
    total: sum(ok) + sum(open) + sum(cancelled) + sum(failed),
    failed: sum(failed),
  };
}

/** Counts of an aggregate by status, as a map. */
export function countsByStatus(rows: Row[]): Map<string, number> {
  return new Map(rows.map((row) => [row.group.status ?? 'UNKNOWN', row.count ?? 0]));
}
