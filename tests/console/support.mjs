// Real parts for the console's tests: the server, executors of the example, and a browser.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = resolve(HERE, '../..');
const TARGET = resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target', 'debug');
export const CHROMIUM = process.env.SEGNO_CHROMIUM ?? '/usr/bin/chromium';
const AXE = readFileSync(join(HERE, 'node_modules/axe-core/axe.min.js'), 'utf8');
/** Screenshots of every page, to be looked at. */
export const ARTIFACTS = resolve(process.env.SEGNO_ARTIFACTS ?? join(HERE, 'artifacts'));
mkdirSync(ARTIFACTS, { recursive: true });

export function program(name) {
  const path = join(TARGET, name);
  assert(existsSync(path), `${path} is missing: cargo build --bins`);
  return path;
}

export async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** Polls until `look` returns something, and says what was awaited when it does not. */
export async function eventually(what, look, seconds = 30) {
  const end = Date.now() + seconds * 1_000;
  let last;
  while (Date.now() < end) {
    try {
      const seen = await look();
      if (seen) return seen;
    } catch (error) {
      last = error;
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`not within ${seconds} s: ${what}${last ? ` (${last.message})` : ''}`);
}

/** A server in key mode, unless `env` says otherwise, on its own SQLite, with nothing registered. */
export async function startServer(env = {}) {
  assert(existsSync(join(ROOT, 'web/dist/index.html')), 'the console is not built: make console');
  const directory = mkdtempSync(join(tmpdir(), 'segno-console-'));
  const port = await freePort();
  const adminKey = `dbos_${randomBytes(24).toString('hex')}`;
  const url = `http://127.0.0.1:${port}`;
  const log = [];
  const child = spawn(program('segno'), ['serve'], {
    cwd: directory,
    env: {
      PATH: process.env.PATH,
      SEGNO_LISTEN: `127.0.0.1:${port}`,
      SEGNO_DATA_DIR: directory,
      SEGNO_AUTH: 'keys',
      SEGNO_ADMIN_KEY: adminKey,
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => log.push(data));
  const server = {
    url,
    adminKey,
    directory,
    executors: [],
    database: join(directory, 'app.db'),
    log: () => Buffer.concat(log).toString(),

    /** Calls the API as the administrator; for what a test needs and the console is not asked to show. */
    async call(method, path, body) {
      const response = await fetch(`${url}/v2/orgs/local${path}`, {
        method,
        headers: { Authorization: `Bearer ${adminKey}`, 'Content-Type': 'application/json' },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      assert(response.ok, `${method} ${path}: ${response.status} ${await response.clone().text()}`);
      return response.status === 204 ? null : response.json();
    },

    /** A process of the example: it starts checkouts and runs them. */
    startExecutor({
      app, key, id, version, rate = 1, first = 0, stepMs = 300, declined = 0.02, database = `sqlite://${this.database}`,
    }) {
      const executor = spawn(program('checkout'), [], {
        cwd: directory,
        env: {
          PATH: process.env.PATH,
          SEGNO_APP_NAME: app,
          SEGNO_SYSTEM_DATABASE_URL: database,
          SEGNO_CONDUCTOR_URL: url.replace('http', 'ws'),
          SEGNO_CONDUCTOR_KEY: key,
          SEGNO_EXECUTOR_ID: id,
          SEGNO_APP_VERSION: version,
          CHECKOUT_RATE: String(rate),
          CHECKOUT_FIRST: String(first),
          CHECKOUT_STEP_MS: String(stepMs),
          CHECKOUT_DECLINED: String(declined),
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      for (const stream of [executor.stdout, executor.stderr]) stream.on('data', (data) => log.push(data));
      this.executors.push(executor);
      return executor;
    },

    /** SQL on the application's own database: a state of the world that the example does not produce. */
    sql(statement, ...values) {
      const script =
        'import json,sqlite3,sys;c=sqlite3.connect(sys.argv[1],timeout=30);c.execute(sys.argv[2],json.load(sys.stdin));c.commit()';
      const run = spawnSync('python3', ['-c', script, this.database, statement], { input: JSON.stringify(values) });
      assert.equal(run.status, 0, String(run.stderr));
    },

    async stop() {
      const all = [...this.executors, child].filter((each) => each.exitCode === null && each.signalCode === null);
      await Promise.all(
        all.map((each) => {
          const gone = new Promise((done) => each.once('exit', done));
          each.kill('SIGKILL');
          return gone;
        }),
      );
      rmSync(directory, { recursive: true, force: true });
    },
  };
  await eventually('the server is healthy', async () => (await fetch(`${url}/healthz`)).ok).catch((error) => {
    throw new Error(`${error.message}\n${server.log()}`);
  });
  return server;
}

export async function startBrowser() {
  return chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/**
 * A tab, and what went wrong in it: exceptions, console errors, policy violations. Answers that a state of the world
 * explains (no executor, wrong key) are not errors of the console; `expected` names their status codes.
 */
export async function openTab(browser, { url, key, theme = 'light', expected = [] }) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 820 }, colorScheme: theme, baseURL: url });
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(`exception: ${error.stack ?? error.message}`));
  page.on('console', (message) => {
    if (message.type() !== 'error') return;
    const text = message.text();
    if (expected.some((status) => text.includes(`status of ${status}`))) return;
    faults.push(`console: ${text} (${page.url()})`);
  });
  if (key) {
    await page.addInitScript((value) => sessionStorage.setItem('segno.key', value), key);
  }
  return { page, context, faults, close: () => context.close() };
}

/** What axe finds and calls serious or worse. */
export async function accessibilityFaults(page) {
  // The policy of the page forbids foreign scripts; the debugger's channel is not the page.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations
    .filter((violation) => ['serious', 'critical'].includes(violation.impact))
    .map((violation) => `${violation.id}: ${violation.nodes[0]?.html} ${violation.nodes[0]?.failureSummary}`);
}

/**
 * Looks at pages as a reader in that theme does: each is shown without faults, photographed, and free of what axe calls
 * serious. `pages` gives for each name the address, the heading and, if there is one, what must be there first.
 */
export async function examine(browser, server, theme, pages) {
  const own = await openTab(browser, { url: server.url, key: server.adminKey, theme });
  const found = {};
  for (const [name, [address, heading, ready]] of Object.entries(pages)) {
    await own.page.goto(address);
    await own.page.getByRole('heading', { level: 1, name: heading }).waitFor();
    await own.page.getByRole('status', { name: 'Loading' }).first().waitFor({ state: 'detached' });
    if (ready) await ready(own.page);
    await own.page.locator('[aria-busy=true]').first().waitFor({ state: 'detached' });
    await own.page.screenshot({ path: join(ARTIFACTS, `${name}-${theme}.png`) });
    const faults = await accessibilityFaults(own.page);
    if (faults.length > 0) found[name] = faults;
  }
  assert.deepEqual(found, {});
  assert.deepEqual(own.faults, []);
  await own.close();
}
