import type { App, Executor, Recovery } from '~/api/queries';
import { plural } from '~/ui/format';

export type Health = {
  tone: 'ok' | 'warn' | 'err' | 'off';
  label: string;
  /** One sentence for people who must decide whether to act; empty while all is well. */
  detail: string;
};

/** What an operator must know about an application at a glance: the worst thing first. */
export function health(app: Pick<App, 'language'>, executors: Executor[], stranded: Recovery[]): Health {
  const healthy = executors.filter((executor) => executor.status === 'HEALTHY');
  const unresponsive = healthy.filter((executor) => unresponsiveSince(executor) !== null);
  if (stranded.length > 0) {
    const workflows = stranded.reduce((sum, recovery) => sum + (recovery.pendingWorkflows ?? 0), 0);
    const versions = [...new Set(stranded.map((recovery) => recovery.appVersion))];
    return {
      tone: 'warn',
      label: 'Stranded work',
      detail:
        workflows > 0
          ? `${plural(workflows, 'workflow')} of ${versions.length === 1 ? `version ${versions[0]}` : `${versions.length} versions`} can be taken by nobody`
          : `${plural(stranded.length, 'dead executor')} may hold work that nobody could be asked about`,
    };
  }
  if (executors.length === 0) {
    return app.language === null
      ? { tone: 'off', label: 'Never connected', detail: '' }
      : { tone: 'err', label: 'Not connected', detail: 'No executor is connected' };
  }
  if (healthy.length === 0) {
    return {
      tone: 'err',
      label: 'Not connected',
      detail: `${plural(executors.length, 'executor')} lost, none connected`,
    };
  }
  const lost = executors.length - healthy.length;
  if (lost > 0) return { tone: 'warn', label: 'Recovering', detail: `${plural(lost, 'executor')} lost` };
  if (unresponsive.length > 0) {
    return {
      tone: 'warn',
      label: 'Unresponsive',
      detail: `${plural(unresponsive.length, 'executor')} connected but not answering`,
    };
  }
  return { tone: 'ok', label: 'Healthy', detail: '' };
}

export function unresponsiveSince(executor: Executor): string | null {
  return executor.unresponsiveSince ?? null;
}

/** Executors by version, the one with the most first. */
export function byVersion(executors: Executor[]): { version: string; healthy: number; lost: number }[] {
  const versions = new Map<string, { version: string; healthy: number; lost: number }>();
  for (const executor of executors) {
    const entry = versions.get(executor.appVersion) ?? { version: executor.appVersion, healthy: 0, lost: 0 };
    if (executor.status === 'HEALTHY') entry.healthy += 1;
    else entry.lost += 1;
    versions.set(executor.appVersion, entry);
  }
  return [...versions.values()].sort((a, b) => b.healthy - a.healthy || a.version.localeCompare(b.version));
}
