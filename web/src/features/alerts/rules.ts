import type { AlertingRule } from '~/api/queries';
import { duration, plural } from '~/ui/format';

export type RuleType = AlertingRule['ruleType'];

export const RULE_TYPES: Record<RuleType, { label: string; hint: string }> = {
  WorkflowFailure: {
    label: 'Workflows fail',
    hint: 'When so many end with an error, or are given up, within a time.',
  },
  SlowQueue: { label: 'A queue is slow', hint: 'When a workflow waits on a queue for too long.' },
  StrandedRecovery: {
    label: 'Work is stranded',
    hint: 'When a dead executor left workflows behind that nobody can take.',
  },
  UnresponsiveApplication: {
    label: 'The application does not answer',
    hint: 'When no executor is connected, or none of those connected answers. Another application must be told.',
  },
};

/** What a form holds: every field as typed, whichever the type uses. */
export type Draft = {
  ruleType: RuleType;
  workflowName: string;
  threshold: string;
  period: string;
  queueName: string;
  wait: string;
  workflows: string;
  interval: string;
  receiver: string;
};

export const BLANK: Draft = {
  ruleType: 'WorkflowFailure',
  workflowName: '',
  threshold: '1',
  period: '60',
  queueName: '',
  wait: '300',
  workflows: '1',
  interval: '',
  receiver: '',
};

/** What is wrong with a draft's numbers, by field. */
export function faults(draft: Draft): Partial<Record<keyof Draft, string>> {
  const used: (keyof Draft)[] =
    draft.ruleType === 'WorkflowFailure'
      ? ['threshold', 'period']
      : draft.ruleType === 'SlowQueue'
        ? ['wait']
        : draft.ruleType === 'StrandedRecovery'
          ? ['workflows']
          : [];
  const found: Partial<Record<keyof Draft, string>> = {};
  for (const field of used) {
    if (!/^[1-9]\d{0,8}$/.test(draft[field].trim())) found[field] = 'A whole number, at least 1.';
  }
  if (draft.interval.trim() !== '' && !/^\d{1,9}$/.test(draft.interval.trim()))
    found.interval = 'A whole number of seconds, or nothing.';
  return found;
}

/** The condition of a draft, in the names of the API. */
export function metadata(draft: Draft): Record<string, string | number> {
  const named = (name: string, value: string) => (value.trim() === '' ? {} : { [name]: value.trim() });
  switch (draft.ruleType) {
    case 'WorkflowFailure':
      return {
        ...named('workflow_name', draft.workflowName),
        threshold: Number(draft.threshold),
        period_secs: Number(draft.period),
      };
    case 'SlowQueue':
      return { ...named('queue_name', draft.queueName), threshold_secs: Number(draft.wait) };
    case 'StrandedRecovery':
      return { min_workflows: Number(draft.workflows) };
    case 'UnresponsiveApplication':
      return {};
  }
}

/** A rule's condition in words. */
export function conditionText(rule: Pick<AlertingRule, 'ruleType' | 'ruleMetadata'>): string {
  const said = (rule.ruleMetadata ?? {}) as Record<string, unknown>;
  const number = (name: string, otherwise: number) => Number(said[name] ?? otherwise);
  const of = (name: string, some: string) =>
    typeof said[name] === 'string' && said[name] !== '' ? `${some} ${said[name]}` : `any ${some}`;
  const secs = (name: string, otherwise: number) => duration(number(name, otherwise) * 1_000);
  switch (rule.ruleType) {
    case 'WorkflowFailure': {
      const times = plural(number('threshold', 1), 'failure');
      return `${times} of ${of('workflow_name', 'workflow')} within ${secs('period_secs', 60)}`;
    }
    case 'SlowQueue':
      return `A workflow waits on ${of('queue_name', 'queue')} for more than ${secs('threshold_secs', 0)}`;
    case 'StrandedRecovery':
      return `At least ${plural(number('min_workflows', 1), 'workflow')} stranded by the loss of an executor`;
    case 'UnresponsiveApplication':
      return 'No executor is connected, or none of those connected answers';
  }
}
