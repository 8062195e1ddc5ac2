import { expect, it } from 'vitest';
import type { Step } from '~/api/queries';
import { pairSteps } from './diff';

const step = (stepId: number, stepName: string, output: string | null, error: string | null = null) =>
  ({ stepId, stepName, output, error }) as Step;

it('pairs steps by number and tells what differs', () => {
  const pairs = pairSteps(
    [step(0, 'reserve', '1'), step(1, 'charge', null, 'declined'), step(2, 'release', 'null')],
    [step(0, 'reserve', '1'), step(1, 'charge', '"ok"'), step(3, 'email', 'null')],
  );
  expect(pairs.map((pair) => [pair.stepId, pair.change])).toEqual([
    [0, 'same'],
    [1, 'changed'],
    [2, 'left'],
    [3, 'right'],
  ]);
});
