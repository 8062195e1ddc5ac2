import type { SearchBody } from '~/api/queries';
import { many, one } from '~/app/search';

/** Filters that hold several values, any of which may match: the name in the address and the field of a search. */
export const LIST_FIELDS = {
  status: { label: 'Status', field: 'status' },
  name: { label: 'Name', field: 'workflowName' },
  version: { label: 'Version', field: 'appVersion' },
  executor: { label: 'Executor', field: 'executorId' },
  queue: { label: 'Queue', field: 'queueName' },
  user: { label: 'User', field: 'user' },
  id: { label: 'Id starts with', field: 'workflowIdPrefix' },
  parent: { label: 'Parent', field: 'parentWorkflowId' },
  forked: { label: 'Forked from', field: 'forkedFrom' },
  schedule: { label: 'Schedule', field: 'scheduleName' },
} as const satisfies Record<string, { label: string; field: keyof SearchBody }>;
export type ListField = keyof typeof LIST_FIELDS;

/** Times are kept as written: `90m`, `24h`, `7d` before now, or an RFC 3339 moment. */
export const TIME_FIELDS = { since: 'Created since', until: 'Created until' } as const;
export type TimeField = keyof typeof TIME_FIELDS;

/** Yes-or-no filters; absent means both. */
export const FLAG_FIELDS = { child: 'Is a child', fork: 'Has forks', queued: 'On a queue' } as const;
export type FlagField = keyof typeof FLAG_FIELDS;

export type Filters = Partial<Record<ListField, string[]>> &
  Partial<Record<TimeField, string>> &
  Partial<Record<FlagField, 'yes' | 'no'>> & {
    /** Attributes a workflow must have, each `key=value`. */
    attr?: string[];
    order?: 'oldest';
  };

/** Reads filters from an address. What it does not understand is dropped, never guessed. */
export function readFilters(search: Record<string, unknown>): Filters {
  const filters: Filters = {};
  for (const name of keys(LIST_FIELDS)) {
    const values = many(search[name]);
    if (values.length > 0) filters[name] = values;
  }
  for (const name of keys(TIME_FIELDS)) {
    const value = one(search[name]);
    if (value && resolveTime(value, 0) !== null) filters[name] = value;
  }
  for (const name of keys(FLAG_FIELDS)) {
    const value = one(search[name]);
    if (value === 'yes' || (value === 'no' && name !== 'queued')) filters[name] = value;
  }
  const attributes = many(search.attr).filter((each) => each.indexOf('=') > 0);
  if (attributes.length > 0) filters.attr = attributes;
  if (one(search.order) === 'oldest') filters.order = 'oldest';
  return filters;
}

/** Whether anything narrows the list. */
export function isFiltered({ order: _, ...filters }: Filters): boolean {
  return Object.keys(filters).length > 0;
}

/** The search these filters stand for at the moment `now` (epoch ms), without paging. */
export function searchBody(filters: Filters, now: number): SearchBody {
  const body: SearchBody = { sortDesc: filters.order !== 'oldest' };
  for (const name of keys(LIST_FIELDS)) {
    const values = filters[name];
    if (values) body[LIST_FIELDS[name].field] = values;
  }
  const since = filters.since && resolveTime(filters.since, now);
  const until = filters.until && resolveTime(filters.until, now);
  if (since) body.startTime = new Date(since).toISOString();
  if (until) body.endTime = new Date(until).toISOString();
  if (filters.child) body.hasParent = filters.child === 'yes';
  if (filters.fork) body.wasForkedFrom = filters.fork === 'yes';
  if (filters.queued) body.queuesOnly = true;
  if (filters.attr) body.attributes = Object.fromEntries(filters.attr.map(attribute));
  return body;
}

/** `key=value`, where a value that is JSON (a number, true, a quoted string) stands for itself. */
function attribute(text: string): [string, unknown] {
  const at = text.indexOf('=');
  const value = text.slice(at + 1);
  try {
    return [text.slice(0, at), JSON.parse(value) as unknown];
  } catch {
    return [text.slice(0, at), value];
  }
}

const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Epoch ms of a time as written, or null when it is none. */
export function resolveTime(text: string, now: number): number | null {
  const relative = /^(\d{1,6})([smhd])$/.exec(text);
  if (relative) return now - Number(relative[1]) * UNITS[relative[2] as keyof typeof UNITS];
  const absolute = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(absolute) ? null : absolute;
}

export type Chip = { name: string; label: string; value: string };

/** The filters one by one, in a fixed order, for display. */
export function chips(filters: Filters): Chip[] {
  const out: Chip[] = [];
  for (const name of keys(LIST_FIELDS)) {
    for (const value of filters[name] ?? []) out.push({ name, label: LIST_FIELDS[name].label, value });
  }
  for (const value of filters.attr ?? []) out.push({ name: 'attr', label: 'Attribute', value });
  for (const name of keys(FLAG_FIELDS)) {
    const value = filters[name];
    if (value) out.push({ name, label: FLAG_FIELDS[name], value });
  }
  for (const name of keys(TIME_FIELDS)) {
    const value = filters[name];
    if (value)
      out.push({ name, label: TIME_FIELDS[name], value: /^\d+[smhd]$/.test(value) ? `${value} ago` : value });
  }
  return out;
}

export function addFilter(filters: Filters, name: string, value: string): Filters {
  if (name in LIST_FIELDS) {
    const field = name as ListField;
    return { ...filters, [field]: [...new Set([...(filters[field] ?? []), value])] };
  }
  if (name === 'attr') return { ...filters, attr: [...new Set([...(filters.attr ?? []), value])] };
  if (name in TIME_FIELDS || name in FLAG_FIELDS) return { ...filters, [name]: value };
  return filters;
}

/** Removes one value of a filter; the filter goes with its last value. */
export function removeFilter(filters: Filters, name: string, value: string): Filters {
  const { [name as keyof Filters]: current, ...rest } = filters;
  if (!Array.isArray(current)) return rest;
  const left = current.filter((each) => each !== value);
  return left.length > 0 ? { ...rest, [name]: left } : rest;
}

/** `status:ERROR` as typed, or null when the text names no filter. */
export function parseQualifier(text: string): { name: string; value: string } | null {
  const at = text.indexOf(':');
  if (at <= 0) return null;
  const name = text.slice(0, at).trim().toLowerCase();
  const known = name in LIST_FIELDS || name in TIME_FIELDS || name in FLAG_FIELDS || name === 'attr';
  return known ? { name, value: text.slice(at + 1).trim() } : null;
}

function keys<T extends object>(object: T): (keyof T & string)[] {
  return Object.keys(object) as (keyof T & string)[];
}
