import type { Schemas } from '~/api/client';
import type { Queue } from '~/api/queries';

export type QueueRow = {
  name: string;
  /** Null for a queue that holds work and that no executor declares: nobody takes from it. */
  queue: Queue | null;
  enqueued: number;
  pending: number;
  delayed: number;
  /** When the oldest that waits was made. */
  oldest: string | null;
};

/** Declared queues and those that only hold work, most waiting first. */
export function queueRows(queues: Queue[], active: Schemas['WorkflowAggregate'][]): QueueRow[] {
  const rows = new Map<string, QueueRow>();
  const row = (name: string): QueueRow => {
    const known = rows.get(name);
    if (known) return known;
    const made = { name, queue: null, enqueued: 0, pending: 0, delayed: 0, oldest: null };
    rows.set(name, made);
    return made;
  };
  for (const queue of queues) row(queue.name).queue = queue;
  for (const group of active) {
    const name = group.group.queue_name;
    if (!name) continue;
    const entry = row(name);
    const size = group.count ?? 0;
    if (group.group.status === 'PENDING') entry.pending += size;
    if (group.group.status === 'DELAYED') entry.delayed += size;
    if (group.group.status === 'ENQUEUED') {
      entry.enqueued += size;
      entry.oldest = group.minCreatedAt ?? null;
    }
  }
  return [...rows.values()].sort((a, b) => b.enqueued - a.enqueued || a.name.localeCompare(b.name));
}

/** Whether an SDK uses the queue for its own purposes: resumed, forked and triggered workflows pass through it. */
export function isInternal(name: string): boolean {
  return name.startsWith('_dbos_');
}
