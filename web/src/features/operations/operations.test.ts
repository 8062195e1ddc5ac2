import { describe, expect, it, vi } from 'vitest';

vi.mock('~/ui/data', () => ({
  isActive: (status: string) => ['PENDING', 'ENQUEUED', 'DELAYED'].includes(status),
}));
const { applies, filterFacts, outcome, progress } = await import('./operations');

const counts = (total: number | null, succeeded = 0, failed = 0) => ({
  total,
  succeeded,
  failed,
  remaining: total === null ? null : total - succeeded - failed,
});

describe('operations', () => {
  it('know how far they are', () => {
    expect(progress({ state: 'RUNNING', counts: counts(null) })).toBeNull();
    expect(progress({ state: 'RUNNING', counts: counts(8, 3, 1) })).toBe(0.5);
    expect(progress({ state: 'DONE', counts: counts(0) })).toBe(1);
  });

  it('say so in words', () => {
    const of = (dryRun: boolean) => outcome({ kind: 'cancel', dryRun, counts: counts(1_200, 1_000, 2) });
    expect(of(false)).toBe('1,000 of 1,200 cancelled, 2 failed');
    expect(of(true)).toBe('1,200 workflows would be cancelled');
    expect(outcome({ kind: 'fork', dryRun: false, counts: counts(null) })).toBe('Selecting the workflows…');
  });

  it('leave out what they do nothing to', () => {
    expect(applies('cancel', 'SUCCESS')).toBe(false);
    expect(applies('resume', 'CANCELLED')).toBe(true);
    expect(applies('delete', 'PENDING')).toBe(false);
  });

  it('show a filter as facts', () => {
    expect(
      filterFacts({ status: ['ERROR', 'CANCELLED'], sortDesc: true, attributes: { a: 1 }, user: null }),
    ).toEqual([
      ['Status', 'ERROR, CANCELLED'],
      ['Attributes', '{"a":1}'],
    ]);
  });
});
