import type { Explanation, Step, Workflow } from '~/api/queries';
import type { Tone } from '~/ui/data';
import { age, duration, ms, plural } from '~/ui/format';
import { cancelled } from './timeline';

export type Sentence = { tone: Tone; text: string };

/** One sentence on a workflow that has ended: how, and what is left to do. Null while it may still move. */
export function ended(workflow: Workflow, steps: Step[], now: number): Sentence | null {
  const end = ms(workflow.completedAt) ?? ms(workflow.updatedAt) ?? now;
  const took = duration(end - (ms(workflow.dequeuedAt) ?? ms(workflow.createdAt) ?? now));
  const after = steps.length > 0 ? ` after ${plural(steps.length, 'recorded step')}` : '';
  switch (workflow.status) {
    case 'SUCCESS':
      return { tone: 'ok', text: `Succeeded in ${took}${after}.` };
    case 'ERROR':
      return { tone: 'err', text: `Failed in ${took}${after}: ${firstLine(workflow.error)}` };
    case 'CANCELLED':
      return { tone: 'off', text: cancelText(workflow, steps, now) };
    case 'MAX_RECOVERY_ATTEMPTS_EXCEEDED':
      return {
        tone: 'err',
        text: `Given up: it was recovered too often without finishing${after}. Its executor probably dies in the next step.`,
      };
    case 'PENDING':
    case 'ENQUEUED':
    case 'DELAYED':
      return null;
    default:
      return { tone: 'off', text: `Its status is ${workflow.status}, which this console does not know.` };
  }
}

/** Asked for and effective are two moments: a step that runs when a cancel comes is not interrupted. */
function cancelText(workflow: Workflow, steps: Step[], now: number): string {
  const stop = cancelled({ workflow, steps });
  const asked = stop?.requested ?? now;
  const last = stop?.effective;
  const effect = last
    ? ` It took effect ${duration((ms(last.completedAt) ?? asked) - asked)} later, when step ${last.stepId} “${last.stepName}” ended.`
    : ' No step ended since: one that ran then stops the workflow when it ends.';
  return `Cancelled ${age(asked, now)} after ${plural(steps.length, 'recorded step')}.${effect} Resume goes on behind the last of them.`;
}

/** The server's explanation as a sentence, with since when and until when. */
export function sentence(explanation: Explanation, now: number): Sentence {
  const { code, text, since, until } = explanation;
  const [from, to] = [ms(since), ms(until)];
  const parts = [text.charAt(0).toUpperCase() + text.slice(1).replace(/[.\s]+$/, '')];
  if (from !== null && now - from >= 1_000)
    parts.push(`for ${duration(Math.floor((now - from) / 1_000) * 1_000)} now`);
  const ends = to === null ? '' : to > now ? ` It ends by itself ${age(to, now)}.` : ' That time is over.';
  return { tone: TONES[code], text: `${parts.join(', ')}.${ends}` };
}

const TONES: Record<Explanation['code'], Tone> = {
  ENDED: 'off',
  RECOVERY_LIMIT: 'err',
  DELAYED: 'wait',
  QUEUED: 'wait',
  QUEUE_FULL: 'wait',
  QUEUE_RATE_LIMITED: 'wait',
  NO_EXECUTOR_OF_VERSION: 'warn',
  EXECUTOR_DISCONNECTED: 'warn',
  RECOVERING: 'warn',
  RECOVERY_STRANDED: 'warn',
  ABANDONED: 'warn',
  EXECUTOR_UNKNOWN: 'warn',
  EXECUTOR_UNRESPONSIVE: 'warn',
  RUNNING_STEP: 'run',
  RETRYING_STEP: 'warn',
  SLEEPING: 'wait',
  WAITING_FOR_MESSAGE: 'wait',
  WAITING_FOR_EVENT: 'wait',
  WAITING_FOR_WORKFLOW: 'wait',
  WAITING_UNTIL: 'wait',
  WAITING_FOR_DATABASE: 'warn',
  RUNNING: 'run',
};

/** A way out of where a workflow stands. */
export type Way =
  | { kind: 'fork' | 'cancel' | 'connect' | 'recovery' | 'executors' }
  | { kind: 'queue'; queue: string }
  | { kind: 'running'; queue: string }
  | { kind: 'workflow'; id: string };

/** What an operator can do about it, the most helpful first. */
export function ways({ code, details }: Pick<Explanation, 'code' | 'details'>): Way[] {
  const queue = word(details.queueName);
  const child = word(details.childWorkflowId);
  switch (code) {
    case 'NO_EXECUTOR_OF_VERSION':
      return [
        ...(details.recoveryId ? [{ kind: 'recovery' } as const] : []),
        { kind: 'connect' },
        { kind: 'fork' },
        { kind: 'cancel' },
      ];
    case 'RECOVERY_STRANDED':
    case 'EXECUTOR_UNKNOWN':
      return [{ kind: 'recovery' }, { kind: 'fork' }, { kind: 'cancel' }];
    case 'EXECUTOR_DISCONNECTED':
    case 'RECOVERING':
      return [{ kind: 'recovery' }];
    case 'ABANDONED':
      return [{ kind: 'fork' }, { kind: 'cancel' }];
    case 'EXECUTOR_UNRESPONSIVE':
      return [{ kind: 'executors' }];
    case 'QUEUED':
    case 'QUEUE_RATE_LIMITED':
      return queue ? [{ kind: 'queue', queue }] : [];
    case 'QUEUE_FULL':
      return queue
        ? [
            { kind: 'running', queue },
            { kind: 'queue', queue },
          ]
        : [];
    case 'WAITING_FOR_WORKFLOW':
      return child ? [{ kind: 'workflow', id: child }] : [];
    case 'RETRYING_STEP':
      return [{ kind: 'cancel' }];
    default:
      return [];
  }
}

function word(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

function firstLine(error: string | null): string {
  const line = (error ?? '').split('\n').find((each) => each.trim() !== '') ?? 'no error was recorded';
  return line.length > 240 ? `${line.slice(0, 240)}…` : line;
}
