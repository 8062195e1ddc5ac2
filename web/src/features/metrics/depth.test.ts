import { expect, it } from 'vitest';
import type { Schemas } from '~/api/client';
import { depthOf, depths } from './depth';

const SPAN = { start: 0, end: 360_000, bucketMs: 60_000 };
const row = (type: string, name: string, from: number, value: number): Schemas['Metric'] => ({
  appId: 'a',
  metricType: type,
  metricName: name,
  timeBucket: new Date(from).toISOString(),
  granularity: 60,
  value,
});

it('takes of each bucket what was measured last, and at the end what waits now', () => {
  const all = depths(
    [
      row('queue_depth', 'mail', -60_000, 4),
      row('queue_depth', 'mail', 10_000, 9),
      row('queue_depth', 'print', 10_000, 1),
      row('workflow_count', 'pay', 70_000, 3),
      row('queue_depth', 'gone', 900_000, 3),
    ],
    new Map([['mail', 2]]),
    SPAN,
  );
  // At 0 s four, at 70 s nine, at 130 s none, and then nothing was measured any more.
  expect(all.get('mail')).toEqual([4, 9, 0, 0, 0, 2]);
  expect(all.get('print')).toEqual([0, 1, 0, 0, 0, 0]);
  expect(depthOf(all, SPAN, undefined)).toEqual([4, 10, 0, 0, 0, 2]);
  expect(depthOf(all, SPAN, 'print')).toEqual([0, 1, 0, 0, 0, 0]);
});

it('does not draw on for ever what was measured once', () => {
  const all = depths([row('queue_depth', 'mail', -60_000, 4)], new Map(), SPAN);
  expect(all.get('mail')).toEqual([4, 4, 4, 0, 0, 0]);
});
