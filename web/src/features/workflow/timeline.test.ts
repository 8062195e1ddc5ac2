import { describe, expect, it } from 'vitest';
import type { Step, Workflow } from '~/api/queries';
import {
  cancelled,
  doingNow,
  isRunning,
  timelineRows,
  timelineScale,
  wakeTime,
  zoomBetween,
  zoomTo,
} from './timeline';

const T = Date.parse('2026-01-01T00:00:00Z');
const at = (offset: number) => new Date(T + offset).toISOString();

function workflow(part: Partial<Workflow>): Workflow {
  return {
    workflowId: 'w',
    status: 'SUCCESS',
    createdAt: at(0),
    updatedAt: at(9_000),
    completedAt: null,
    dequeuedAt: null,
    queueName: null,
    delayUntil: null,
    ...part,
  } as Workflow;
}

function step(
  stepId: number,
  name: string,
  from: number | null,
  to: number | null,
  part: Partial<Step> = {},
): Step {
  return {
    stepId,
    stepName: name,
    startedAt: from === null ? null : at(from),
    completedAt: to === null ? null : at(to),
    output: null,
    error: null,
    childWorkflowId: null,
    ...part,
  };
}

describe('timelineRows', () => {
  it('shows the wait, the steps and what goes on now', () => {
    const rows = timelineRows(
      {
        workflow: workflow({ status: 'PENDING', queueName: 'q', dequeuedAt: at(500) }),
        steps: [step(0, 'a', 500, 700), step(1, 'b', 700, 1_000, { error: 'no' })],
      },
      new Map(),
      new Map(),
    );
    expect(rows.map((row) => [row.kind, row.start, row.end])).toEqual([
      ['queue', T, T + 500],
      ['step', T + 500, T + 700],
      ['step', T + 700, T + 1_000],
      ['now', T + 1_000, null],
    ]);
    expect(rows[2]?.failed).toBe(true);
  });

  it('starts now after the step that ended last, though steps ran side by side', () => {
    const rows = timelineRows(
      {
        workflow: workflow({ status: 'PENDING' }),
        steps: [step(0, 'slow', 0, 900), step(1, 'fast', 0, 100)],
      },
      new Map(),
      new Map(),
    );
    expect(rows.at(-1)?.start).toBe(T + 900);
  });

  it('shows a child by its own life, and its steps in place when opened', () => {
    const child = workflow({ workflowId: 'c', createdAt: at(100), completedAt: at(5_000), status: 'ERROR' });
    const known = {
      workflow: workflow({}),
      steps: [
        step(0, 'start child', 100, 101, { childWorkflowId: 'c' }),
        step(1, 'DBOS.getResult', 101, 5_000, { childWorkflowId: 'c' }),
      ],
    };
    const children = new Map([['c', child]]);
    expect(
      timelineRows(known, children, new Map()).map((row) => [row.kind, row.start, row.end, row.tone]),
    ).toEqual([
      ['child', T + 100, T + 5_000, 'err'],
      ['step', T + 101, T + 5_000, 'ok'],
    ]);
    const opened = timelineRows(
      known,
      children,
      new Map([['c', { workflow: child, steps: [step(0, 'inner', 200, 300)] }]]),
    );
    expect(opened.map((row) => [row.key, row.depth])).toContainEqual(['c:0', 1]);
    expect(opened.filter((row) => row.key === 'c:0')).toHaveLength(1);
  });

  it('shows a sleep until it ends, and not longer than the workflow lived', () => {
    const asleep = step(0, 'DBOS.sleep', 0, 1, { output: String((T + 60_000) / 1_000) });
    const running = timelineRows(
      { workflow: workflow({ status: 'PENDING' }), steps: [asleep] },
      new Map(),
      new Map(),
    );
    expect(running[0]).toMatchObject({ kind: 'sleep', start: T, end: T + 60_000 });
    expect(isRunning(running[0] as never, T + 5_000)).toBe(true);
    const cut = timelineRows(
      { workflow: workflow({ status: 'CANCELLED', completedAt: at(10_000) }), steps: [asleep] },
      new Map(),
      new Map(),
    );
    expect(cut[0]?.end).toBe(T + 10_000);
  });

  it('copes with steps whose times are unknown', () => {
    const rows = timelineRows(
      { workflow: workflow({}), steps: [step(0, 'old', null, null)] },
      new Map(),
      new Map(),
    );
    expect(rows[0]).toMatchObject({ start: null, end: null });
  });
});

describe('timelineScale', () => {
  const rows = timelineRows(
    {
      workflow: workflow({}),
      steps: [step(0, 'ms', 0, 10), step(1, 'hour', 10, 3_600_000), step(2, 'ms', 3_600_000, 3_600_010)],
    },
    new Map(),
    new Map(),
  );

  it('is true to scale, or gives short stretches room', () => {
    const time = timelineScale(rows, 'time', T);
    expect(time.at(T + 1_800_005)).toBeCloseTo(0.5, 3);
    const even = timelineScale(rows, 'even', T);
    expect(even.at(T + 10)).toBeGreaterThan(0.1);
    expect(even.at(T)).toBe(0);
    expect(even.at(T + 3_600_010)).toBe(1);
  });

  it('has a width without any row', () => {
    const scale = timelineScale([], 'time', T);
    expect(scale.to).toBeGreaterThan(scale.from);
  });
});

describe('zoom', () => {
  const rows = timelineRows(
    { workflow: workflow({}), steps: [step(0, 'a', 0, 1_000), step(1, 'b', 1_000, 9_000)] },
    new Map(),
    new Map(),
  );

  it('looks at the stretch that was brushed, either way', () => {
    const all = timelineScale(rows, 'time', T);
    expect(zoomBetween(all, 0.5, 0.25)).toEqual({ from: T + 2_250, to: T + 4_500 });
    expect(zoomBetween(all, 0.5, 0.505)).toBeNull();
    const close = timelineScale(rows, 'even', T, { from: T + 1_000, to: T + 2_000 });
    expect(close.at(T + 1_500)).toBeCloseTo(0.5);
    expect(close.at(T)).toBe(0);
  });

  it('frames a row', () => {
    expect(zoomTo(rows[1] as never, T)).toEqual({ from: T + 200, to: T + 9_800 });
  });
});

it('tells a cancel that was asked for from one that took effect', () => {
  const stopped = workflow({ status: 'CANCELLED', completedAt: at(1_000) });
  const late = step(1, 'slow', 500, 4_000);
  expect(cancelled({ workflow: stopped, steps: [step(0, 'a', 0, 500), late] })).toEqual({
    requested: T + 1_000,
    effective: late,
  });
  expect(cancelled({ workflow: stopped, steps: [step(0, 'a', 0, 500)] })?.effective).toBeNull();
  expect(cancelled({ workflow: workflow({}), steps: [] })).toBeNull();
});

it('names what goes on now and the which try it is', () => {
  const doing = doingNow({
    code: 'RETRYING_STEP',
    details: { step: 7, attempt: 3, maxAttempts: 5 },
    since: at(0),
  });
  expect(doing?.label).toBe('step 7 waiting to be tried again, attempt 3 of 5');
  const rows = timelineRows(
    { workflow: workflow({ status: 'PENDING' }), steps: [], doing },
    new Map(),
    new Map(),
  );
  expect(rows.at(-1)).toMatchObject({ kind: 'now', label: doing?.label, tone: 'warn' });
  expect(doingNow({ code: 'RUNNING', details: {}, since: null })).toBeNull();
});

it('reads wake times of all SDKs', () => {
  expect(wakeTime('1767225600.5')).toBe(1_767_225_600_500);
  expect(wakeTime('"1767225600500"')).toBe(1_767_225_600_500);
  expect(wakeTime('null')).toBeNull();
  expect(wakeTime('soon')).toBeNull();
});
