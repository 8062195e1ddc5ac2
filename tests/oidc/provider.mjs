// An OpenID Connect provider for tests of everything that logs in: `dbosctl` by the device flow, the console by an
// authorization code with PKCE. It is the certified `oidc-provider`; what is ours is who exists (the people below,
// picked from a list instead of by a password) and that access tokens are JWTs for Segno's audience, whether a client
// asks for that with `resource` (RFC 8707), with `audience` (as Auth0's clients do), or not at all.
//
//   node tests/oidc/provider.mjs [--port 0] [--host 127.0.0.1] [--issuer URL] [--audience URI] [--ttl SECONDS]
//
// When it is ready it prints one line of JSON: {"issuer", "audience", "clients", "users"}. Everything is in memory.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

/** Whoever may log in. `sub` is the name in lower case. */
export const USERS = {
  ann: { email: 'ann@example.com', email_verified: true, given_name: 'Ann', family_name: 'Archer' },
  bob: { email: 'bob@example.com', email_verified: true, given_name: 'Bob', family_name: 'Baker' },
  cat: { email: 'cat@corp.example', email_verified: true, given_name: 'Cat', family_name: 'Carver' },
  dan: { email: 'dan@corp.example', email_verified: false, given_name: 'Dan', family_name: 'Dyer' },
};

/** Public clients. Redirects may go to any path and port of this machine. */
export const CLIENTS = { cli: 'dbosctl', console: 'segno-console' };

const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';
const LOCAL = new Set(['127.0.0.1', '[::1]', 'localhost']);

const page = (title, body) =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`;

const escape = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** One key for each kind of signature, fresh at every start. */
async function keys() {
  const make = async (alg, kid) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    return { ...(await exportJWK(privateKey)), alg, kid, use: 'sig' };
  };
  return [await make('RS256', 'rsa'), await make('ES256', 'ec')];
}

/** Nobody is asked what a client may see: whoever logs in has consented. */
async function grant(ctx, audience) {
  const { oidc } = ctx;
  const known = oidc.session.grantIdFor(oidc.client.clientId);
  if (known) {
    const found = await oidc.provider.Grant.find(known);
    if (found) return found;
  }
  const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
  grant.addOIDCScope('openid profile email offline_access');
  grant.addResourceScope(audience, 'segno');
  await grant.save();
  return grant;
}

function configuration(audience, ttl, signingKeys) {
  const client = (client_id, more) => ({ client_id, token_endpoint_auth_method: 'none', ...more });
  return {
    clients: [
      client(CLIENTS.cli, { grant_types: [DEVICE, 'refresh_token'], response_types: [], redirect_uris: [] }),
      client(CLIENTS.console, {
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        redirect_uris: ['http://127.0.0.1/'],
      }),
    ],
    jwks: { keys: signingKeys },
    cookies: { keys: [randomBytes(32).toString('hex')] },
    claims: { email: ['email', 'email_verified'], profile: ['given_name', 'family_name', 'name'] },
    extraParams: ['audience'],
    clientBasedCORS: () => true,
    findAccount: (_ctx, sub) =>
      USERS[sub] && { accountId: sub, claims: async () => ({ sub, name: sub, ...USERS[sub] }) },
    // A browser keeps its login with a refresh token, whether or not it asked for offline_access.
    issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    loadExistingGrant: (ctx) => grant(ctx, audience),
    extraTokenClaims: async (_ctx, token) => {
      const { email, email_verified } = USERS[token.accountId] ?? {};
      return { email, email_verified };
    },
    ttl: {
      AccessToken: ttl,
      AuthorizationCode: 60,
      DeviceCode: 600,
      Grant: 86400,
      IdToken: ttl,
      Interaction: 600,
      RefreshToken: 86400,
      Session: 86400,
    },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true, ...devicePages },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, resource) => {
          if (resource !== audience) throw new Error(`there is no resource ${resource}`);
          const jwt = { sign: { alg: 'RS256' } };
          return { scope: 'segno', audience, accessTokenTTL: ttl, accessTokenFormat: 'jwt', jwt };
        },
      },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: true },
    },
    interactions: { url: (_ctx, interaction) => `/login/${interaction.uid}` },
    renderError: (ctx, out) => {
      ctx.type = 'html';
      ctx.body = page('Something went wrong', `<pre>${escape(JSON.stringify(out))}</pre>`);
    },
  };
}

const devicePages = {
  userCodeInputSource: (ctx, form, _out, error) => {
    const problem = error ? '<p role="alert">This code is not known.</p>' : '';
    ctx.body = page('Enter the code', `${problem}${form}<button form="op.deviceInputForm">Continue</button>`);
  },
  userCodeConfirmSource: (ctx, form, _client, _info, code) => {
    ctx.body = page(
      'Is this your code?',
      `<p><code>${escape(code)}</code></p>${form}<button form="op.deviceConfirmForm">Yes</button>`,
    );
  },
  successSource: (ctx) => {
    ctx.body = page('You have logged in', '<p>Close this page.</p>');
  },
};

/** The login: a button for each person. */
async function login(provider, request, response) {
  const { uid } = await provider.interactionDetails(request, response);
  if (request.method === 'GET') {
    const button = (name) => `<button name="user" value="${name}">${name}</button> `;
    const buttons = Object.keys(USERS).map(button).join('');
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(page('Who are you?', `<form method="post" action="/login/${escape(uid)}">${buttons}</form>`));
    return;
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const accountId = new URLSearchParams(body).get('user');
  const result = USERS[accountId]
    ? { login: { accountId } }
    : { error: 'access_denied', error_description: 'nobody of that name' };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

/**
 * Starts the provider on a port of `host` (0: any). Returns its issuer URL, which is `issuer` where others know the
 * machine by another name, and how to stop it.
 *
 * @param {{port?: number, host?: string, issuer?: string, audience?: string, ttl?: number}} options
 */
export async function start({
  port = 0,
  host = '127.0.0.1',
  issuer: name,
  audience = 'https://segno.example/api',
  ttl = 3600,
} = {}) {
  // The issuer's name holds the port, so the socket comes first.
  const server = createServer();
  server.listen(port, host);
  await once(server, 'listening');
  const issuer = name ?? `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration(audience, ttl, await keys()));
  const isLocal = (uri) => {
    if (!URL.canParse(uri)) return false;
    const url = new URL(uri);
    return url.protocol === 'http:' && LOCAL.has(url.hostname);
  };
  provider.Client.prototype.redirectUriAllowed = isLocal;
  provider.Client.prototype.postLogoutRedirectUriAllowed = isLocal;
  const serve = provider.callback();
  server.on('request', (request, response) => {
    if (!request.url.startsWith('/login/')) {
      serve(request, response);
      return;
    }
    login(provider, request, response).catch((error) => {
      response.statusCode = error.statusCode ?? 500;
      response.end(page('Something went wrong', escape(error.message)));
    });
  });
  const stop = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return { issuer, audience, clients: CLIENTS, users: USERS, stop };
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string' },
      host: { type: 'string' },
      issuer: { type: 'string' },
      audience: { type: 'string' },
      ttl: { type: 'string' },
    },
  });
  const number = (text) => (text === undefined ? undefined : Number(text));
  const provider = await start({ ...values, port: number(values.port), ttl: number(values.ttl) });
  const { issuer, audience, clients, users } = provider;
  console.log(JSON.stringify({ issuer, audience, clients, users: Object.keys(users) }));
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => provider.stop().then(() => process.exit(0)));
  }
}
