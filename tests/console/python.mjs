// Executors of the official Python SDK: the application of ../sdk/README.md, on a PostgreSQL database of its own.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const SDK = resolve(dirname(fileURLToPath(import.meta.url)), '../sdk');
const RELEASE = '3.2.0';

/** How the application is started under that release, as its manifest says. */
function command() {
  const here = join(SDK, 'python');
  const cache = join(process.env.SEGNO_TEST_SDK_CACHE ?? resolve(SDK, '../../.cache/sdk'), 'python');
  const { releases } = JSON.parse(readFileSync(join(here, 'client.json'), 'utf8'));
  const release = releases.find((each) => each.version === RELEASE);
  assert(release, `no release ${RELEASE} in tests/sdk/python/client.json`);
  const filled = release.command.map((part) => part.replace('{here}', here).replace('{cache}', cache));
  assert(existsSync(filled[0]), `${filled[0]} is missing: tests/sdk/environments.py python`);
  return filled;
}

function psql(url, statement) {
  const run = spawnSync('psql', ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', url, '-c', statement], {
    encoding: 'utf8',
  });
  assert.equal(run.status, 0, run.stderr);
  return run.stdout.trim();
}

/** A database for one application: the SDK's tables, and the journal by which a test sets the pace of its steps. */
export function pythonDatabase() {
  const admin = process.env.SEGNO_TEST_POSTGRES_URL;
  assert(admin, 'SEGNO_TEST_POSTGRES_URL is not set: tests/postgres.sh npm test');
  const name = `segno_console_${process.pid}_${Date.now()}`;
  psql(admin, `CREATE DATABASE ${name}`);
  const url = Object.assign(new URL(admin), { pathname: `/${name}` }).href;
  const journal = readFileSync(join(SDK, 'harness/journal.py'), 'utf8');
  psql(url, /SCHEMA = """(.*?)"""/s.exec(journal)[1]);
  return {
    url,
    sql: (statement) => psql(url, statement),
    /** Lets a journey end its first `steps` legs, and begin the next. */
    letPass: (id, steps = 1_000) =>
      psql(
        url,
        `INSERT INTO app.pace VALUES ('${id}', ${steps}) ON CONFLICT (workflow_id) DO UPDATE SET steps = EXCLUDED.steps`,
      ),
    drop: () => psql(admin, `DROP DATABASE ${name} WITH (FORCE)`),
  };
}

/** A process of the application; ready when it has launched. `order` is obeyed when it returns. */
export async function startPython(server, database, { app, key, version }) {
  const [program, ...rest] = command();
  const executor = spawn(program, rest, {
    cwd: server.directory,
    env: {
      PATH: process.env.PATH,
      APP_SDK: RELEASE,
      APP_NAME: app,
      APP_VERSION: version,
      APP_DATABASE_URL: database.url,
      APP_CONDUCTOR_URL: server.url.replace('http', 'ws'),
      APP_CONDUCTOR_KEY: key,
      APP_METADATA: JSON.stringify({ zone: 'north' }),
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  server.executors.push(executor);
  const log = [];
  executor.stderr.on('data', (data) => log.push(data));
  // What it was asked before it died has no answer.
  executor.stdin.on('error', () => {});
  const waiting = [];
  createInterface({ input: executor.stdout }).on('line', (line) => {
    if (line.startsWith('answer: ')) waiting.shift()?.resolve(JSON.parse(line.slice('answer: '.length)));
  });
  executor.once('exit', () => {
    for (const { reject } of waiting.splice(0)) reject(new Error(`the application ended\n${Buffer.concat(log)}`));
  });
  const answer = () => new Promise((resolve, reject) => waiting.push({ resolve, reject }));
  const hello = await answer();
  return {
    id: hello.executor_id,
    kill: () => executor.kill('SIGKILL'),
    freeze: () => executor.kill('SIGSTOP'),
    async order(order) {
      const answered = answer();
      executor.stdin.write(`${JSON.stringify(order)}\n`);
      const { error } = await answered;
      assert.equal(error, undefined, JSON.stringify(order));
    },
  };
}
