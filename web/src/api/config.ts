import createClient from 'openapi-fetch';
import { serverUrl } from './base';
import { Problem } from './problem';

/** How this server lets people in. The endpoints are null as long as the issuer could not be asked. */
export type SessionConfig = { mode: 'none' | 'keys' | 'oidc'; oidc?: OidcConfig };

export type OidcConfig = {
  issuer: string;
  audience: string;
  clientId: string | null;
  scopes: string;
  authorizationEndpoint: string | null;
  tokenEndpoint: string | null;
  endSessionEndpoint: string | null;
};

// Asked before anybody has logged in, and for the console alone: it is not part of the published document.
type Paths = {
  '/console/session-config': {
    get: { responses: { 200: { headers: never; content: { 'application/json': SessionConfig } } } };
  };
};
const client = createClient<Paths>({ baseUrl: serverUrl('').replace(/\/$/, '') });

export const sessionConfigQuery = {
  queryKey: ['session-config'],
  queryFn: async (): Promise<SessionConfig> => {
    try {
      const { data, response } = await client.GET('/console/session-config');
      if (!data) throw await Problem.from(response);
      return data;
    } catch (error) {
      throw Problem.of(error);
    }
  },
  staleTime: 5 * 60_000,
};
