import type { AlertChannel } from '~/api/queries';

export type Kind = AlertChannel['kind'];

export const KINDS: Record<Kind, { label: string; hint: string }> = {
  webhook: { label: 'Webhook', hint: 'Signed requests by the Standard Webhooks rules.' },
  slack: { label: 'Slack', hint: 'An incoming webhook of Slack, or of what understands its messages.' },
  pagerduty: {
    label: 'PagerDuty',
    hint: 'Events of a service: opened when a rule fires, resolved when it is over.',
  },
  json: { label: 'Own JSON', hint: 'Any web address, with a body of your own making.' },
};

export type Draft = {
  kind: Kind;
  name: string;
  url: string;
  secret: string;
  routingKey: string;
  template: string;
  headers: string;
  sendResolved: boolean;
};

export const BLANK: Draft = {
  kind: 'webhook',
  name: '',
  url: '',
  secret: '',
  routingKey: '',
  template: '{"text": {{ message }}}',
  headers: '',
  sendResolved: true,
};

/** `Name: value` lines as headers; null when a line is none. */
export function parseHeaders(text: string): Record<string, string> | null {
  const headers: Record<string, string> = {};
  for (const line of text.split('\n').filter((each) => each.trim() !== '')) {
    const at = line.indexOf(':');
    if (at <= 0) return null;
    headers[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return headers;
}

/** What is wrong with a draft, by field; empty fields that are needed are only not ready. */
export function faults(draft: Draft): Partial<Record<keyof Draft, string>> {
  const found: Partial<Record<keyof Draft, string>> = {};
  if (draft.name !== '' && !/^[a-z0-9_-]{1,64}$/.test(draft.name))
    found.name = 'Lower-case letters, digits, - and _ only.';
  if (draft.url !== '' && !/^https?:\/\/\S+$/.test(draft.url))
    found.url = 'An address with https:// or http://.';
  if (draft.headers !== '' && parseHeaders(draft.headers) === null)
    found.headers = 'One `Name: value` a line.';
  return found;
}

/** Whether everything that the kind needs is there. */
export function isReady(draft: Draft): boolean {
  if (draft.name === '' || Object.keys(faults(draft)).length > 0) return false;
  if (draft.kind === 'pagerduty') return draft.routingKey.trim() !== '';
  return draft.url !== '' && (draft.kind !== 'json' || draft.template.trim() !== '');
}

/** The body that makes the channel: only what its kind takes. */
export function channelBody(draft: Draft) {
  const { kind, name, sendResolved } = draft;
  const some = <Name extends string>(field: Name, value: string) =>
    (value.trim() === '' ? {} : { [field]: value.trim() }) as Partial<Record<Name, string>>;
  const headers = parseHeaders(draft.headers) ?? {};
  const withHeaders =
    Object.keys(headers).length > 0 && (kind === 'webhook' || kind === 'json') ? { headers } : {};
  const common = { kind, name, sendResolved, ...some('url', draft.url), ...withHeaders };
  switch (kind) {
    case 'webhook':
      return { ...common, ...some('signingSecret', draft.secret) };
    case 'pagerduty':
      return { ...common, ...some('routingKey', draft.routingKey) };
    case 'json':
      return { ...common, ...some('template', draft.template) };
    case 'slack':
      return common;
  }
}
