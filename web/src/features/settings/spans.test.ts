import { expect, it } from 'vitest';
import { parseSpan, writeSpan } from './spans';

it('reads lengths of time as people write them', () => {
  expect(parseSpan('30d')).toBe(30 * 86_400_000);
  expect(parseSpan(' 1d 12h ')).toBe(36 * 3_600_000);
  expect(parseSpan('90M')).toBe(90 * 60_000);
  for (const wrong of ['', '30', 'soon', '12h 1d', '-3d', '0s', '1.5h']) expect(parseSpan(wrong)).toBeNull();
});

it('writes what it can read', () => {
  for (const text of ['30d', '1d 12h', '1h 30m', '45s']) expect(writeSpan(parseSpan(text) ?? 0)).toBe(text);
});
