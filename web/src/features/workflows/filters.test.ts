import { describe, expect, it } from 'vitest';
import { parseSearch, stringifySearch } from '~/app/search';
import {
  addFilter,
  chips,
  parseQualifier,
  readFilters,
  removeFilter,
  resolveTime,
  searchBody,
} from './filters';

const NOW = Date.parse('2026-03-01T12:00:00Z');

describe('filters in the address', () => {
  it('survive the way into the address and back, whatever they contain', () => {
    const filters = readFilters({
      status: ['PENDING', 'ERROR'],
      name: 'a&b=c',
      id: '../%2F ü',
      since: '24h',
      child: 'no',
      attr: ['tenant=7'],
    });
    expect(readFilters(parseSearch(stringifySearch(filters)))).toEqual(filters);
  });

  it('are readable', () => {
    expect(stringifySearch({ status: ['PENDING', 'ERROR'], since: '24h' })).toBe(
      '?status=PENDING&status=ERROR&since=24h',
    );
  });

  it('drop what is not understood', () => {
    expect(
      readFilters({ since: 'yesterday', child: 'maybe', attr: '=x', nonsense: '1', order: 'newest' }),
    ).toEqual({});
  });
});

describe('searchBody', () => {
  it('maps every filter to the field of the API', () => {
    const filters = readFilters({
      status: 'ERROR',
      name: 'pay',
      version: 'v1',
      executor: 'e',
      queue: 'q',
      user: 'u',
      id: 'p',
      parent: 'x',
      forked: 'f',
      schedule: 's',
      since: '1h',
      until: '2026-02-28T00:00:00+02:00',
      child: 'yes',
      fork: 'no',
      queued: 'yes',
      attr: ['tenant=7', 'region=eu', 'code="7"'],
    });
    expect(searchBody(filters, NOW)).toEqual({
      sortDesc: true,
      status: ['ERROR'],
      workflowName: ['pay'],
      appVersion: ['v1'],
      executorId: ['e'],
      queueName: ['q'],
      user: ['u'],
      workflowIdPrefix: ['p'],
      parentWorkflowId: ['x'],
      forkedFrom: ['f'],
      scheduleName: ['s'],
      startTime: '2026-03-01T11:00:00.000Z',
      endTime: '2026-02-27T22:00:00.000Z',
      hasParent: true,
      wasForkedFrom: false,
      queuesOnly: true,
      attributes: { tenant: 7, region: 'eu', code: '7' },
    });
  });

  it('asks for everything, newest first, without filters', () => {
    expect(searchBody({}, NOW)).toEqual({ sortDesc: true });
    expect(searchBody({ order: 'oldest' }, NOW)).toEqual({ sortDesc: false });
  });
});

describe('chips', () => {
  it('are one per value and removable one by one', () => {
    let filters = addFilter(addFilter({}, 'status', 'ERROR'), 'status', 'PENDING');
    filters = addFilter(addFilter(filters, 'status', 'ERROR'), 'since', '7d');
    expect(chips(filters).map((chip) => chip.value)).toEqual(['ERROR', 'PENDING', '7d ago']);
    filters = removeFilter(removeFilter(filters, 'status', 'ERROR'), 'since', '7d ago');
    expect(filters).toEqual({ status: ['PENDING'] });
    expect(removeFilter(filters, 'status', 'PENDING')).toEqual({});
  });
});

it('resolves times', () => {
  expect(resolveTime('90m', NOW)).toBe(NOW - 5_400_000);
  expect(resolveTime('2026-03-01', NOW)).toBe(Date.parse('2026-03-01'));
  expect(resolveTime('12', NOW)).toBeNull();
});

it('reads qualifiers only of known filters', () => {
  expect(parseQualifier('Status: ERROR')).toEqual({ name: 'status', value: 'ERROR' });
  expect(parseQualifier('order:1:2')).toBeNull();
  expect(parseQualifier('id:a:b')).toEqual({ name: 'id', value: 'a:b' });
});
