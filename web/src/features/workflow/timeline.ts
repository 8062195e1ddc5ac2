import { scaleLinear } from 'd3-scale';
import type { Explanation, Step, Workflow } from '~/api/queries';
import { isActive, statusTone, type Tone } from '~/ui/data';
import { ms } from '~/ui/format';

export type Row = {
  /** Identity across renewals, and in the address. */
  key: string;
  kind: 'queue' | 'step' | 'sleep' | 'wait' | 'child' | 'now';
  label: string;
  /** The step's number, where the row is one. */
  stepId: number | null;
  workflowId: string;
  depth: number;
  /** Epoch ms; null where the SDK did not record it. */
  start: number | null;
  /** Epoch ms; null while it goes on. */
  end: number | null;
  /** When it ends by itself, if that is known: the end of a sleep. */
  until: number | null;
  tone: Tone;
  failed: boolean;
  step: Step | null;
  childId: string | null;
};

/** What is known of a workflow whose steps are shown. */
export type Known = {
  workflow: Workflow;
  steps: Step[];
  /** What it does since its last checkpoint, where that is known. */
  doing?: Doing | null;
};

/** What goes on now: which step, and the which try of how many. */
export type Doing = { label: string; since: number | null; attempt: number | null };

/** Reads what goes on now from the server's explanation; only some SDKs can tell. */
export function doingNow({
  code,
  details,
  since,
}: Pick<Explanation, 'code' | 'details' | 'since'>): Doing | null {
  const number = (name: string) => (typeof details[name] === 'number' ? details[name] : null);
  const [step, attempt, most] = [number('step'), number('attempt'), number('maxAttempts')];
  const what: Partial<Record<Explanation['code'], string>> = {
    RUNNING_STEP: 'running',
    RETRYING_STEP: 'waiting to be tried again',
    WAITING_FOR_MESSAGE: 'waiting for a message',
    WAITING_FOR_EVENT: 'waiting for an event',
    WAITING_FOR_WORKFLOW: 'waiting for a workflow',
    WAITING_FOR_DATABASE: 'waiting for the database',
  };
  const word = what[code];
  if (!word) return null;
  const tries =
    attempt === null || attempt <= 1 ? '' : `, attempt ${attempt}${most === null ? '' : ` of ${most}`}`;
  return { label: `${step === null ? '' : `step ${step} `}${word}${tries}`, since: ms(since), attempt };
}

/**
 * The rows of the timeline, in step order: the wait on a queue, every recorded step with the children that are opened
 * in place, and what has not been recorded yet because it goes on now.
 *
 * @param children the workflows started by any shown one, by id: a step that starts a child is over at once, so its
 *   bar shows the child's own life
 * @param opened the steps of children that are opened in place, by id
 */
export function timelineRows(
  known: Known,
  children: ReadonlyMap<string, Workflow>,
  opened: ReadonlyMap<string, Known>,
  depth = 0,
): Row[] {
  const { workflow, steps } = known;
  const id = workflow.workflowId;
  const key = (part: string | number) => (depth === 0 ? String(part) : `${id}:${part}`);
  const blank = {
    workflowId: id,
    depth,
    until: null,
    failed: false,
    step: null,
    childId: null,
    stepId: null,
  };
  const rows: Row[] = [];
  const created = ms(workflow.createdAt);
  const begun = ms(workflow.dequeuedAt) ?? created;
  if (workflow.queueName || workflow.status === 'DELAYED') {
    const waiting = workflow.status === 'ENQUEUED' || workflow.status === 'DELAYED';
    rows.push({
      ...blank,
      key: key('queue'),
      kind: 'queue',
      label: workflow.queueName ? `waited on ${workflow.queueName}` : 'delayed',
      start: created,
      end: waiting ? null : begun,
      until: workflow.status === 'DELAYED' ? ms(workflow.delayUntil) : null,
      tone: 'wait',
    });
  }
  for (const step of steps) {
    const row = stepRow(step, children, { ...blank, key: key(step.stepId) }, workflow);
    rows.push(row);
    // A child is named by its start and by the wait for its result; it opens below its start only.
    const inside = row.kind === 'child' && row.childId !== null ? opened.get(row.childId) : undefined;
    if (inside && depth < 16) rows.push(...timelineRows(inside, children, opened, depth + 1));
  }
  const last = rows.at(-1);
  const asleep = last?.kind === 'sleep' && last.end === null;
  if (workflow.status === 'PENDING' && !asleep) {
    rows.push({
      ...blank,
      key: key('now'),
      kind: 'now',
      label: known.doing?.label ?? 'not recorded yet',
      start: latestEnd(steps) ?? begun,
      end: null,
      tone: (known.doing?.attempt ?? 1) > 1 ? 'warn' : 'run',
    });
  }
  return rows;
}

function stepRow(
  step: Step,
  children: ReadonlyMap<string, Workflow>,
  base: Omit<Row, 'kind' | 'label' | 'start' | 'end' | 'tone'>,
  workflow: Workflow,
): Row {
  const failed = step.error !== null && step.error !== '';
  const row: Row = {
    ...base,
    kind: 'step',
    label: step.stepName,
    stepId: step.stepId,
    start: ms(step.startedAt),
    end: ms(step.completedAt) ?? ms(step.startedAt),
    tone: failed ? 'err' : 'ok',
    failed,
    step,
    childId: step.childWorkflowId,
  };
  const operation = /^(?:DBOS|segno|Segno)\.(\w+)$/.exec(step.stepName)?.[1]?.toLowerCase();
  if (operation === 'sleep') return asSleep(row, step, workflow);
  if (operation === 'recv' || operation === 'getevent' || operation === 'get_event') row.kind = 'wait';
  const child = step.childWorkflowId === null ? undefined : children.get(step.childWorkflowId);
  // Waiting for a child's result names the child too; only the start of it stands for its life.
  if (child && operation !== 'getresult' && operation !== 'get_result') {
    row.kind = 'child';
    row.start = ms(child.createdAt);
    row.end = isActive(child.status) ? null : (ms(child.completedAt) ?? ms(child.updatedAt));
    row.tone = statusTone(child.status);
    row.failed = row.tone === 'err';
  }
  return row;
}

/** A sleep is recorded when it begins, with its end as the result: that end is what the bar shows. */
function asSleep(row: Row, step: Step, workflow: Workflow): Row {
  const until = wakeTime(step.output);
  const over = workflow.status !== 'PENDING';
  const recordedEnd = ms(step.completedAt);
  if (until === null) return { ...row, kind: 'sleep', tone: 'wait' };
  const ended = over ? (ms(workflow.completedAt) ?? until) : null;
  return {
    ...row,
    kind: 'sleep',
    tone: 'wait',
    until,
    start: row.start ?? recordedEnd,
    end: ended !== null ? Math.min(until, ended) : until,
  };
}

/** Epoch ms of a wake-up as the SDKs write it: seconds (Python) or milliseconds, or null. */
export function wakeTime(output: string | null): number | null {
  if (output === null) return null;
  const value = Number(output.replaceAll('"', '').trim());
  if (!Number.isFinite(value) || value < 1e9) return null;
  return value < 1e11 ? value * 1_000 : value;
}

function latestEnd(steps: Step[]): number | null {
  let latest: number | null = null;
  for (const step of steps) {
    const end = ms(step.completedAt) ?? ms(step.startedAt);
    if (end !== null && (latest === null || end > latest)) latest = end;
  }
  return latest;
}

/** Rows whose sleep is still on, at this moment, are the place where the workflow is. */
export function isRunning(row: Row, now: number): boolean {
  return (
    row.end === null || (row.kind === 'sleep' && row.until !== null && row.until > now && row.end >= now)
  );
}

/** A stretch of time to look at closely, epoch ms. */
export type Zoom = { from: number; to: number };

/** The stretch between two places of a scale (0…1), or null when it is too short to be meant. */
export function zoomBetween(scale: Scale, one: number, other: number): Zoom | null {
  const [left, right] = [Math.min(one, other), Math.max(one, other)];
  if (right - left < 0.01) return null;
  const [from, to] = [scale.invert(left), scale.invert(right)];
  return to - from >= 1 ? { from, to } : null;
}

/** The stretch that a row takes, with some room around it. */
export function zoomTo(row: Row, now: number): Zoom | null {
  if (row.start === null) return null;
  const end = Math.max(row.end ?? now, row.start);
  const room = Math.max((end - row.start) * 0.1, 1);
  return { from: row.start - room, to: end + room };
}

/** When a cancel was asked for and when the workflow really stopped: with the end of the step that ran then. */
export function cancelled({ workflow, steps }: Known): { requested: number; effective: Step | null } | null {
  const requested = ms(workflow.completedAt) ?? ms(workflow.updatedAt);
  if (workflow.status !== 'CANCELLED' || requested === null) return null;
  const after = steps.filter((step) => (ms(step.completedAt) ?? 0) > requested);
  return { requested, effective: after.at(-1) ?? null };
}

export type Scale = {
  at: (time: number) => number;
  /** The time at a place, 0…1. */
  invert: (place: number) => number;
  ticks: number[];
  from: number;
  to: number;
};

/**
 * Maps time to 0…1. `time` is true to scale. `even` gives every stretch between two events a width by its logarithm,
 * so that milliseconds of work stay visible beside hours of sleep.
 */
export function timelineScale(
  rows: Row[],
  mode: 'time' | 'even',
  now: number,
  zoom: Zoom | null = null,
): Scale {
  if (zoom) {
    const scale = scaleLinear([zoom.from, zoom.to], [0, 1]).clamp(true);
    return {
      at: scale,
      invert: (place) => scale.invert(place),
      ticks: niceTicks(zoom.from, zoom.to),
      from: zoom.from,
      to: zoom.to,
    };
  }
  const moments: number[] = [];
  for (const row of rows) {
    if (row.start !== null) moments.push(row.start);
    const end = row.end ?? now;
    if (row.start !== null) moments.push(isRunning(row, now) ? Math.min(end, now) : end);
  }
  const from = moments.length > 0 ? moments.reduce((a, b) => Math.min(a, b)) : now - 1;
  const to = Math.max(moments.length > 0 ? moments.reduce((a, b) => Math.max(a, b)) : now, from + 1);
  if (mode === 'time') {
    const scale = scaleLinear([from, to], [0, 1]).clamp(true);
    return { at: scale, invert: (place) => scale.invert(place), ticks: niceTicks(from, to), from, to };
  }
  const marks = [...new Set([from, ...moments, to])].sort((a, b) => a - b);
  const widths = [0];
  for (let index = 1; index < marks.length; index += 1) {
    const gap = (marks[index] ?? 0) - (marks[index - 1] ?? 0);
    widths.push((widths[index - 1] ?? 0) + Math.log2(2 + gap));
  }
  const total = widths.at(-1) || 1;
  const scale = scaleLinear(
    marks,
    widths.map((width) => width / total),
  ).clamp(true);
  return { at: scale, invert: (place) => scale.invert(place), ticks: [], from, to };
}

/** Ticks at round distances from the start, which is what a reader measures from. */
function niceTicks(from: number, to: number): number[] {
  return scaleLinear()
    .domain([0, to - from])
    .ticks(6)
    .filter((tick) => tick >= 0 && tick <= to - from)
    .map((tick) => from + tick);
}
