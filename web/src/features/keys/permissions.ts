/** What each permission lets one do, in words. */
export const MEANING: Record<string, string> = {
  'websocket.connect': 'connect executors',
  'application.read': 'see applications, executors and workflows',
  'application.write': 'register and change applications, act on workflows',
  'metric.read': 'scrape metrics',
  'token.read': 'list keys',
  'token.write': 'make, rename and revoke keys',
  'organization.read': 'see the organisation, its members and its audit log',
  'organization.write': 'change the organisation and its members',
};
