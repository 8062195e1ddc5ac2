import { expect, it } from 'vitest';
import type { Recovery } from '~/api/queries';
import { byUrgency, phases, summary } from './recovery';

const at = (seconds: number) => new Date(1_767_225_600_000 + seconds * 1_000).toISOString();
const recovery = (status: Recovery['status'], took: number | null): Recovery =>
  ({
    status,
    disconnectedAt: at(0),
    deadAt: at(2),
    dispatchedAt: took === null ? null : at(3),
    completedAt: took === null ? null : at(took),
  }) as Recovery;

it('sums up what ended well, from the loss to the confirmed hand-over', () => {
  const all = [
    recovery('RECOVERED', 9),
    recovery('RECOVERED', 5),
    recovery('RECOVERED', 6),
    recovery('RECOVERED', 60),
    recovery('NOTHING_PENDING', 100),
    recovery('GRACE', null),
    recovery('STRANDED', null),
  ];
  expect(summary(all)).toEqual({ underWay: 1, recovered: 4, typical: 6_000, longest: 60_000 });
  expect(summary([])).toEqual({ underWay: 0, recovered: 0, typical: null, longest: null });
});

it('tells the phases apart, and which of them goes on', () => {
  const now = Date.parse(at(10));
  const shown = (each: Recovery) =>
    phases(each, now).map(({ name, from, to, running }) => [name, to - from, running]);
  expect(shown(recovery('RECOVERED', 5))).toEqual([
    ['Grace', 2_000, false],
    ['Looking for a taker', 1_000, false],
    ['Confirming', 2_000, false],
  ]);
  expect(shown(recovery('STRANDED', null))).toEqual([
    ['Grace', 2_000, false],
    ['Stranded', 8_000, true],
  ]);
});

it('puts stranded work first, then what goes on', () => {
  const sorted = [recovery('RECOVERED', 5), recovery('GRACE', null), recovery('STRANDED', null)].sort(
    byUrgency,
  );
  expect(sorted.map(({ status }) => status)).toEqual(['STRANDED', 'GRACE', 'RECOVERED']);
});
