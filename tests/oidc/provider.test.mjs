// The provider itself: both ways of logging in give tokens that Segno takes.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { approveDevice, Browser } from './browser.mjs';
import { start } from './provider.mjs';

let provider;
let metadata;

before(async () => {
  provider = await start();
  metadata = await (await fetch(`${provider.issuer}/.well-known/openid-configuration`)).json();
});

after(() => provider.stop());

async function post(address, fields) {
  const response = await fetch(address, { method: 'POST', body: new URLSearchParams(fields) });
  return { status: response.status, ...(await response.json()) };
}

const claims = async (token) => {
  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));
  const { payload } = await jwtVerify(token, keys, { issuer: provider.issuer, audience: provider.audience });
  return payload;
};

for (const [how, asked] of [
  ['an audience', () => ({ audience: provider.audience })],
  ['a resource', () => ({ resource: provider.audience })],
  ['nothing', () => ({})],
]) {
  test(`a device that asks for ${how} logs in`, async () => {
    const client_id = provider.clients.cli;
    const scope = 'openid profile email offline_access';
    const device = await post(metadata.device_authorization_endpoint, { client_id, scope, ...asked() });
    assert.equal(device.status, 200, JSON.stringify(device));
    const grant = {
      client_id,
      grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
      device_code: device.device_code,
    };
    assert.equal((await post(metadata.token_endpoint, grant)).error, 'authorization_pending');
    await approveDevice(device.verification_uri_complete, 'ann');
    const tokens = await post(metadata.token_endpoint, grant);
    assert.equal(tokens.status, 200, JSON.stringify(tokens));
    const { sub, email, email_verified } = await claims(tokens.access_token);
    assert.deepEqual({ sub, email, email_verified }, { sub: 'ann', email: 'ann@example.com', email_verified: true });

    const refresh = { client_id, grant_type: 'refresh_token', refresh_token: tokens.refresh_token };
    const again = await post(metadata.token_endpoint, refresh);
    assert.equal((await claims(again.access_token)).sub, 'ann');
  });
}

test('a browser logs in with a code and PKCE', async () => {
  const verifier = randomBytes(32).toString('base64url');
  const redirect_uri = 'http://localhost:5173/login/callback';
  const address = new URL(metadata.authorization_endpoint);
  address.search = new URLSearchParams({
    client_id: provider.clients.console,
    redirect_uri,
    response_type: 'code',
    scope: 'openid profile email',
    state: 'xyz',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    audience: provider.audience,
  });
  const browser = new Browser();
  const follow = (url) => url.origin === provider.issuer;
  const page = await browser.open(address, { follow });
  const back = await browser.submit(page, { user: 'bob' }, { follow });
  assert.ok(back.url.href.startsWith(redirect_uri), back.url.href);
  assert.equal(back.url.searchParams.get('state'), 'xyz');
  const grant = {
    client_id: provider.clients.console,
    grant_type: 'authorization_code',
    code: back.url.searchParams.get('code'),
    redirect_uri,
  };
  const refused = await post(metadata.token_endpoint, { ...grant, code_verifier: 'wrong'.repeat(10) });
  assert.equal(refused.error, 'invalid_grant');
  const tokens = await post(metadata.token_endpoint, { ...grant, code_verifier: verifier });
  assert.equal(tokens.status, 200, JSON.stringify(tokens));
  assert.equal((await claims(tokens.access_token)).email, 'bob@example.com');
  assert.ok(tokens.refresh_token);
});

test('redirects leave this machine for nobody', async () => {
  const address = new URL(metadata.authorization_endpoint);
  address.search = new URLSearchParams({
    client_id: provider.clients.console,
    redirect_uri: 'https://evil.test/',
    response_type: 'code',
    scope: 'openid',
    code_challenge: 'x'.repeat(43),
    code_challenge_method: 'S256',
  });
  const answer = await fetch(address, { redirect: 'manual' });
  assert.equal(answer.status, 400);
});
