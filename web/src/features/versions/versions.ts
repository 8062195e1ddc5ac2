import type { Schemas } from '~/api/client';
import type { Deployment } from '~/api/queries';

export type VersionRow = Deployment & {
  /** When it was registered; null for a version that only executors or workflows know. */
  registeredAt: string | null;
};

/** Every version with what it holds, and since when it is registered: the latest first, then those that hold work. */
export function versionRows(
  deployments: Deployment[],
  registered: Schemas['ApplicationVersion'][],
): VersionRow[] {
  const since = new Map(registered.map((version) => [version.versionName, version.createdAt]));
  const rows = deployments.map((row) => ({ ...row, registeredAt: since.get(row.appVersion) ?? null }));
  return rows.sort(
    (a, b) =>
      rank(a) - rank(b) ||
      (b.registeredAt ?? '').localeCompare(a.registeredAt ?? '') ||
      a.appVersion.localeCompare(b.appVersion),
  );
}

function rank(row: VersionRow): number {
  if (row.isLatest) return 0;
  if (row.stranded > 0) return 1;
  return row.drained ? 3 : 2;
}

/** Whether executors of this version are still needed, in words. */
export function verdict(row: Deployment): {
  tone: 'ok' | 'warn' | 'run' | 'off';
  label: string;
  detail: string;
} {
  if (row.stranded > 0) {
    return {
      tone: 'warn',
      label: 'Stranded',
      detail: 'Holds work that no connected executor of it can take',
    };
  }
  if (!row.drained)
    return {
      tone: 'run',
      label: 'In use',
      detail: row.isLatest
        ? 'New and resumed workflows go to it'
        : 'Keep at least one executor until it is drained',
    };
  if (row.isLatest) return { tone: 'ok', label: 'Latest', detail: 'New and resumed workflows go to it' };
  if (row.executors.healthy > 0)
    return { tone: 'ok', label: 'Drained', detail: 'Holds no work: its executors can be stopped' };
  return { tone: 'off', label: 'Drained', detail: 'Holds no work' };
}
