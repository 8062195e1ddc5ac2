import type { By } from './groups';

export const SPANS = {
  '1h': { label: '1 h', buckets: 60, bucketMs: 60_000 },
  '6h': { label: '6 h', buckets: 72, bucketMs: 300_000 },
  '24h': { label: '24 h', buckets: 48, bucketMs: 1_800_000 },
  '7d': { label: '7 d', buckets: 56, bucketMs: 10_800_000 },
} as const;
export type SpanName = keyof typeof SPANS;

export type MetricsView = { by: By; span: SpanName; name?: string | undefined };
