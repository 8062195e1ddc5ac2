import type { Recovery } from '~/api/queries';
import type { Tone } from '~/ui/data';
import { ms } from '~/ui/format';

export const RECOVERY_STATUS: Record<Recovery['status'], { label: string; tone: Tone; open: boolean }> = {
  GRACE: { label: 'In grace', tone: 'run', open: true },
  DISPATCHING: { label: 'Handing over', tone: 'run', open: true },
  STRANDED: { label: 'Stranded', tone: 'warn', open: true },
  RECOVERED: { label: 'Recovered', tone: 'ok', open: false },
  REJOINED: { label: 'Came back', tone: 'ok', open: false },
  NOTHING_PENDING: { label: 'Nothing pending', tone: 'off', open: false },
  ABANDONED: { label: 'Abandoned', tone: 'off', open: false },
};

/** Why a recovery cannot go on, in words that say what would help. */
export function reasonText(recovery: Pick<Recovery, 'reason' | 'appVersion'>): string {
  switch (recovery.reason) {
    case 'NO_EXECUTOR':
      return 'No executor of this application is connected, so nobody can be asked what this one still held.';
    case 'NO_MATCHING_VERSION':
      return `No connected executor runs version ${recovery.appVersion}, and a workflow goes on only with the code it started with.`;
    case 'NOT_CONFIRMED':
      return 'Executors accepted the work three times, but it is still pending. It is offered again with growing pauses.';
    case null:
    case undefined:
      return '';
    default:
      return recovery.reason;
  }
}

export type Phase = { name: string; tone: Tone; from: number; to: number; running: boolean };

/** The parts of a recovery in time: how long until it was believed, offered and confirmed. */
export function phases(recovery: Recovery, now: number): Phase[] {
  const final = !RECOVERY_STATUS[recovery.status].open;
  const end =
    ms(recovery.completedAt) ?? (final ? (ms(recovery.deadAt) ?? ms(recovery.disconnectedAt)) : now) ?? now;
  const marks: [name: string, tone: Tone, at: number | null][] = [
    ['Grace', 'wait', ms(recovery.disconnectedAt)],
    [recovery.status === 'STRANDED' ? 'Stranded' : 'Looking for a taker', 'warn', ms(recovery.deadAt)],
    ['Confirming', 'run', ms(recovery.dispatchedAt)],
  ];
  const known = marks.filter((mark): mark is [string, Tone, number] => mark[2] !== null);
  return known.map(([name, tone, from], index) => {
    const next = known[index + 1]?.[2] ?? end;
    return { name, tone, from, to: Math.max(from, next), running: !final && index === known.length - 1 };
  });
}

/** Stranded first, then what is under way, then the newest. */
export function byUrgency(a: Recovery, b: Recovery): number {
  return rank(a) - rank(b) || b.disconnectedAt.localeCompare(a.disconnectedAt);
}

function rank(recovery: Recovery): number {
  if (recovery.status === 'STRANDED') return 0;
  return RECOVERY_STATUS[recovery.status].open ? 1 : 2;
}

/** What recoveries come to: how many ended well, and how long it took from the loss to the confirmed hand-over. */
export type Summary = {
  underWay: number;
  recovered: number;
  /** Milliseconds; null while none ended well. */
  typical: number | null;
  longest: number | null;
};

export function summary(recoveries: Recovery[]): Summary {
  const took = recoveries
    .filter((each) => each.status === 'RECOVERED')
    .map((each) => (ms(each.completedAt) ?? 0) - (ms(each.disconnectedAt) ?? 0))
    .sort((a, b) => a - b);
  return {
    underWay: recoveries.filter(({ status }) => status === 'GRACE' || status === 'DISPATCHING').length,
    recovered: took.length,
    typical: took[Math.floor((took.length - 1) / 2)] ?? null,
    longest: took.at(-1) ?? null,
  };
}
