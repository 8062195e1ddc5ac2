import { isLosslessNumber, type LosslessNumber, parse } from 'lossless-json';

/** Beyond this a value is shown by its beginning only: parsing and laying out more would stall the page. */
export const MOST_PARSED = 2_000_000;
/** Characters of a large value that are shown. */
export const MOST_SHOWN = 200_000;

export type Parsed = { kind: 'json'; value: unknown } | { kind: 'text' } | { kind: 'large' };

/** Reads a recorded value. Numbers keep every digit they were written with. */
export function parseValue(text: string): Parsed {
  if (text.length > MOST_PARSED) return { kind: 'large' };
  try {
    return { kind: 'json', value: parse(text) };
  } catch {
    return { kind: 'text' };
  }
}

export type Node = {
  path: string;
  /** Key in the object or index in the array that holds it; null for the whole value. */
  name: string | null;
  depth: number;
  value: unknown;
  /** How many members a container has; null for what is none. */
  size: number | null;
  array: boolean;
};

export function isContainer(value: unknown): value is Record<string, unknown> | unknown[] {
  return typeof value === 'object' && value !== null && !isLosslessNumber(value);
}

/** The visible lines of a value: every container that is open, with its members below it. */
export function visibleNodes(
  value: unknown,
  isOpen: (path: string, depth: number, size: number) => boolean,
): Node[] {
  const nodes: Node[] = [];
  const visit = (current: unknown, name: string | null, path: string, depth: number) => {
    const array = Array.isArray(current);
    const container = isContainer(current);
    const size = container ? (array ? current.length : Object.keys(current).length) : null;
    nodes.push({ path, name, depth, value: current, size, array });
    if (!container || !isOpen(path, depth, size ?? 0)) return;
    const entries: [string, unknown][] = array
      ? current.map((each, index) => [String(index), each])
      : Object.entries(current);
    for (const [key, each] of entries)
      visit(each, key, array ? `${path}[${key}]` : joined(path, key), depth + 1);
  };
  visit(value, null, '', 0);
  return nodes;
}

function joined(path: string, key: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;
}

/** A value on one line, as JSON, with numbers as they were written. */
export function leaf(value: unknown): { text: string; kind: 'string' | 'number' | 'word' } {
  if (isLosslessNumber(value)) return { text: (value as LosslessNumber).value, kind: 'number' };
  if (typeof value === 'string') return { text: JSON.stringify(value), kind: 'string' };
  return { text: String(value), kind: 'word' };
}
