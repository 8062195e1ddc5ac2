import { describe, expect, it } from 'vitest';
import { BLANK, conditionText, faults, metadata } from './rules';

describe('a rule', () => {
  it('says its condition in words', () => {
    const text = (ruleType: Parameters<typeof conditionText>[0]['ruleType'], ruleMetadata: unknown) =>
      conditionText({ ruleType, ruleMetadata });
    expect(text('WorkflowFailure', { threshold: 3, period_secs: 600, workflow_name: 'pay' })).toBe(
      '3 failures of workflow pay within 10 m 00 s',
    );
    expect(text('SlowQueue', { threshold_secs: 90 })).toBe(
      'A workflow waits on any queue for more than 1 m 30 s',
    );
    expect(text('StrandedRecovery', {})).toBe('At least 1 workflow stranded by the loss of an executor');
  });

  it('is made of what its type uses only', () => {
    expect(metadata({ ...BLANK, threshold: '2', queueName: 'mail' })).toEqual({
      threshold: 2,
      period_secs: 60,
    });
    expect(metadata({ ...BLANK, ruleType: 'SlowQueue', queueName: ' mail ' })).toEqual({
      queue_name: 'mail',
      threshold_secs: 300,
    });
    expect(metadata({ ...BLANK, ruleType: 'UnresponsiveApplication' })).toEqual({});
  });

  it('knows what is wrong with its numbers', () => {
    expect(faults({ ...BLANK, threshold: '0' })).toHaveProperty('threshold');
    expect(faults({ ...BLANK, wait: 'soon' })).toEqual({});
    expect(faults({ ...BLANK, interval: '-1' })).toHaveProperty('interval');
  });
});
