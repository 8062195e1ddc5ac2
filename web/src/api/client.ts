import { QueryClient } from '@tanstack/react-query';
import createClient, { type Middleware } from 'openapi-fetch';
import createQueryApi from 'openapi-react-query';
import { noteServerTime } from '~/ui/clock';
import { serverUrl } from './base';
import { sessionConfigQuery } from './config';
import { Problem } from './problem';
import type { components, paths } from './schema.gen';
import { sessionKey, sessionTokens } from './session';

export type Schemas = components['schemas'];

/** Called when a credential is missing or no longer accepted. */
let onUnauthorized: () => void = () => {};
export function whenUnauthorized(handler: () => void): void {
  onUnauthorized = handler;
}

const session: Middleware = {
  async onRequest({ request }) {
    const bearer = sessionKey() ?? (await issuedToken());
    if (bearer) request.headers.set('Authorization', `Bearer ${bearer}`);
    // A retried mutation (the browser's, a proxy's) is then carried out once.
    if (request.method !== 'GET') request.headers.set('Idempotency-Key', crypto.randomUUID());
    return request;
  },
  async onResponse({ response }) {
    noteServerTime(response.headers.get('Date'));
    if (response.ok) return undefined;
    const problem = await Problem.from(response);
    if (problem.status === 401) onUnauthorized();
    throw problem;
  },
  onError({ error }) {
    return Problem.of(error);
  },
};

/** The token of a person who logged in at an issuer, renewed when it is about to end. */
async function issuedToken(): Promise<string | null> {
  const tokens = sessionTokens();
  if (tokens?.refresh && tokens.expiresAt !== null && tokens.expiresAt < Date.now() + 60_000) {
    try {
      const [{ renewTokens }, config] = await Promise.all([
        import('./oidc'),
        queryClient.ensureQueryData(sessionConfigQuery),
      ]);
      if (config.oidc) await renewTokens(config.oidc);
    } catch {
      // The old token is sent: if it has ended, the answer says so and leads to the login.
    }
  }
  return sessionTokens()?.bearer ?? null;
}

/** The typed client of the HTTP API. Every failure is thrown as a {@link Problem}. */
export const client = createClient<paths>({ baseUrl: serverUrl('').replace(/\/$/, '') });
client.use(session);

/** The same client as TanStack Query options. */
export const api = createQueryApi(client);

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      // The server may be on this machine or in this house: what the browser thinks of the internet says nothing.
      networkMode: 'always',
      staleTime: 1_000,
      gcTime: 60_000,
      retry: (failures, error) => failures < 2 && isTransient(Problem.of(error)),
      retryDelay: (attempt) => Math.min(500 * 2 ** attempt, 4_000),
    },
    mutations: { networkMode: 'always', retry: false },
  },
});

function isTransient(problem: Problem): boolean {
  return problem.kind === 'unreachable' || problem.status === 502 || problem.status === 429;
}
