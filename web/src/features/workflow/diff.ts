import type { Step } from '~/api/queries';

export type Change = 'same' | 'changed' | 'left' | 'right';
export type Pair = { stepId: number; left: Step | null; right: Step | null; change: Change };

/**
 * Two histories side by side, by step number: a fork numbers its steps like the original, so that is where they
 * correspond, and a step of another name under the same number is where the code took another way.
 */
export function pairSteps(left: Step[], right: Step[]): Pair[] {
  const pairs = new Map<number, Pair>();
  for (const step of left)
    pairs.set(step.stepId, { stepId: step.stepId, left: step, right: null, change: 'left' });
  for (const step of right) {
    const other = pairs.get(step.stepId)?.left ?? null;
    pairs.set(step.stepId, {
      stepId: step.stepId,
      left: other,
      right: step,
      change: other === null ? 'right' : same(other, step) ? 'same' : 'changed',
    });
  }
  return [...pairs.values()].sort((a, b) => a.stepId - b.stepId);
}

function same(a: Step, b: Step): boolean {
  return a.stepName === b.stepName && a.output === b.output && a.error === b.error;
}
