import { expect, it } from 'vitest';
import type { Queue } from '~/api/queries';
import { isInternal, queueRows } from './queues';

it('shows declared queues and those that hold work without being declared', () => {
  const rows = queueRows(
    [{ name: 'idle' } as Queue, { name: 'mail' } as Queue],
    [
      { group: { queue_name: 'mail', status: 'PENDING' }, count: 2 },
      { group: { queue_name: 'gone', status: 'ENQUEUED' }, count: 7, minCreatedAt: '2026-01-01T00:00:00Z' },
      { group: { queue_name: null, status: 'PENDING' }, count: 9 },
    ],
  );
  expect(rows.map((row) => [row.name, row.queue !== null, row.enqueued, row.pending, row.oldest])).toEqual([
    ['gone', false, 7, 0, '2026-01-01T00:00:00Z'],
    ['idle', true, 0, 0, null],
    ['mail', true, 0, 2, null],
  ]);
});

it('knows the queue of the SDKs themselves', () => {
  expect(isInternal('_dbos_internal_queue')).toBe(true);
  expect(isInternal('mail')).toBe(false);
});
