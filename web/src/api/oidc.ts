import * as oauth from 'oauth4webapi';
import { serverUrl } from './base';
import type { OidcConfig } from './config';
import { sessionTokens, setSessionTokens, type Tokens } from './session';

/** What a login needs to remember until the issuer sends the browser back. */
type Pending = { state: string; verifier: string; nonce: string; next: string };
const PENDING = 'segno.login';
/** Tokens are renewed so long before they end, milliseconds. */
const EARLY = 60_000;

const redirectUri = () => serverUrl('login/callback');

/**
 * Sends the browser to the issuer (authorization code flow with PKCE, RFC 7636 and OpenID Connect Core 3.1). `next` is the
 * page of the console to come back to.
 */
export async function beginLogin(config: OidcConfig, next: string): Promise<void> {
  if (!config.authorizationEndpoint || !config.clientId)
    throw new Error('The issuer cannot be asked at the moment.');
  const pending: Pending = {
    state: oauth.generateRandomState(),
    verifier: oauth.generateRandomCodeVerifier(),
    nonce: oauth.generateRandomNonce(),
    next,
  };
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  const url = new URL(config.authorizationEndpoint);
  const wanted: Record<string, string> = {
    client_id: config.clientId,
    redirect_uri: redirectUri(),
    response_type: 'code',
    scope: config.scopes,
    state: pending.state,
    nonce: pending.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(pending.verifier),
    code_challenge_method: 'S256',
    ...forAudience(config),
  };
  for (const [name, value] of Object.entries(wanted)) url.searchParams.set(name, value);
  window.location.assign(url);
}

/** Issuers differ in how one asks for tokens for an API: `audience` is common, `resource` is RFC 8707. */
function forAudience({ audience, clientId }: OidcConfig): Record<string, string> {
  if (audience === '' || audience === clientId) return {};
  return URL.canParse(audience) ? { audience, resource: audience } : { audience };
}

/** Takes what the issuer sent the browser back with; returns the page that was wanted. */
export async function finishLogin(config: OidcConfig, url: URL): Promise<string> {
  const stored = sessionStorage.getItem(PENDING);
  if (stored === null) throw new Error('No login was begun in this tab. Log in again.');
  const pending = JSON.parse(stored) as Pending;
  const [server, client] = parties(config);
  const params = oauth.validateAuthResponse(server, client, url, pending.state);
  // A code is good for one try.
  sessionStorage.removeItem(PENDING);
  const response = await oauth.authorizationCodeGrantRequest(
    server,
    client,
    oauth.None(),
    params,
    redirectUri(),
    pending.verifier,
    { ...reach(config), additionalParameters: forAudience(config) },
  );
  const result = await oauth.processAuthorizationCodeResponse(server, client, response, {
    expectedNonce: pending.nonce,
  });
  setSessionTokens(tokensOf(result, null));
  return pending.next;
}

let renewal: Promise<void> | null = null;

/** Renews tokens that are about to end, if the issuer gave the means. Several callers share one try. */
export async function renewTokens(config: OidcConfig): Promise<void> {
  const tokens = sessionTokens();
  if (!tokens?.refresh || !endsSoon(tokens)) return;
  renewal ??= renew(config, tokens).finally(() => {
    renewal = null;
  });
  await renewal;
}

async function renew(config: OidcConfig, tokens: Tokens): Promise<void> {
  const [server, client] = parties(config);
  const response = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), tokens.refresh ?? '', {
    ...reach(config),
    additionalParameters: forAudience(config),
  });
  setSessionTokens(tokensOf(await oauth.processRefreshTokenResponse(server, client, response), tokens));
}

/** Whether tokens are about to end. */
export function endsSoon({ expiresAt }: Tokens): boolean {
  return expiresAt !== null && expiresAt - Date.now() < EARLY;
}

/** Where the browser goes to end the session at the issuer too; null when the issuer has no such place. */
export function logoutUrl(config: OidcConfig, idToken: string | null): string | null {
  if (!config.endSessionEndpoint) return null;
  const url = new URL(config.endSessionEndpoint);
  if (idToken) url.searchParams.set('id_token_hint', idToken);
  if (config.clientId) url.searchParams.set('client_id', config.clientId);
  url.searchParams.set('post_logout_redirect_uri', serverUrl('login'));
  return url.href;
}

function tokensOf(result: oauth.TokenEndpointResponse, before: Tokens | null): Tokens {
  const id = result.id_token ?? before?.id ?? null;
  // Some issuers give opaque access tokens for their own use only: then the ID token says who it is.
  const bearer = isJwt(result.access_token) || id === null ? result.access_token : id;
  return {
    bearer,
    id,
    refresh: result.refresh_token ?? before?.refresh ?? null,
    expiresAt: result.expires_in === undefined ? null : Date.now() + result.expires_in * 1_000,
  };
}

function isJwt(token: string): boolean {
  return token.split('.').length === 3;
}

function parties(config: OidcConfig): [oauth.AuthorizationServer, oauth.Client] {
  const server = {
    issuer: config.issuer,
    ...(config.authorizationEndpoint ? { authorization_endpoint: config.authorizationEndpoint } : {}),
    ...(config.tokenEndpoint ? { token_endpoint: config.tokenEndpoint } : {}),
  };
  return [server, { client_id: config.clientId ?? '' }];
}

/** The server was set up with this issuer: if without TLS, for a test or behind a tunnel, so be it. */
function reach(config: OidcConfig): { [oauth.allowInsecureRequests]?: boolean } {
  return config.issuer.startsWith('http:') ? { [oauth.allowInsecureRequests]: true } : {};
}
