import type { Operation, OperationBody } from '~/api/queries';
import { isActive, type Tone } from '~/ui/data';
import { count, plural } from '~/ui/format';

export type Kind = Operation['kind'];

export const KINDS: Record<Kind, { title: string; verb: string; done: string; danger: boolean }> = {
  cancel: { title: 'Cancel', verb: 'Cancel them', done: 'cancelled', danger: true },
  resume: { title: 'Resume', verb: 'Resume them', done: 'resumed', danger: false },
  fork: { title: 'Fork', verb: 'Fork them', done: 'forked', danger: false },
  delete: { title: 'Delete', verb: 'Delete them', done: 'deleted', danger: true },
};

/** Whether the action does anything to a workflow of this status; the others are left out and said so. */
export function applies(kind: Kind, status: string): boolean {
  switch (kind) {
    case 'cancel':
      return isActive(status);
    case 'resume':
      return status === 'CANCELLED' || status === 'MAX_RECOVERY_ATTEMPTS_EXCEEDED';
    case 'delete':
      return !isActive(status);
    case 'fork':
      return true;
  }
}

export const STATES: Record<Operation['state'], { label: string; tone: Tone; final: boolean }> = {
  WAITING_FOR_EXECUTOR: { label: 'Waiting for an executor', tone: 'warn', final: false },
  RUNNING: { label: 'Running', tone: 'run', final: false },
  DONE: { label: 'Done', tone: 'ok', final: true },
  ABORTED: { label: 'Aborted', tone: 'off', final: true },
  FAILED: { label: 'Failed', tone: 'err', final: true },
};

export function isFinal(operation: Pick<Operation, 'state'>): boolean {
  return STATES[operation.state].final;
}

/** How much of an operation is done, 0…1; null until its workflows are selected. */
export function progress({ counts, state }: Pick<Operation, 'counts' | 'state'>): number | null {
  if (counts.total === null) return null;
  if (counts.total === 0) return STATES[state].final ? 1 : 0;
  return (counts.succeeded + counts.failed) / counts.total;
}

/** How far it is, in words. */
export function outcome(operation: Pick<Operation, 'counts' | 'kind' | 'dryRun'>): string {
  const { counts, kind, dryRun } = operation;
  if (counts.total === null) return 'Selecting the workflows…';
  if (dryRun) return `${plural(counts.total, 'workflow')} would be ${KINDS[kind].done}`;
  const failed = counts.failed > 0 ? `, ${count(counts.failed)} failed` : '';
  return `${count(counts.succeeded)} of ${count(counts.total)} ${KINDS[kind].done}${failed}`;
}

/** What is meant by an operation: chosen workflows, or all that match. */
export type Target = { workflowIds: string[] } | { filter: NonNullable<OperationBody['filter']> };

/** A filter as short facts for people: `status: ERROR`, `created since: …`. */
export function filterFacts(filter: Record<string, unknown>): [name: string, value: string][] {
  return Object.entries(filter)
    .filter(([name, value]) => name !== 'sortDesc' && value !== null && value !== undefined)
    .map(([name, value]) => [
      NAMES[name] ?? name,
      Array.isArray(value)
        ? value.join(', ')
        : typeof value === 'object'
          ? JSON.stringify(value)
          : String(value),
    ]);
}

const NAMES: Record<string, string> = {
  status: 'Status',
  workflowName: 'Name',
  appVersion: 'Version',
  executorId: 'Executor',
  queueName: 'Queue',
  user: 'User',
  workflowIdPrefix: 'Id starts with',
  workflowIds: 'Ids',
  parentWorkflowId: 'Parent',
  forkedFrom: 'Forked from',
  scheduleName: 'Schedule',
  startTime: 'Created since',
  endTime: 'Created until',
  completedAfter: 'Completed after',
  completedBefore: 'Completed before',
  hasParent: 'Is a child',
  wasForkedFrom: 'Has forks',
  queuesOnly: 'On a queue',
  attributes: 'Attributes',
};
