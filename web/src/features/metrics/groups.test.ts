import { describe, expect, it } from 'vitest';
import { groups, times, together } from './groups';

const SPAN = { start: 60_000, end: 240_000, bucketMs: 60_000 };
const row = (
  name: string | null,
  status: string,
  bucket: number,
  count: number,
  maxTotalLatencyMs?: number,
) => ({
  group: { name, status, time_bucket: String(bucket) },
  count,
  ...(maxTotalLatencyMs === undefined ? {} : { maxTotalLatencyMs }),
});

describe('groups', () => {
  const all = groups(
    [
      row('pay', 'SUCCESS', 60_000, 3, 120),
      row('pay', 'ERROR', 120_000, 1, 900),
      row('pay', 'PENDING', 180_000, 2),
      row('mail', 'SUCCESS', 180_000, 9, 40),
      row(null, 'SUCCESS', 60_000, 5),
      row('pay', 'SUCCESS', 240_000, 7),
    ],
    'workflow',
    SPAN,
  );

  it('are told apart by name, the busiest first, within the span', () => {
    expect(all.map((group) => [group.name, group.total, group.failures, group.worst])).toEqual([
      ['mail', 9, 0, 40],
      ['pay', 6, 1, 900],
    ]);
    expect(all[1]).toMatchObject({
      ok: [3, 0, 0],
      failed: [0, 1, 0],
      other: [0, 0, 2],
      longest: [120, 900, 0],
    });
  });

  it('add up', () => {
    expect(together(all, SPAN)).toMatchObject({
      ok: [3, 0, 9],
      total: 15,
      longest: [120, 900, 40],
      worst: 900,
    });
    expect(together([], SPAN).worst).toBeNull();
    expect(times(SPAN)).toEqual([60, 120, 180]);
  });
});
