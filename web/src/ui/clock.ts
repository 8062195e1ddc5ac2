import { useSyncExternalStore } from 'react';

/**
 * One clock for the whole console: server time, ticking once a second, so that ages on the screen
 * change together and a workstation with a wrong clock still shows true ages.
 */
let offset = 0;
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;
const listeners = new Set<() => void>();

/** Corrects the clock from a `Date` header; it has whole seconds, so small differences are noise. */
export function noteServerTime(date: string | null): void {
  const server = date ? Date.parse(date) : Number.NaN;
  if (Number.isNaN(server)) return;
  const difference = server + 500 - Date.now();
  offset = Math.abs(difference) > 2_000 ? difference : 0;
}

/** Server time now, in epoch milliseconds. */
export function serverNow(): number {
  return Date.now() + offset;
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = serverNow();
    for (const each of listeners) each();
  }, 1_000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** Server time in epoch milliseconds, renewed every second. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => (timer ? now : serverNow0()));
}

// Before the first tick the snapshot has to be stable between two reads of one render.
function serverNow0(): number {
  now = Math.floor(serverNow() / 1_000) * 1_000;
  return now;
}
