import { expect, it } from 'vitest';
import type { Deployment } from '~/api/queries';
import { verdict, versionRows } from './versions';

function deployment(appVersion: string, part: Partial<Deployment> = {}): Deployment {
  return {
    appVersion,
    isLatest: false,
    drained: true,
    stranded: 0,
    oldestActiveAt: null,
    executors: { healthy: 0, disconnected: 0, dead: 0 },
    workflows: { pending: 0, enqueued: 0, delayed: 0 },
    ...part,
  };
}

it('puts the latest first, then what is stranded, then what holds work', () => {
  const rows = versionRows(
    [
      deployment('drained'),
      deployment('busy', { drained: false }),
      deployment('stuck', { drained: false, stranded: 2 }),
      deployment('new', { isLatest: true }),
    ],
    [],
  );
  expect(rows.map((row) => row.appVersion)).toEqual(['new', 'stuck', 'busy', 'drained']);
});

it('says which executors can be stopped', () => {
  const healthy = { healthy: 2, disconnected: 0, dead: 0 };
  expect(verdict(deployment('a', { executors: healthy })).detail).toContain('can be stopped');
  expect(verdict(deployment('a', { executors: healthy, drained: false })).label).toBe('In use');
  expect(verdict(deployment('a', { drained: false, stranded: 1 })).label).toBe('Stranded');
});
