import type { Schemas } from '~/api/client';
import type { Executor } from '~/api/queries';

export type VersionRow = {
  name: string;
  latest: boolean;
  registeredAt: string | null;
  healthy: number;
  lost: number;
  pending: number;
  enqueued: number;
  delayed: number;
  oldest: string | null;
};

/**
 * One row for every version that is registered, connected or still holds work: an operator must not overlook a
 * version because one of the three does not know it.
 */
export function versionRows(
  registered: Schemas['ApplicationVersion'][],
  executors: Executor[],
  active: Schemas['WorkflowAggregate'][],
): VersionRow[] {
  const rows = new Map<string, VersionRow>();
  const row = (name: string): VersionRow => {
    let entry = rows.get(name);
    if (!entry) {
      entry = {
        name,
        latest: false,
        registeredAt: null,
        healthy: 0,
        lost: 0,
        pending: 0,
        enqueued: 0,
        delayed: 0,
        oldest: null,
      };
      rows.set(name, entry);
    }
    return entry;
  };
  registered.forEach((version, index) => {
    const entry = row(version.versionName);
    entry.latest = index === 0;
    entry.registeredAt = version.createdAt;
  });
  for (const executor of executors) {
    const entry = row(executor.appVersion);
    if (executor.status === 'HEALTHY') entry.healthy += 1;
    else entry.lost += 1;
  }
  for (const group of active) {
    const name = group.group.application_version;
    if (name === null || name === undefined) continue;
    const entry = row(name);
    if (group.group.status === 'PENDING') entry.pending += group.count ?? 0;
    if (group.group.status === 'ENQUEUED') entry.enqueued += group.count ?? 0;
    if (group.group.status === 'DELAYED') entry.delayed += group.count ?? 0;
    const oldest = group.minCreatedAt ?? null;
    if (oldest !== null && (entry.oldest === null || oldest < entry.oldest)) entry.oldest = oldest;
  }
  return [...rows.values()];
}

/** Whether executors of this version are still needed, in words. */
export function verdict(row: VersionRow): {
  tone: 'ok' | 'warn' | 'run' | 'off';
  label: string;
  detail: string;
} {
  const active = row.pending + row.enqueued + row.delayed;
  if (active > 0 && row.healthy === 0) {
    return {
      tone: 'warn',
      label: 'Stuck',
      detail: 'Holds work, and no executor that could do it is connected',
    };
  }
  if (active > 0)
    return { tone: 'run', label: 'In use', detail: 'Keep at least one executor until it is drained' };
  if (row.latest) return { tone: 'ok', label: 'Latest', detail: 'New and resumed workflows go to it' };
  if (row.healthy > 0)
    return { tone: 'ok', label: 'Drained', detail: 'Holds no work: its executors can be stopped' };
  return { tone: 'off', label: 'Drained', detail: 'Holds no work' };
}
