import { describe, expect, it } from 'vitest';
import type { Explanation, Workflow } from '~/api/queries';
import { ended, sentence, ways } from './explain';

const NOW = Date.parse('2026-01-01T00:01:00Z');

function workflow(part: Partial<Workflow>): Workflow {
  return {
    status: 'SUCCESS',
    createdAt: '2026-01-01T00:00:00Z',
    updatedAt: '2026-01-01T00:00:30Z',
    completedAt: null,
    dequeuedAt: null,
    error: null,
    ...part,
  } as Workflow;
}

function explanation(part: Partial<Explanation>): Explanation {
  return { code: 'RUNNING', text: 'it runs', since: null, until: null, details: {}, ...part };
}

describe('ended', () => {
  it('says how it ended and how long it took', () => {
    expect(ended(workflow({ completedAt: '2026-01-01T00:00:12Z' }), [], NOW)?.text).toBe(
      'Succeeded in 12 s.',
    );
    const failed = ended(
      workflow({ status: 'ERROR', error: `\n  boom ${'x'.repeat(500)}\nat line 3` }),
      [],
      NOW,
    );
    expect(failed?.tone).toBe('err');
    expect(failed?.text).toMatch(/^Failed in 30 s: {3}boom x+…$/);
  });

  it('leaves to the server what may still move', () => {
    for (const status of ['PENDING', 'ENQUEUED', 'DELAYED'])
      expect(ended(workflow({ status }), [], NOW)).toBeNull();
  });
});

describe('sentence', () => {
  it('adds since when and until when', () => {
    const { text, tone } = sentence(
      explanation({
        code: 'SLEEPING',
        text: 'it sleeps.',
        since: '2026-01-01T00:00:00Z',
        until: '2026-01-01T00:03:00Z',
      }),
      NOW,
    );
    expect(text).toBe('It sleeps, for 1 m 00 s now. It ends by itself in 2 m.');
    expect(tone).toBe('wait');
  });

  it('does not promise what is over', () => {
    expect(sentence(explanation({ until: '2026-01-01T00:00:30Z' }), NOW).text).toBe(
      'It runs. That time is over.',
    );
  });
});

describe('ways', () => {
  it('offers what helps', () => {
    const kinds = (part: Partial<Explanation>) => ways(explanation(part)).map((way) => way.kind);
    expect(kinds({ code: 'NO_EXECUTOR_OF_VERSION' })).toEqual(['connect', 'fork', 'cancel']);
    expect(kinds({ code: 'NO_EXECUTOR_OF_VERSION', details: { recoveryId: 'r' } })[0]).toBe('recovery');
    expect(kinds({ code: 'QUEUE_FULL', details: { queueName: 'mail' } })).toEqual(['running', 'queue']);
    expect(kinds({ code: 'QUEUE_FULL', details: {} })).toEqual([]);
    expect(kinds({ code: 'RUNNING' })).toEqual([]);
  });
});
