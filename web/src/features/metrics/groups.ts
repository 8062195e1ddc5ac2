import type { Schemas } from '~/api/client';

/** What figures are told apart by. */
export type By = 'workflow' | 'step' | 'queue';

/** The figures of one workflow, step or queue over a span, in buckets. */
export type Group = {
  name: string;
  ok: number[];
  failed: number[];
  /** Neither yet: still active, or cancelled. */
  other: number[];
  /** Longest duration of each bucket, milliseconds; 0 where nothing ended. */
  longest: number[];
  total: number;
  failures: number;
  /** Longest of the whole span, milliseconds; null when nothing ended in it. */
  worst: number | null;
};

export type Span = { start: number; end: number; bucketMs: number };

type Row = {
  group: Record<string, string | null>;
  count?: number;
  maxTotalLatencyMs?: number;
  maxQueueWaitMs?: number;
  maxDurationMs?: number;
};

const GROUP_NAME: Record<By, string> = { workflow: 'name', step: 'function_name', queue: 'queue_name' };
const FAILED = new Set(['ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED']);

/** Start of each bucket of a span, epoch seconds. */
export function times({ start, end, bucketMs }: Span): number[] {
  return Array.from(
    { length: Math.round((end - start) / bucketMs) },
    (_, at) => (start + at * bucketMs) / 1_000,
  );
}

/** Rows of an aggregate by name, status and time as groups, the busiest first. */
export function groups(
  rows: Schemas['WorkflowAggregate'][] | Schemas['StepAggregate'][],
  by: By,
  span: Span,
): Group[] {
  const size = times(span).length;
  const found = new Map<string, Group>();
  for (const row of rows as Row[]) {
    const name = row.group[GROUP_NAME[by]];
    // Workflows that were on no queue are none of a queue's figures.
    if (name === null || name === undefined) continue;
    const at = Math.floor((Number(row.group.time_bucket) - span.start) / span.bucketMs);
    if (!(at >= 0 && at < size)) continue;
    let group = found.get(name);
    if (!group) {
      group = blank(name, size);
      found.set(name, group);
    }
    add(group, at, row, by);
  }
  return [...found.values()].sort((a, b) => b.total - a.total || a.name.localeCompare(b.name));
}

function add(group: Group, at: number, row: Row, by: By): void {
  const size = row.count ?? 0;
  const status = row.group.status ?? '';
  const values = status === 'SUCCESS' ? group.ok : FAILED.has(status) ? group.failed : group.other;
  values[at] = (values[at] ?? 0) + size;
  group.total += size;
  if (FAILED.has(status)) group.failures += size;
  const longest =
    by === 'queue' ? row.maxQueueWaitMs : by === 'step' ? row.maxDurationMs : row.maxTotalLatencyMs;
  if (longest === undefined) return;
  group.longest[at] = Math.max(group.longest[at] ?? 0, longest);
  group.worst = Math.max(group.worst ?? 0, longest);
}

function blank(name: string, size: number): Group {
  const zeros = () => Array.from({ length: size }, () => 0);
  return {
    name,
    ok: zeros(),
    failed: zeros(),
    other: zeros(),
    longest: zeros(),
    total: 0,
    failures: 0,
    worst: null,
  };
}

/** All groups together. */
export function together(all: Group[], span: Span): Group {
  const sum = blank('', times(span).length);
  for (const group of all) {
    for (const name of ['ok', 'failed', 'other'] as const)
      group[name].forEach((value, at) => {
        sum[name][at] = (sum[name][at] ?? 0) + value;
      });
    group.longest.forEach((value, at) => {
      sum.longest[at] = Math.max(sum.longest[at] ?? 0, value);
    });
    sum.total += group.total;
    sum.failures += group.failures;
    if (group.worst !== null) sum.worst = Math.max(sum.worst ?? 0, group.worst);
  }
  return sum;
}
