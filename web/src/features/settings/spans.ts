const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
] as const;

/** Milliseconds of a length of time as people write it: `30d`, `12h`, `90m`, `1d 12h`. Null: it is none. */
export function parseSpan(text: string): number | null {
  let rest = text.trim().toLowerCase();
  if (rest === '') return null;
  let sum = 0;
  for (const [unit, size] of UNITS) {
    const part = new RegExp(`^(\\d{1,9})\\s*${unit}\\s*`).exec(rest);
    if (!part) continue;
    sum += Number(part[1]) * size;
    rest = rest.slice(part[0].length);
  }
  return rest === '' && sum > 0 ? sum : null;
}

/** The same the other way round: milliseconds as `1d 12h`. What is no whole second is cut off. */
export function writeSpan(ms: number): string {
  let rest = ms;
  const parts: string[] = [];
  for (const [unit, size] of UNITS) {
    const whole = Math.floor(rest / size);
    if (whole > 0) parts.push(`${whole}${unit}`);
    rest -= whole * size;
  }
  return parts.join(' ') || '0s';
}
