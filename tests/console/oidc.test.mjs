// People who log in at an OpenID Connect issuer: the way in, the first time, who may do what, and the way out.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { accessibilityFaults, ARTIFACTS, openTab, startBrowser, startServer } from './support.mjs';

const PROVIDER = fileURLToPath(new URL('../oidc/provider.mjs', import.meta.url));
/** Seconds that tokens are good for: a console renews them a minute before they end, so here after a few seconds. */
const TTL = 64;

let provider;
let issuer;
let server;
let browser;
let ann;
let secret;

before(async () => {
  provider = spawn(process.execPath, [PROVIDER, '--ttl', String(TTL)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(createInterface({ input: provider.stdout }), 'line');
  const { audience, clients, ...rest } = JSON.parse(line);
  issuer = rest.issuer;
  server = await startServer({
    SEGNO_AUTH: 'oidc',
    SEGNO_OIDC_ISSUER: issuer,
    SEGNO_OIDC_AUDIENCE: audience,
    SEGNO_OIDC_CLIENT_ID: clients.console,
  });
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  await server?.stop();
  provider?.kill();
});

/** Logs somebody in, in a tab of their own. Refused calls before that are how the console learns that it must. */
async function logIn(person, address = '/') {
  const tab = await openTab(browser, { url: server.url, expected: [401] });
  await tab.page.goto(address);
  await tab.page.getByRole('button', { name: 'Log in' }).click();
  await tab.page.waitForURL(`${issuer}/**`);
  await tab.page.getByRole('button', { name: person }).click();
  await tab.page.waitForURL(`${server.url}/**`);
  return tab;
}

describe('people', () => {
  it('log in at the issuer, choose a name, and come to an organisation of their own', async () => {
    ann = await logIn('ann');
    await ann.page.waitForURL('**/join');
    await ann.page.getByText('ann@example.com').waitFor();
    await ann.page.getByLabel('Name').fill('Ann');
    await ann.page.getByText('lower-case letters').waitFor();
    await ann.page.getByLabel('Name').fill('ann');
    await ann.page.getByRole('button', { name: 'Go on' }).click();
    await ann.page.getByRole('heading', { name: 'Connect your first application' }).waitFor();
    const kept = await ann.page.evaluate(() => JSON.stringify(localStorage) + document.cookie);
    assert.equal(kept, '{}');
  });

  it('renew their tokens before they end', async () => {
    const tokens = () => ann.page.evaluate(() => JSON.parse(sessionStorage.getItem('segno.tokens')));
    const before = await tokens();
    await ann.page.waitForFunction(
      (bearer) => JSON.parse(sessionStorage.getItem('segno.tokens')).bearer !== bearer,
      before.bearer,
      { timeout: 60_000 },
    );
    await ann.page.goto('/members');
    await ann.page.getByRole('row', { name: /^ann/ }).waitFor();
  });

  it('invite others, who join with the secret and get a role', async () => {
    await ann.page.getByRole('button', { name: 'Invite somebody' }).click();
    secret = (await ann.page.getByRole('dialog').locator('pre').textContent()).trim();
    await ann.page.getByRole('button', { name: 'I have copied it' }).click();
    await ann.page.getByRole('button', { name: 'New role' }).click();
    await ann.page.getByRole('dialog').getByRole('textbox', { name: 'Name' }).fill('looker');
    await ann.page.getByRole('dialog').getByRole('button', { name: 'Make the role' }).click();
    await ann.page.getByText('Role made').waitFor();

    const bob = await logIn('bob', '/keys');
    await bob.page.waitForURL('**/join');
    await bob.page.getByLabel('Name').fill('bob');
    await bob.page.getByLabel('Join secret').fill(secret);
    await bob.page.getByRole('button', { name: 'Go on' }).click();
    await bob.page.getByRole('button', { name: /Log out/ }).waitFor();

    await ann.page.reload();
    await ann.page.getByRole('combobox', { name: 'Role of bob' }).click();
    await ann.page.getByRole('option', { name: 'looker' }).click();
    await ann.page.getByRole('dialog').getByRole('button', { name: 'Change the role' }).click();
    await ann.page.getByText('Role changed').waitFor();
    await bob.page.goto('/');
    await bob.page.getByRole('button', { name: /Log out/ }).waitFor();
    assert.equal(await bob.page.getByRole('link', { name: /Members|API keys|Audit/ }).count(), 0);
    await bob.close();
  });

  it('claim the domain of their e-mail addresses', async () => {
    await ann.page.getByLabel('Domain to claim').fill('corp.example');
    await ann.page.getByRole('button', { name: 'Claim' }).click();
    await ann.page.getByRole('row', { name: /^corp\.example/ }).getByText('approved').waitFor();
    const cat = await logIn('cat');
    await cat.page.getByLabel('Name').fill('cat');
    await cat.page.getByRole('button', { name: 'Go on' }).click();
    await cat.page.getByRole('button', { name: /Log out/ }).waitFor();
    await cat.close();
    await ann.page.reload();
    await ann.page.getByRole('row', { name: /^cat/ }).waitFor();
    await ann.page.getByRole('row', { name: /^cat/ }).getByRole('button', { name: 'Remove' }).click();
    await ann.page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await ann.page.getByText('Member removed').waitFor();
  });

  it('see a page that anybody can read, in both themes', async () => {
    for (const theme of ['light', 'dark']) {
      await ann.page.emulateMedia({ colorScheme: theme });
      await ann.page.screenshot({ path: join(ARTIFACTS, `members-${theme}.png`) });
      assert.deepEqual(await accessibilityFaults(ann.page), []);
    }
  });

  it('log out here and at the issuer', async () => {
    await ann.page.getByRole('button', { name: /Log out/ }).click();
    await ann.page.waitForURL(`${issuer}/**`);
    // The issuer's own pages lack an icon and use fonts of the internet: not faults of the console.
    assert.deepEqual(
      ann.faults.filter((fault) => !fault.includes(`(${issuer}/`)),
      [],
    );
    assert.match(ann.page.url(), /id_token_hint=.*post_logout_redirect_uri=/);
    await ann.close();
  });
});
