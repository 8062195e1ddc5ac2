import { expect, it, vi } from 'vitest';

vi.mock('./client', () => ({}));
vi.mock('./session', () => ({ orgName: () => 'local' }));
const { isMadeOld } = await import('./stream');

const APP = '/v2/orgs/{orgName}/apps/{appName}';
const key = (path: string, appName = 'shop') => [
  'get',
  path,
  { params: { path: { orgName: 'local', appName } } },
];

it('renews what a change concerns, in that application only', () => {
  const told = new Set(['executor'] as const);
  expect(isMadeOld(key(`${APP}/executors`), 'shop', told)).toBe(true);
  expect(isMadeOld(key(`${APP}/deployments`), 'shop', told)).toBe(true);
  expect(isMadeOld(key(`${APP}/recoveries`), 'shop', told)).toBe(true);
  expect(isMadeOld(key(`${APP}/operations`), 'shop', told)).toBe(false);
  expect(isMadeOld(key(`${APP}/executors`, 'other'), 'shop', told)).toBe(false);
  expect(isMadeOld(['workflows', 'shop', '{}'], 'shop', told)).toBe(false);
});

it('renews everything when something was missed', () => {
  for (const path of [
    '/executors',
    '/recoveries',
    '/operations',
    '/operations/{operationId}',
    '/deployments',
  ]) {
    expect(isMadeOld(key(`${APP}${path}`), 'shop', new Set(['missed'] as const))).toBe(true);
  }
});
