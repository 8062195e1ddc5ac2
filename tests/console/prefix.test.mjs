// The console behind a reverse proxy that gives it a path prefix and takes it off again.

import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import { after, before, it } from 'node:test';
import { openTab, startBrowser, startServer } from './support.mjs';

const PREFIX = '/segno';
let server;
let browser;
let proxy;
let url;

/** Strips the prefix and knows nothing else, as nginx does with `location /segno/ { proxy_pass http://server/; }`. */
function stripping(target) {
  return createServer((incoming, outgoing) => {
    if (!incoming.url.startsWith(`${PREFIX}/`)) {
      outgoing.writeHead(404).end('not below the prefix');
      return;
    }
    const forwarded = request(
      new URL(incoming.url.slice(PREFIX.length), target),
      { method: incoming.method, headers: incoming.headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode, answer.headers);
        answer.pipe(outgoing);
      },
    );
    forwarded.on('error', () => outgoing.destroy());
    incoming.pipe(forwarded);
    outgoing.on('close', () => forwarded.destroy());
  });
}

before(async () => {
  server = await startServer();
  await server.call('PUT', '/apps/shop', {});
  proxy = stripping(server.url);
  await new Promise((done) => proxy.listen(0, '127.0.0.1', done));
  url = `http://127.0.0.1:${proxy.address().port}`;
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  proxy?.close();
  proxy?.closeAllConnections();
  await server?.stop();
});

it('works below a prefix that a proxy takes off', async () => {
  const tab = await openTab(browser, { url, expected: [401] });
  const { page } = tab;
  // A page deep below the prefix, opened directly: its files are found, and the login comes back to it.
  await page.goto(`${PREFIX}/apps/shop/recovery`);
  await page.waitForURL(`**${PREFIX}/login?next=*`);
  await page.getByLabel('API key').fill(server.adminKey);
  await page.keyboard.press('Enter');
  await page.waitForURL(`**${PREFIX}/apps/shop/recovery`);
  await page.getByRole('heading', { level: 1, name: 'Recovery' }).waitFor();
  await page.getByRole('link', { name: 'Fleet' }).first().click();
  await page.waitForURL(`**${PREFIX}/`);
  await page.getByRole('row', { name: /shop/ }).waitFor();
  await page.reload();
  await page.getByRole('row', { name: /shop/ }).waitFor();
  // What is pasted into applications leads through the proxy too.
  await page.goto(`${PREFIX}/apps/shop/connect`);
  await page.getByText(`ws://127.0.0.1:${proxy.address().port}${PREFIX}`).first().waitFor();
  assert.equal(await page.getByRole('link', { name: 'API reference' }).getAttribute('href'), `${url}${PREFIX}/docs`);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});
