import { Cron } from 'croner';

/** The next `count` moments after `now` at which a schedule fires; null when its expression is not understood here. */
export function nextFirings(
  expression: string,
  timezone: string | null,
  now: number,
  count: number,
): Date[] | null {
  try {
    return new Cron(expression, { timezone: timezone ?? 'UTC', paused: true }).nextRuns(count, new Date(now));
  } catch {
    return null;
  }
}

/** How often a schedule fires from `start` on and before `end`, at most `limit`; null when it is not understood here. */
export function firingsWithin(
  expression: string,
  timezone: string | null,
  start: number,
  end: number,
  limit: number,
): number | null {
  // A moment before the start, for the start itself counts.
  const firings = nextFirings(expression, timezone, start - 1_000, limit);
  return firings?.filter((each) => each.getTime() >= start && each.getTime() < end).length ?? null;
}
