// The five minutes with the console that the README promises of `make demo`, walked in less.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { ARTIFACTS, eventually, freePort, openTab, program, startBrowser } from './support.mjs';

const STOCK_TAKES = ['--stock-takes', '*/10 * * * * *'];
const directory = mkdtempSync(join(tmpdir(), 'segno-demo-'));
let demo;
let url;
let tab;
let page;
let browser;
let newer;
let said = '';

before(async () => {
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const command = [program('checkout'), ...STOCK_TAKES];
  demo = spawn(program('segno'), ['dev', '--app', 'checkout', '--listen', `127.0.0.1:${port}`, '--open', '--', ...command], {
    cwd: directory,
    env: { PATH: process.env.PATH, SEGNO_DATA_DIR: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  demo.stdout.on('data', (data) => {
    said += data;
  });
  await eventually('the demo says what to try', () => said.includes('Ctrl-C stops everything'), 60);
  assert(said.includes(`${url}/`), 'it tells the address of the console');
  browser = await startBrowser();
  tab = await openTab(browser, { url });
  page = tab.page;
});

after(async () => {
  await browser?.close();
  newer?.kill('SIGKILL');
  if (demo === undefined) return;
  const gone = new Promise((done) => demo.once('exit', done));
  demo.kill('SIGTERM');
  await gone;
  rmSync(directory, { recursive: true, force: true });
});

const api = async (method, path, body) => {
  const response = await fetch(`${url}/v2/orgs/local/apps/checkout${path}`, {
    method,
    headers: { 'Content-Type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.json();
};
const search = (body) => api('POST', '/workflows/search', body);
/** Goes to a page by its keys. */
const keys = async (letter, heading) => {
  await page.keyboard.press('g');
  await page.keyboard.press(letter);
  await page.getByRole('heading', { level: 1, name: heading }).waitFor();
};
const filter = async (text) => {
  await page.keyboard.press('/');
  await page.keyboard.type(text);
  await page.keyboard.press('Enter');
};

it('shows in five minutes what the README says', async () => {
  // 1. Is anything burning?
  await page.goto('/');
  const row = page.getByRole('row', { name: /checkout/ });
  await row.getByText('Healthy', { exact: true }).waitFor();
  await row.getByRole('link', { name: 'checkout' }).click();

  // 2. Kill one.
  await page.getByRole('heading', { level: 1, name: 'checkout' }).waitFor();
  await keys('r', 'Recovery');
  const pids = /kill all of the old one[^]*?kill -9 ([\d ]+)/.exec(said)[1].trim().split(' ').map(Number);
  await eventually('every executor works', async () => (await search({ status: ['PENDING'] })).length > 5);
  process.kill(pids[0], 'SIGKILL');
  await page.getByText('In grace').waitFor();
  await page.getByText('Recovered', { exact: true }).nth(1).waitFor({ timeout: 60_000 });
  await page.screenshot({ path: join(ARTIFACTS, 'demo-recovery-light.png') });

  // 3. What happened to a workflow?
  await keys('w', 'Workflows');
  await filter('status:success');
  await page.waitForURL('**/workflows?status=SUCCESS');
  await page.keyboard.type('name:checkout');
  await page.keyboard.press('Enter');
  await page.getByRole('row', { name: /checkout.*cart-/ }).first().waitFor();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Escape');
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.getByText(/^Succeeded in/).waitFor();

  // 4. Do it again, from the middle.
  await page.getByRole('treegrid', { name: 'Steps' }).getByRole('row', { name: /charge card/ }).click();
  await page.getByRole('button', { name: 'Fork from this step…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Fork', exact: true }).click();
  await page.getByText('forked from').waitFor();
  // The gateway of the demonstration fails now and then, and is asked again up to ten times.
  await page.getByText(/^(Succeeded|Failed)/).waitFor({ timeout: 120_000 });
  await page.getByRole('link', { name: 'Compare', exact: true }).click();
  await page.getByText(/differ/).first().waitFor();

  // 5. Work in bulk.
  await keys('w', 'Workflows');
  await filter('status:pending');
  await page.getByRole('button', { name: 'Act on all that match' }).click();
  await page.getByRole('menuitem', { name: 'Cancel…' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('heading', { name: /^Cancel \d+ workflows?$/ }).waitFor();
  await dialog.getByLabel('Reason').fill('a tour');
  await dialog.getByRole('button', { name: 'Cancel them' }).click();
  await dialog.getByRole('heading', { name: /^\d+ of \d+ cancelled/ }).waitFor();
  await dialog.getByRole('link', { name: 'Open in Operations' }).click();
  await page.getByRole('dialog').getByText('a tour').waitFor();
  // Keys are the dialog's until it is gone.
  const told = page.getByRole('dialog').filter({ hasText: 'a tour' });
  await told.getByRole('button', { name: 'Close' }).click();
  await told.waitFor({ state: 'detached' });

  // 6. Queues, children, the clock.
  await keys('s', 'Schedules');
  await page.getByRole('row', { name: /stock-take/ }).getByRole('button', { name: 'Run now' }).click();
  await page.getByRole('link', { name: 'Open the workflow' }).click();
  await page.getByText(/^Succeeded in/).waitFor({ timeout: 60_000 });
  await page.getByRole('button', { name: 'Steps of this child' }).first().click();
  await page.getByRole('row', { name: /count pieces/ }).waitFor();
  await page.screenshot({ path: join(ARTIFACTS, 'demo-stock-light.png') });
  await keys('q', 'Queues');
  await page.getByRole('row', { name: /shelves/ }).getByText('2 at once').waitFor();
  await keys('m', 'Metrics');
  await page.getByRole('button', { name: 'By queue' }).click();
  await page.getByRole('img', { name: /^Queue depth/ }).waitFor();
  await page.screenshot({ path: join(ARTIFACTS, 'demo-queues-light.png') });

  // 7. Strand some work.
  const environment = await environmentOf();
  newer = spawn(program('checkout'), STOCK_TAKES, { cwd: directory, env: environment, stdio: 'ignore' });
  await eventually('the new version is there', async () => (await api('GET', '/executors')).some((each) => each.appVersion === 'v2'));
  await keys('r', 'Recovery');
  const old = (await api('GET', '/executors')).filter((each) => each.appVersion !== 'v2');
  for (const pid of [...pids.slice(1), ...replacements()]) process.kill(pid, 'SIGKILL');
  assert(old.length > 0);
  await page.getByRole('article', { name: /^Stranded/ }).first().waitFor({ timeout: 60_000 });
  await page.screenshot({ path: join(ARTIFACTS, 'demo-stranded-light.png') });
  assert.deepEqual(tab.faults, []);
});

/** Pids of executors that replaced a killed one, as the terminal tells them. */
const replacements = () => [...said.matchAll(/replacement started: executor \d+, pid (\d+)/g)].map((match) => Number(match[1]));

/** What the file holds that the terminal says to read for an executor of another version. */
async function environmentOf() {
  const file = /\(\. (\S+) && SEGNO_APP_VERSION=v2/.exec(said)[1];
  const { stdout } = await new Promise((done) => {
    const shell = spawn('sh', ['-c', `. ${file} && SEGNO_APP_VERSION=v2 env`], {
      cwd: directory,
      env: { PATH: process.env.PATH },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let stdout = '';
    shell.stdout.on('data', (data) => {
      stdout += data;
    });
    shell.once('close', () => done({ stdout }));
  });
  const lines = stdout.split('\n').filter((line) => line.includes('='));
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}
