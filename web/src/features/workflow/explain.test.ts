import { describe, expect, it } from 'vitest';
import type { Executor, Recovery, Step, Workflow } from '~/api/queries';
import { explain, type Facts } from './explain';

const NOW = Date.parse('2026-01-01T00:01:00Z');

function facts(workflow: Partial<Workflow>, part: Partial<Facts> = {}): Facts {
  return {
    workflow: {
      status: 'PENDING',
      createdAt: '2026-01-01T00:00:00Z',
      updatedAt: '2026-01-01T00:00:00Z',
      completedAt: null,
      dequeuedAt: null,
      executorId: 'e1',
      appVersion: 'v1',
      queueName: null,
      error: null,
      ...workflow,
    } as Workflow,
    steps: [],
    executors: [
      {
        executorId: 'e1',
        appVersion: 'v1',
        status: 'HEALTHY',
        updatedAt: '2026-01-01T00:00:00Z',
      } as Executor,
    ],
    recoveries: [],
    grace: 90,
    now: NOW,
    ...part,
  };
}

const executor = (status: string) =>
  [{ executorId: 'e1', appVersion: 'v1', status, updatedAt: '2026-01-01T00:00:00Z' }] as Executor[];

describe('explain', () => {
  it('says where a running workflow is', () => {
    const steps = [
      { stepId: 2, stepName: 'charge', completedAt: '2026-01-01T00:00:56Z', output: null } as Step,
    ];
    expect(explain(facts({}, { steps })).text).toBe(
      'Running on e1; step 2 “charge” was recorded 4.0 s ago, the next is not recorded yet.',
    );
  });

  it('says until when it sleeps', () => {
    const steps = [{ stepId: 0, stepName: 'DBOS.sleep', output: String(NOW / 1_000 + 30) } as Step];
    expect(explain(facts({}, { steps })).text).toBe('Sleeping on e1; it goes on in 30 s.');
  });

  it('does not call a workflow running whose executor is away', () => {
    expect(explain(facts({}, { executors: executor('DISCONNECTED') }))).toMatchObject({ tone: 'warn' });
    expect(explain(facts({}, { executors: executor('DISCONNECTED') })).text).toContain('within 30 s');
    expect(explain(facts({}, { executors: executor('DEAD') })).text).toContain('being handed');
  });

  it('does not take an executor of the same id and another version for its owner', () => {
    const other = [{ executorId: 'e1', appVersion: 'v2', status: 'HEALTHY' }] as Executor[];
    expect(explain(facts({}, { executors: other })).text).toContain('does not know');
  });

  it('gives the reason why it is stranded', () => {
    const recoveries = [{ status: 'STRANDED', reason: 'NO_MATCHING_VERSION', appVersion: 'v1' } as Recovery];
    expect(explain(facts({}, { executors: [], recoveries })).text).toContain(
      'No connected executor runs version v1',
    );
  });

  it('says that a queue cannot move for want of the version', () => {
    const result = explain(facts({ status: 'ENQUEUED', queueName: 'q', appVersion: 'v9' }));
    expect(result).toEqual({
      tone: 'warn',
      text: 'Waiting on queue q for 1 m 00 s, but no connected executor runs its version v9.',
    });
  });

  it('shows the first line of an error', () => {
    expect(explain(facts({ status: 'ERROR', error: '\nDeclined\n  at pay' })).text).toContain(': Declined');
  });
});
