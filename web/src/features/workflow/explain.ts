import type { Executor, Recovery, Step, Workflow } from '~/api/queries';
import type { Tone } from '~/ui/data';
import { age, duration, ms, plural } from '~/ui/format';
import { reasonText } from '../recovery/recovery';
import { wakeTime } from './timeline';

export type Facts = {
  workflow: Workflow;
  steps: Step[];
  /** Null while they are not known. */
  executors: Executor[] | null;
  /** Losses of this workflow's executor. */
  recoveries: Recovery[];
  /** Seconds of grace of the application. */
  grace: number;
  now: number;
};

export type Explanation = { tone: Tone; text: string };

/** One sentence: what this workflow is doing or why it is not, and what will happen next. */
export function explain(facts: Facts): Explanation {
  const { workflow, steps, now } = facts;
  const took = (until: string | null) =>
    duration(
      (ms(until) ?? ms(workflow.updatedAt) ?? now) -
        (ms(workflow.dequeuedAt) ?? ms(workflow.createdAt) ?? now),
    );
  const after = steps.length > 0 ? ` after ${plural(steps.length, 'recorded step')}` : '';
  switch (workflow.status) {
    case 'SUCCESS':
      return { tone: 'ok', text: `Succeeded in ${took(workflow.completedAt)}${after}.` };
    case 'ERROR':
      return {
        tone: 'err',
        text: `Failed in ${took(workflow.completedAt)}${after}: ${firstLine(workflow.error)}`,
      };
    case 'CANCELLED':
      return {
        tone: 'off',
        text: `Cancelled ${age(ms(workflow.completedAt) ?? ms(workflow.updatedAt) ?? now, now)}${after}. Resume continues behind the last of them.`,
      };
    case 'MAX_RECOVERY_ATTEMPTS_EXCEEDED':
      return {
        tone: 'err',
        text: `Given up: it was recovered too often without finishing${after}. Its executor probably dies in the next step.`,
      };
    case 'DELAYED':
      return {
        tone: 'wait',
        text: `Delayed: it is put on ${queue(workflow)} ${age(ms(workflow.delayUntil) ?? now, now)}.`,
      };
    case 'ENQUEUED':
      return enqueued(facts);
    case 'PENDING':
      return pending(facts);
    default:
      return { tone: 'off', text: `Its status is ${workflow.status}, which this console does not know.` };
  }
}

function enqueued({ workflow, executors, now }: Facts): Explanation {
  const waiting = `Waiting on ${queue(workflow)} for ${duration(now - (ms(workflow.createdAt) ?? now))}`;
  const version = workflow.appVersion;
  if (
    executors &&
    version &&
    !executors.some((each) => each.status === 'HEALTHY' && each.appVersion === version)
  ) {
    return { tone: 'warn', text: `${waiting}, but no connected executor runs its version ${version}.` };
  }
  return { tone: 'wait', text: `${waiting}. An executor takes it when the queue’s limits allow.` };
}

function pending(facts: Facts): Explanation {
  const { workflow, executors, now } = facts;
  if (!executors) return { tone: 'run', text: progress(facts) };
  const owner = executors.find(
    (each) =>
      each.executorId === workflow.executorId &&
      (workflow.appVersion === null || each.appVersion === workflow.appVersion),
  );
  if (!owner) return ownerless(facts);
  if (owner.status === 'DISCONNECTED') {
    const left = Math.max(0, (ms(owner.updatedAt) ?? now) + facts.grace * 1_000 - now);
    return {
      tone: 'warn',
      text: `Its executor ${owner.executorId} lost its connection. It may still be running; unless it returns within ${duration(left)}, its work is handed on.`,
    };
  }
  if (owner.status === 'DEAD') return dead(facts, owner);
  if (owner.unresponsiveSince) {
    return {
      tone: 'warn',
      text: `Its executor ${owner.executorId} is connected but has not answered for ${duration(now - (ms(owner.unresponsiveSince) ?? now))}.`,
    };
  }
  return { tone: 'run', text: progress(facts) };
}

function dead(facts: Facts, owner: Executor): Explanation {
  const recovery = openRecovery(facts);
  if (recovery?.status === 'STRANDED')
    return { tone: 'warn', text: `Stranded: its executor died. ${reasonText(recovery)}` };
  return {
    tone: 'warn',
    text: `Its executor ${owner.executorId} died; its work is being handed to another of the same version.`,
  };
}

function ownerless(facts: Facts): Explanation {
  const { workflow } = facts;
  const recovery = openRecovery(facts);
  if (recovery?.status === 'STRANDED')
    return { tone: 'warn', text: `Stranded: its executor died. ${reasonText(recovery)}` };
  if (recovery)
    return {
      tone: 'warn',
      text: 'Its executor died; its work is being handed to another of the same version.',
    };
  if (facts.recoveries.some((each) => each.status === 'ABANDONED')) {
    return {
      tone: 'off',
      text: 'Nobody runs it: its executor died, and its work was given up by an operator.',
    };
  }
  return {
    tone: 'warn',
    text: `It belongs to executor ${workflow.executorId ?? '(none)'}, which this server does not know: it may be running without a connection, or nobody runs it.`,
  };
}

function openRecovery({ recoveries }: Facts): Recovery | undefined {
  const open = recoveries.filter((each) => ['STRANDED', 'DISPATCHING', 'GRACE'].includes(each.status));
  return open.find((each) => each.status === 'STRANDED') ?? open[0];
}

function progress({ workflow, steps, now }: Facts): string {
  const on = workflow.executorId ? ` on ${workflow.executorId}` : '';
  const last = steps.at(-1);
  if (!last)
    return `Running${on} for ${duration(now - (ms(workflow.dequeuedAt) ?? ms(workflow.createdAt) ?? now))}; no step is recorded yet.`;
  const wake = /\.sleep$/i.test(last.stepName) ? wakeTime(last.output) : null;
  if (wake !== null && wake > now) return `Sleeping${on}; it goes on ${age(wake, now)}.`;
  const since = ms(last.completedAt) ?? ms(last.startedAt);
  const ago = since === null ? '' : ` ${duration(now - since)} ago`;
  return `Running${on}; step ${last.stepId} “${last.stepName}” was recorded${ago}, the next is not recorded yet.`;
}

function queue(workflow: Workflow): string {
  return workflow.queueName ? `queue ${workflow.queueName}` : 'its queue';
}

function firstLine(error: string | null): string {
  const line = (error ?? '').split('\n').find((each) => each.trim() !== '') ?? 'no error was recorded';
  return line.length > 240 ? `${line.slice(0, 240)}…` : line;
}
