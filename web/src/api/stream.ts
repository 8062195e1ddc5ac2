import type { QueryKey } from '@tanstack/react-query';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { client, queryClient } from './client';
import { Problem } from './problem';
import { orgName } from './session';

/** What the server tells while one follows an application. */
export type Told = 'ready' | 'executor' | 'recovery' | 'operation' | 'missed';

const APP = '/v2/orgs/{orgName}/apps/{appName}';

/** The reads that each kind of change makes old, by the end of their path. */
const MADE_OLD: Record<Told, string[]> = {
  // That one is lost opens a recovery in grace, which is told as the loss only.
  executor: ['/executors', '/recoveries', '/deployments', '/explain'],
  recovery: ['/recoveries', '/deployments', '/explain'],
  operation: ['/operations', '/operations/{operationId}'],
  ready: [
    '/executors',
    '/deployments',
    '/explain',
    '/recoveries',
    '/operations',
    '/operations/{operationId}',
  ],
  missed: [
    '/executors',
    '/deployments',
    '/explain',
    '/recoveries',
    '/operations',
    '/operations/{operationId}',
  ],
};

/** Whether a cached read says something that `told` may have changed. */
export function isMadeOld(key: QueryKey, app: string, told: ReadonlySet<Told>): boolean {
  const [, path, init] = key as [unknown, unknown, { params?: { path?: { appName?: string } } } | undefined];
  if (typeof path !== 'string' || init?.params?.path?.appName !== app) return false;
  return [...told].some((each) => MADE_OLD[each].some((end) => path.endsWith(end)));
}

/** Longest between two tries, milliseconds. */
const LONGEST_PAUSE = 30_000;
/** Changes come in bursts: what they concern is read once for all that arrive in this time. */
const GATHERED = 150;

/**
 * Follows an application until `signal` is aborted, and has read anew what changes. `onState` hears whether nothing is
 * missed at the moment: while it is false, what is shown must be polled.
 */
export async function follow(
  app: string,
  signal: AbortSignal,
  onState: (following: boolean) => void,
): Promise<void> {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      await read(app, signal, () => {
        failures = 0;
        onState(true);
      });
    } catch (error) {
      // Not allowed, or no such application: nothing to follow, however often one asks.
      if (['refused', 'missing'].includes(Problem.of(error).kind)) return;
    }
    if (signal.aborted) return;
    onState(false);
    await pause(Math.min(1_000 * 2 ** failures, LONGEST_PAUSE), signal);
  }
}

async function read(app: string, signal: AbortSignal, onReady: () => void): Promise<void> {
  const { data } = await client.GET(`${APP}/stream`, {
    params: { path: { orgName: orgName(), appName: app } },
    parseAs: 'stream',
    signal,
  });
  if (!data) return;
  const events = data.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  const renew = gathering(app);
  const reader = events.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const told = value.event;
    if (told === undefined || !(told in MADE_OLD)) continue;
    if (told === 'ready') onReady();
    renew(told as Told);
  }
}

function gathering(app: string): (told: Told) => void {
  let waiting: Set<Told> | null = null;
  return (told) => {
    if (waiting) {
      waiting.add(told);
      return;
    }
    const gathered = new Set([told]);
    waiting = gathered;
    setTimeout(() => {
      waiting = null;
      void queryClient.invalidateQueries({ predicate: ({ queryKey }) => isMadeOld(queryKey, app, gathered) });
    }, GATHERED);
  };
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      done();
    });
  });
}
