import { describe, expect, it, vi } from 'vitest';
import type { Workflow } from '~/api/queries';

vi.mock('~/api/queries', () => ({}));
vi.mock('~/ui/live', () => ({}));
const { arrange, nextCursor } = await import('./useWorkflowList');

function row(id: string, createdAt: string, status = 'PENDING', updatedAt = createdAt): Workflow {
  return { workflowId: id, createdAt, updatedAt, status } as Workflow;
}

describe('arrange', () => {
  const known = [row('b', '2026-01-01T00:00:02Z'), row('a', '2026-01-01T00:00:01Z')];

  it('renews rows in their places', () => {
    const { rows } = arrange(
      known,
      [],
      [],
      [row('a', '2026-01-01T00:00:01Z', 'SUCCESS', '2026-01-01T00:00:09Z')],
    );
    expect(rows.map((each) => [each.workflowId, each.status])).toEqual([
      ['b', 'PENDING'],
      ['a', 'SUCCESS'],
    ]);
  });

  it('announces new rows and does not insert them', () => {
    const { rows, unseen } = arrange(known, [], [row('c', '2026-01-01T00:00:03Z'), ...known], []);
    expect(rows.map((each) => each.workflowId)).toEqual(['b', 'a']);
    expect(unseen.map((each) => each.workflowId)).toEqual(['c']);
  });

  it('puts adopted rows on top, once', () => {
    const fresh = row('c', '2026-01-01T00:00:03Z');
    const { rows, unseen } = arrange(known, [fresh], [fresh, ...known], []);
    expect(rows.map((each) => each.workflowId)).toEqual(['c', 'b', 'a']);
    expect(unseen).toEqual([]);
  });

  it('never lets an old answer overwrite a newer one', () => {
    const newer = row('a', '2026-01-01T00:00:01Z', 'SUCCESS', '2026-01-01T00:00:09Z');
    const { rows } = arrange([newer], [], [row('a', '2026-01-01T00:00:01Z', 'PENDING')], []);
    expect(rows[0]?.status).toBe('SUCCESS');
  });
});

describe('nextCursor', () => {
  it('continues behind rows of the same millisecond, over page borders', () => {
    const page = (from: number) =>
      Array.from({ length: 100 }, (_, at) => row(`${from + at}`, '2026-01-01T00:00:00.005Z'));
    expect(nextCursor(page(0), [page(0)])).toEqual({ at: '2026-01-01T00:00:00.005Z', skip: 100 });
    expect(nextCursor(page(100), [page(0), page(100)])).toEqual({
      at: '2026-01-01T00:00:00.005Z',
      skip: 200,
    });
  });

  it('ends with a short page', () => {
    expect(nextCursor([row('a', 'x')], [[row('a', 'x')]])).toBeUndefined();
  });
});
