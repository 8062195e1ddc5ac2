import { expect, it } from 'vitest';
import { firingsWithin, nextFirings } from './firings';

const NOW = Date.parse('2026-03-01T12:00:30Z');

it('computes the next firings, with five and with six fields, in the time zone', () => {
  expect(nextFirings('0 0 * * *', 'Europe/Berlin', NOW, 1)?.[0]?.toISOString()).toBe(
    '2026-03-01T23:00:00.000Z',
  );
  expect(nextFirings('*/10 * * * * *', null, NOW, 2)?.map((each) => each.toISOString())).toEqual([
    '2026-03-01T12:00:40.000Z',
    '2026-03-01T12:00:50.000Z',
  ]);
  expect(nextFirings('whenever', null, NOW, 1)).toBeNull();
});

it('counts what a backfill would start', () => {
  const hour = Date.parse('2026-03-01T12:00:00Z');
  expect(firingsWithin('*/15 * * * *', null, hour, hour + 3_600_000, 100)).toBe(4);
  expect(firingsWithin('* * * * *', null, hour, hour + 3_600_000, 10)).toBe(10);
});
