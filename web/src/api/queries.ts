import { api, client, type Schemas } from './client';
import { orgName } from './session';

export type App = Schemas['Application'];
export type Executor = Schemas['Executor'];
export type Workflow = Schemas['Workflow'];
export type Step = Schemas['Step'];
export type Recovery = Schemas['Recovery'];
export type Token = Schemas['Token'];
export type Queue = Schemas['Queue'];
export type Schedule = Schemas['Schedule'];
export type Deployment = Schemas['Deployment'];
export type Explanation = Schemas['Explanation'];
export type Operation = Schemas['Operation'];
export type OperationBody = Schemas['CreateOperationInputBody'];
export type SavedView = Schemas['View'];
export type Alert = Schemas['Alert'];
export type AlertChannel = Schemas['AlertChannel'];
export type Role = Schemas['RoleOutput'];
export type AlertingRule = Schemas['AlertingRule'];
export type AuditEntry = Schemas['AuditLogEntry'];
export type SearchBody = Schemas['WorkflowSearchBody'];
export type StepAggregatesBody = Schemas['StepAggregatesBody'];
export type AggregatesBody = Schemas['WorkflowAggregatesBody'];

const ORGANISATION = '/v2/orgs/{orgName}';
const BASE = '/v2/orgs/{orgName}/apps';
const APP = '/v2/orgs/{orgName}/apps/{appName}';
const org = () => ({ orgName: orgName() });
const inApp = (appName: string) => ({ orgName: orgName(), appName });

/** Everything the console reads: one function per read, all of them TanStack Query options. */
export const read = {
  self: () => api.queryOptions('get', '/v2/self', {}, { staleTime: 60_000 }),
  apps: () => api.queryOptions('get', BASE, { params: { path: org() } }),
  app: (app: string) => api.queryOptions('get', APP, { params: { path: inApp(app) } }),
  executors: (app: string) => api.queryOptions('get', `${APP}/executors`, { params: { path: inApp(app) } }),
  versions: (app: string) => api.queryOptions('get', `${APP}/versions`, { params: { path: inApp(app) } }),
  recoveries: (
    app: string,
    query: { status?: Recovery['status']; executorId?: string; limit?: number; offset?: number } = {},
  ) => api.queryOptions('get', `${APP}/recoveries`, { params: { path: inApp(app), query } }),
  workflow: (app: string, workflowId: string) =>
    api.queryOptions('get', `${APP}/workflows/{workflowId}`, {
      params: { path: { ...inApp(app), workflowId } },
    }),
  search: (app: string, body: SearchBody) =>
    api.queryOptions('post', `${APP}/workflows/search`, { params: { path: inApp(app) }, body }),
  aggregates: (app: string, body: AggregatesBody) =>
    api.queryOptions('post', `${APP}/workflows/aggregates`, { params: { path: inApp(app) }, body }),
  stepAggregates: (app: string, body: StepAggregatesBody) =>
    api.queryOptions('post', `${APP}/steps/aggregates`, { params: { path: inApp(app) }, body }),
  explain: (app: string, workflowId: string) =>
    api.queryOptions('get', `${APP}/workflows/{workflowId}/explain`, {
      params: { path: { ...inApp(app), workflowId } },
    }),
  deployments: (app: string) =>
    api.queryOptions('get', `${APP}/deployments`, { params: { path: inApp(app) } }),
  operations: (app: string, query: { state?: Operation['state']; limit?: number; offset?: number } = {}) =>
    api.queryOptions('get', `${APP}/operations`, { params: { path: inApp(app), query } }),
  operation: (app: string, operationId: string) =>
    api.queryOptions('get', `${APP}/operations/{operationId}`, {
      params: { path: { ...inApp(app), operationId } },
    }),
  views: (app: string) => api.queryOptions('get', `${APP}/views`, { params: { path: inApp(app) } }),
  metrics: (app: string, query: { startTime: string; endTime: string }) =>
    api.queryOptions('get', `${APP}/metrics`, { params: { path: inApp(app), query } }),
  alertingRules: (app: string) =>
    api.queryOptions('get', `${APP}/alerting-rules`, { params: { path: inApp(app) } }),
  alerts: (app: string, query: { state?: Alert['state']; limit?: number } = {}) =>
    api.queryOptions('get', `${APP}/alerts`, { params: { path: inApp(app), query } }),
  channels: () => api.queryOptions('get', `${ORGANISATION}/alert-channels`, { params: { path: org() } }),
  channelDeliveries: (channelName: string) =>
    api.queryOptions('get', `${ORGANISATION}/alert-channels/{channelName}/deliveries`, {
      params: { path: { ...org(), channelName }, query: { limit: 50 } },
    }),
  organisation: () => api.queryOptions('get', ORGANISATION, { params: { path: org() } }),
  members: () => api.queryOptions('get', `${ORGANISATION}/members`, { params: { path: org() } }),
  roles: () => api.queryOptions('get', `${ORGANISATION}/roles`, { params: { path: org() } }),
  domains: () => api.queryOptions('get', `${ORGANISATION}/domain-claims`, { params: { path: org() } }),
  system: () => api.queryOptions('get', '/v2/orgs/{orgName}/system', { params: { path: org() } }),
  events: (app: string, workflowId: string) =>
    api.queryOptions('get', `${APP}/workflows/{workflowId}/events`, {
      params: { path: { ...inApp(app), workflowId } },
    }),
  notifications: (app: string, workflowId: string) =>
    api.queryOptions('get', `${APP}/workflows/{workflowId}/notifications`, {
      params: { path: { ...inApp(app), workflowId } },
    }),
  streams: (app: string, workflowId: string) =>
    api.queryOptions('get', `${APP}/workflows/{workflowId}/streams`, {
      params: { path: { ...inApp(app), workflowId } },
    }),
  queues: (app: string) => api.queryOptions('get', `${APP}/queues`, { params: { path: inApp(app) } }),
  schedules: (app: string) => api.queryOptions('get', `${APP}/schedules`, { params: { path: inApp(app) } }),
  audit: (query: { operation?: string; limit: number }) =>
    api.queryOptions('get', '/v2/orgs/{orgName}/audit-logs', { params: { path: org(), query } }),
  tokens: () => api.queryOptions('get', '/v2/orgs/{orgName}/tokens', { params: { path: org() } }),
  permissions: () => api.queryOptions('get', '/v2/orgs/{orgName}/permissions', { params: { path: org() } }),
};

/** One page of a search, for lists that keep their own pages. */
export async function searchPage(app: string, body: SearchBody, signal: AbortSignal): Promise<Workflow[]> {
  const { data } = await client.POST(`${APP}/workflows/search`, {
    params: { path: inApp(app) },
    body,
    signal,
  });
  return data ?? [];
}

/** One page of a workflow's steps, in step order. */
export async function stepPage(
  app: string,
  workflowId: string,
  page: { offset: number; limit: number },
  signal: AbortSignal,
): Promise<Step[]> {
  const { data } = await client.GET(`${APP}/workflows/{workflowId}/steps`, {
    params: { path: { ...inApp(app), workflowId }, query: page },
    signal,
  });
  return data ?? [];
}

/** Everything the console does: one function per action. Each throws a Problem. */
export const act = {
  registerApp: (appName: string) => client.PUT(APP, { params: { path: inApp(appName) }, body: {} }),
  updateApp: (app: string, body: Schemas['PatchAppInputBody']) =>
    client.PATCH(APP, { params: { path: inApp(app) }, body }),
  deleteApp: (app: string) => client.DELETE(APP, { params: { path: inApp(app) } }),
  setLatestVersion: (app: string, versionName: string) =>
    client.PATCH(`${APP}/versions/latest`, { params: { path: inApp(app) }, body: { versionName } }),

  createToken: async (tokenName: string, body: Schemas['CreateTokenInputBody']) => {
    const { data } = await client.POST('/v2/orgs/{orgName}/tokens/{tokenName}', {
      params: { path: { ...org(), tokenName } },
      body,
    });
    return data?.token ?? '';
  },
  deleteToken: (tokenName: string) =>
    client.DELETE('/v2/orgs/{orgName}/tokens/{tokenName}', { params: { path: { ...org(), tokenName } } }),
  renameToken: (tokenName: string, newName: string) =>
    client.PATCH('/v2/orgs/{orgName}/tokens/{tokenName}', {
      params: { path: { ...org(), tokenName } },
      body: { newName },
    }),

  cancel: (app: string, workflowId: string, cancelChildren: boolean) =>
    client.POST(`${APP}/workflows/{workflowId}/cancel`, {
      params: { path: { ...inApp(app), workflowId } },
      body: { cancelChildren },
    }),
  resume: (app: string, workflowId: string, queueName?: string) =>
    client.POST(`${APP}/workflows/{workflowId}/resume`, {
      params: { path: { ...inApp(app), workflowId } },
      body: queueName ? { queueName } : {},
    }),
  fork: async (app: string, workflowId: string, body: Schemas['ForkWorkflowInputBody']) => {
    const { data } = await client.POST(`${APP}/workflows/{workflowId}/fork`, {
      params: { path: { ...inApp(app), workflowId } },
      body,
    });
    return data?.workflowId ?? '';
  },
  remove: (app: string, workflowId: string, deleteChildren: boolean) =>
    client.DELETE(`${APP}/workflows/{workflowId}`, {
      params: { path: { ...inApp(app), workflowId }, query: { deleteChildren } },
    }),

  assignRecovery: (app: string, recoveryId: string, appVersion: string) =>
    client.POST(`${APP}/recoveries/{recoveryId}/assign`, {
      params: { path: { ...inApp(app), recoveryId } },
      body: { appVersion },
    }),
  abandonRecovery: (app: string, recoveryId: string, reason: string) =>
    client.POST(`${APP}/recoveries/{recoveryId}/abandon`, {
      params: { path: { ...inApp(app), recoveryId } },
      body: { reason },
    }),

  startOperation: async (app: string, body: OperationBody) => {
    const { data } = await client.POST(`${APP}/operations`, { params: { path: inApp(app) }, body });
    return data as Operation;
  },
  abortOperation: (app: string, operationId: string) =>
    client.POST(`${APP}/operations/{operationId}/abort`, {
      params: { path: { ...inApp(app), operationId } },
    }),

  saveView: (app: string, viewName: string, query: string) =>
    client.PUT(`${APP}/views/{viewName}`, { params: { path: { ...inApp(app), viewName } }, body: { query } }),
  deleteView: (app: string, viewName: string) =>
    client.DELETE(`${APP}/views/{viewName}`, { params: { path: { ...inApp(app), viewName } } }),

  createAlertingRule: (app: string, body: Schemas['CreateAlertInputBody']) =>
    client.POST(`${APP}/alerting-rules`, { params: { path: inApp(app) }, body }),
  deleteAlertingRule: (app: string, ruleId: string) =>
    client.DELETE(`${APP}/alerting-rules/{ruleId}`, { params: { path: { ...inApp(app), ruleId } } }),

  setRuleChannels: (app: string, ruleId: string, channels: string[]) =>
    client.PUT(`${APP}/alerting-rules/{ruleId}/channels`, {
      params: { path: { ...inApp(app), ruleId } },
      body: { channels },
    }),

  createChannel: (body: Schemas['CreateAlertChannelInputBody']) =>
    client.POST(`${ORGANISATION}/alert-channels`, { params: { path: org() }, body }),
  deleteChannel: (channelName: string) =>
    client.DELETE(`${ORGANISATION}/alert-channels/{channelName}`, {
      params: { path: { ...org(), channelName } },
    }),
  testChannel: async (channelName: string) => {
    const { data } = await client.POST(`${ORGANISATION}/alert-channels/{channelName}/test`, {
      params: { path: { ...org(), channelName } },
    });
    return data as Schemas['AlertChannelTest'];
  },

  register: (body: Schemas['RegisterUserInputBody']) => client.POST('/v2/users', { body }),
  updateOrganisation: (body: Schemas['UpdateOrgInputBody']) =>
    client.PATCH(ORGANISATION, { params: { path: org() }, body }),
  makeSecret: async () => {
    const { data } = await client.POST(`${ORGANISATION}/secrets`, { params: { path: org() } });
    return data?.secret ?? '';
  },
  removeMember: (username: string) =>
    client.DELETE(`${ORGANISATION}/members/{username}`, { params: { path: { ...org(), username } } }),
  grantRole: (username: string, roleName: string) =>
    client.PUT(`${ORGANISATION}/members/{username}/roles/{roleName}`, {
      params: { path: { ...org(), username, roleName } },
    }),
  createRole: (name: string, permissions: string[]) =>
    client.POST(`${ORGANISATION}/roles`, { params: { path: org() }, body: { name, permissions } }),
  deleteRole: (roleName: string) =>
    client.DELETE(`${ORGANISATION}/roles/{roleName}`, { params: { path: { ...org(), roleName } } }),
  claimDomain: (domain: string) =>
    client.POST(`${ORGANISATION}/domain-claims`, { params: { path: org() }, body: { domain } }),
  releaseDomain: (domain: string) =>
    client.DELETE(`${ORGANISATION}/domain-claims/{domain}`, { params: { path: { ...org(), domain } } }),

  /** Takes a workflow back to a step, in place: later results are dropped and made anew. */
  rewind: (app: string, workflowId: string, startStep: number) =>
    client.POST(`${APP}/workflows/{workflowId}/rewind`, {
      params: { path: { ...inApp(app), workflowId } },
      body: { startStep },
    }),
  exportWorkflow: async (app: string, workflowId: string, exportChildren: boolean) => {
    const { data } = await client.GET(`${APP}/workflows/{workflowId}/export`, {
      params: { path: { ...inApp(app), workflowId }, query: { exportChildren } },
    });
    return data?.serializedWorkflow ?? '';
  },
  importWorkflow: (app: string, serializedWorkflow: string) =>
    client.POST(`${APP}/workflows/import`, { params: { path: inApp(app) }, body: { serializedWorkflow } }),

  evict: (app: string, executorId: string, reason: string) =>
    client.POST(`${APP}/executors/{executorId}/evict`, {
      params: { path: { ...inApp(app), executorId } },
      body: { reason },
    }),

  pauseSchedule: (app: string, scheduleName: string) =>
    client.POST(`${APP}/schedules/{scheduleName}/pause`, {
      params: { path: { ...inApp(app), scheduleName } },
    }),
  resumeSchedule: (app: string, scheduleName: string) =>
    client.POST(`${APP}/schedules/{scheduleName}/resume`, {
      params: { path: { ...inApp(app), scheduleName } },
    }),
  triggerSchedule: async (app: string, scheduleName: string) => {
    const { data } = await client.POST(`${APP}/schedules/{scheduleName}/trigger`, {
      params: { path: { ...inApp(app), scheduleName } },
    });
    return data?.workflowId ?? '';
  },
  backfillSchedule: async (app: string, scheduleName: string, startTime: string, endTime: string) => {
    const { data } = await client.POST(`${APP}/schedules/{scheduleName}/backfill`, {
      params: { path: { ...inApp(app), scheduleName } },
      body: { startTime, endTime },
    });
    return data?.workflowIds ?? [];
  },
};
