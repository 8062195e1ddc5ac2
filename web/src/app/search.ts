/**
 * The query string of the console's addresses: plain `name=value` pairs, repeated for several values, so that a
 * link can be read and edited by people.
 */
export type RawSearch = Record<string, string | string[]>;

export function parseSearch(search: string): RawSearch {
  const out: RawSearch = {};
  for (const [name, value] of new URLSearchParams(search)) {
    const seen = out[name];
    if (seen === undefined) out[name] = value;
    else if (Array.isArray(seen)) seen.push(value);
    else out[name] = [seen, value];
  }
  return out;
}

export function stringifySearch(search: Record<string, unknown>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(search)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== '') params.append(name, String(each));
    }
  }
  const text = params.toString();
  return text ? `?${text}` : '';
}

/** The first value of a parameter, or undefined. */
export function one(value: unknown): string | undefined {
  const first = Array.isArray(value) ? value[0] : value;
  return typeof first === 'string' && first !== '' ? first : undefined;
}

/** All values of a parameter, without doubles. */
export function many(value: unknown): string[] {
  const all = Array.isArray(value) ? value : [value];
  return [...new Set(all.filter((each): each is string => typeof each === 'string' && each !== ''))];
}
