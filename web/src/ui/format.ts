/** A length of time for people: `840 ms`, `4.2 s`, `3 m 05 s`, `2 h 10 m`, `5 d 3 h`. */
export function duration(ms: number): string {
  if (!Number.isFinite(ms)) return '–';
  const value = Math.max(0, ms);
  if (value < 1_000) return `${Math.round(value)} ms`;
  if (value < 9_950) return `${(value / 1_000).toFixed(1)} s`;
  const seconds = Math.round(value / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${pad(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${pad(minutes % 60)} m`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago, in one unit: `now`, `12 s ago`, `3 m ago`, `5 d ago`; `in 4 s` for what is to come. */
export function age(then: number, now: number): string {
  const ms = now - then;
  if (Math.abs(ms) < 1_500) return 'now';
  const text = rough(Math.abs(ms));
  return ms > 0 ? `${text} ago` : `in ${text}`;
}

function rough(ms: number): string {
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

function pad(value: number): string {
  return String(value).padStart(2, '0');
}

const grouped = new Intl.NumberFormat('en');

/** At most the first `most` characters of a text from outside: no name needs more room, and some are a megabyte long. */
export function cut(text: string, most = 300): string {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** A count with thousands separators. */
export function count(value: number): string {
  return grouped.format(value);
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A size in bytes for people, in powers of 1024. */
export function bytes(value: number): string {
  if (value < 1_024) return `${value} B`;
  if (value < 1_048_576) return `${(value / 1_024).toFixed(1)} KiB`;
  return `${(value / 1_048_576).toFixed(1)} MiB`;
}

/** Epoch milliseconds of an API time, or null. */
export function ms(time: string | null | undefined): number | null {
  if (!time) return null;
  const value = Date.parse(time);
  return Number.isNaN(value) ? null : value;
}
