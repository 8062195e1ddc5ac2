import { describe, expect, it } from 'vitest';
import { BLANK, channelBody, faults, isReady, parseHeaders } from './channels';

describe('a channel', () => {
  it('is made of what its kind takes only', () => {
    const draft = {
      ...BLANK,
      name: 'ops',
      url: 'https://example.com/hook',
      routingKey: 'r',
      headers: 'X-Team: ops',
    };
    expect(channelBody(draft)).toEqual({
      kind: 'webhook',
      name: 'ops',
      sendResolved: true,
      url: 'https://example.com/hook',
      headers: { 'X-Team': 'ops' },
    });
    expect(channelBody({ ...draft, kind: 'pagerduty', url: '' })).toEqual({
      kind: 'pagerduty',
      name: 'ops',
      sendResolved: true,
      routingKey: 'r',
    });
    expect(channelBody({ ...draft, kind: 'slack' })).not.toHaveProperty('headers');
  });

  it('is ready when its kind has what it needs', () => {
    expect(isReady({ ...BLANK, name: 'ops' })).toBe(false);
    expect(isReady({ ...BLANK, name: 'ops', url: 'https://example.com' })).toBe(true);
    expect(isReady({ ...BLANK, name: 'ops', kind: 'pagerduty' })).toBe(false);
    expect(faults({ ...BLANK, name: 'Ops', url: 'javascript:alert(1)' })).toMatchObject({
      name: expect.any(String),
      url: expect.any(String),
    });
  });

  it('reads headers as people write them', () => {
    expect(parseHeaders('Authorization: Bearer a:b\n\nX-A:1')).toEqual({
      Authorization: 'Bearer a:b',
      'X-A': '1',
    });
    expect(parseHeaders('nonsense')).toBeNull();
  });
});
