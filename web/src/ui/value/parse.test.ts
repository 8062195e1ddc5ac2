import { describe, expect, it } from 'vitest';
import { leaf, MOST_PARSED, parseValue, visibleNodes } from './parse';

describe('parseValue', () => {
  it('keeps every digit of a number', () => {
    const parsed = parseValue('{"id": 9007199254740993, "price": 1.10}');
    const nodes = parsed.kind === 'json' ? visibleNodes(parsed.value, () => true) : [];
    expect(nodes.slice(1).map((node) => leaf(node.value).text)).toEqual(['9007199254740993', '1.10']);
  });

  it('leaves what is not JSON as text', () => {
    expect(parseValue("{'args': (1,)}")).toEqual({ kind: 'text' });
  });

  it('does not parse what is too large', () => {
    expect(parseValue('x'.repeat(MOST_PARSED + 1))).toEqual({ kind: 'large' });
  });

  it('does not let a key named __proto__ change anything', () => {
    const parsed = parseValue('{"__proto__": {"polluted": true}}');
    expect(parsed.kind).toBe('json');
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });
});

it('lists what is open, with paths that can be pasted into code', () => {
  const parsed = parseValue('{"a": {"b c": [1, {"d": null}]}}');
  const nodes = parsed.kind === 'json' ? visibleNodes(parsed.value, (path) => path !== '.a["b c"][1]') : [];
  expect(nodes.map((node) => node.path)).toEqual(['', '.a', '.a["b c"]', '.a["b c"][0]', '.a["b c"][1]']);
});
