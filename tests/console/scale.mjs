// How the console does with an application of a million workflows, one of 20,000 steps and one of a 50 MB output, on a
// real Postgres. Prints a table; no test, for it takes minutes and its figures depend on the machine.
//
//     SEGNO_TEST_POSTGRES_URL=postgres://… npm run scale [-- WORKFLOWS]

import { spawnSync } from 'node:child_process';
import { eventually, openTab, startBrowser, startServer } from './support.mjs';

const WORKFLOWS = Number(process.argv[2] ?? 1_000_000);
const STEPS = 20_000;
const RUNS = Number(process.env.SCALE_RUNS ?? 20);
const LIVE_SECONDS = Number(process.env.SCALE_LIVE_SECONDS ?? 600);
const APP = 'big';
const admin = process.env.SEGNO_TEST_POSTGRES_URL;
if (!admin) throw new Error('SEGNO_TEST_POSTGRES_URL is not set');
const name = `segno_scale_${process.pid}`;
const database = Object.assign(new URL(admin), { pathname: `/${name}` }).href;

function psql(url, statement) {
  const run = spawnSync('psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', url, '-c', statement], { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(run.stderr);
  return run.stdout;
}

/** Rows such as an application leaves behind: most succeeded, some failed, a few wait for a version that is gone. */
const SEED = `
  INSERT INTO dbos.workflow_status (workflow_uuid, status, name, authenticated_user, executor_id, created_at, updated_at,
    application_version, queue_name, started_at_epoch_ms, priority, parent_workflow_id, forked_from, was_forked_from,
    completed_at, attributes, schedule_name, application_name)
  SELECT 'seed-' || md5(i::text), s.status, 'workflow_' || i % 40, CASE WHEN i % 3 = 0 THEN 'user' || i % 5000 END,
    'executor-' || i % 12, t.at, t.at + 900, 'v' || i % 6,
    CASE WHEN i % 4 = 0 OR s.status = 'ENQUEUED' THEN 'queue_' || i % 8 END,
    CASE WHEN s.status <> 'ENQUEUED' THEN t.at + 20 END, 0,
    CASE WHEN i % 10 = 0 THEN 'seed-' || md5((i / 10)::text) END, CASE WHEN i % 1000 = 0 THEN 'seed-' || md5((i / 1000)::text) END,
    i <= ${WORKFLOWS} / 1000, CASE WHEN s.status IN ('SUCCESS', 'ERROR', 'CANCELLED') THEN t.at + 900 END,
    CASE WHEN i % 20 = 0 THEN jsonb_build_object('tenant', 't' || i % 300) END,
    CASE WHEN i % 50 = 0 THEN 'nightly' END, '${APP}'
  FROM generate_series(1, ${WORKFLOWS}) i,
    LATERAL (SELECT (extract(epoch FROM now()) * 1000)::bigint - i::bigint * 86400000 * 30 / ${WORKFLOWS} AS at) t,
    LATERAL (SELECT CASE WHEN i % 2000 = 7 THEN 'ENQUEUED' WHEN i % 50 = 3 THEN 'CANCELLED' WHEN i % 30 = 1 THEN 'ERROR'
      ELSE 'SUCCESS' END AS status) s;
  INSERT INTO dbos.workflow_status (workflow_uuid, status, name, executor_id, created_at, updated_at, completed_at,
    application_version, started_at_epoch_ms, application_name)
  SELECT id, 'SUCCESS', id, 'executor-1', at, at + 60000000, at + 60000000, 'v1', at, '${APP}'
  FROM (VALUES ('long'), ('huge')) v (id), LATERAL (SELECT (extract(epoch FROM now()) * 1000)::bigint - 60000000 AS at) t;
  INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name, output, started_at_epoch_ms, completed_at_epoch_ms)
  SELECT 'long', i, 'step_' || i % 17, '"ok"', at + i * 3000, at + i * 3000 + 1500
  FROM generate_series(0, ${STEPS - 1}) i, LATERAL (SELECT (extract(epoch FROM now()) * 1000)::bigint - 60000000 AS at) t;
  INSERT INTO dbos.workflow_output (workflow_uuid, output) VALUES ('huge', '"' || repeat('0123456789', 5000000) || '"');
  ANALYZE;
`;

const FILTERS = {
  'first page': {},
  'status=SUCCESS': { status: ['SUCCESS'] },
  'status=ERROR': { status: ['ERROR'] },
  'status=ENQUEUED': { status: ['ENQUEUED'] },
  'status=PENDING (none)': { status: ['PENDING'] },
  'name (1 in 40)': { workflowName: ['workflow_7'] },
  'name (none)': { workflowName: ['nothing'] },
  'version (1 in 6)': { appVersion: ['v2'] },
  'version (none)': { appVersion: ['gone'] },
  'executor (1 in 12)': { executorId: ['executor-3'] },
  'executor (none)': { executorId: ['gone'] },
  'queue (1 in 32)': { queueName: ['queue_4'] },
  'queue (none)': { queueName: ['gone'] },
  'user (67 of all)': { user: ['user42'] },
  'user (none)': { user: ['nobody'] },
  'id prefix': { workflowIdPrefix: ['seed-abcd'] },
  parent: { parentWorkflowId: ['seed-c4ca4238a0b923820dcc509a6f75849b'] },
  'forked from': { forkedFrom: ['seed-c4ca4238a0b923820dcc509a6f75849b'] },
  schedule: { scheduleName: ['nightly'] },
  attribute: { attributes: { tenant: 't20' } },
  'attribute (none)': { attributes: { tenant: 'gone' } },
  'is a child': { hasParent: true },
  'has forks': { wasForkedFrom: true },
  'on a queue': { queuesOnly: true },
  'since 1 h': { startTime: new Date(Date.now() - 3_600_000).toISOString() },
  'until 20 d ago': { endTime: new Date(Date.now() - 20 * 86_400_000).toISOString() },
  'failed, one name': { status: ['ERROR'], workflowName: ['workflow_1'] },
  'oldest first': { sortDesc: false },
};

function quantile(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)];
}

async function timed(run) {
  const begin = performance.now();
  await run();
  return performance.now() - begin;
}

const row = (what, figure, note = '') => console.log(`${what.padEnd(44)} ${String(figure).padStart(10)}  ${note}`);
const ms = (value) => `${Math.round(value)} ms`;

psql(admin, `CREATE DATABASE ${name}`);
const server = await startServer();
let browser;
try {
  await server.call('PUT', `/apps/${APP}`, {});
  const { token } = await server.call('POST', '/tokens/executors', { permissions: ['websocket.connect'] });
  server.startExecutor({ app: APP, key: token, id: 'reader', version: 'v1', rate: 0.5, database });
  await eventually('the executor is connected', async () => (await server.call('GET', `/apps/${APP}/executors`)).length > 0);
  row(`seeding ${WORKFLOWS} workflows`, ms(await timed(() => psql(database, SEED))));

  console.log('\nThe list through the API (100 rows)            p50        p95');
  for (const [what, filter] of Object.entries(FILTERS)) {
    const body = { sortDesc: true, ...filter, limit: 100 };
    const times = [];
    let found = 0;
    for (let run = 0; run < RUNS; run += 1) {
      times.push(
        await timed(async () => {
          found = (await server.call('POST', `/apps/${APP}/workflows/search`, body)).length;
        }),
      );
    }
    row(what, ms(quantile(times, 0.5)), `${ms(quantile(times, 0.95)).padStart(8)}  ${found} rows`);
  }

  browser = await startBrowser();
  const tab = await openTab(browser, { url: server.url, key: server.adminKey });
  const { page } = tab;
  const open = (path, seen) =>
    timed(async () => {
      await page.goto(`/apps/${APP}${path}`);
      await seen().first().waitFor({ timeout: 120_000 });
    });
  const firstRow = () => page.getByRole('row', { name: /seed-|cart-/ });
  console.log('\nThe browser, from the address to the rows');
  await open('/workflows', firstRow);
  row('list', ms(await open('/workflows', firstRow)));
  for (const query of ['status=ERROR', 'name=workflow_7', 'user=user42', 'since=24h'])
    row(`list, ${query}`, ms(await open(`/workflows?${query}`, firstRow)));
  row('overview', ms(await open('', () => page.getByRole('img', { name: /workflows started/ }))));
  row('metrics, 7 d', ms(await open('/metrics?span=7d', () => page.getByRole('row', { name: /workflow_/ }))));
  row('versions', ms(await open('/versions', () => page.getByRole('row', { name: /^v1/ }))));
  const all = () => page.getByText(`${STEPS.toLocaleString('en')} steps`, { exact: true });
  row(`a workflow of ${STEPS} steps, all of them`, ms(await open('/workflows/long', all)));
  row(
    'a workflow of 50 MB output',
    ms(await open('/workflows/huge?tab=values', () => page.getByText(/The first .* of 47.7 MiB/))),
  );
  const longest = await page.evaluate(
    () =>
      new Promise((done) => {
        let last = performance.now();
        let worst = 0;
        const until = last + 5_000;
        const frame = (now) => {
          worst = Math.max(worst, now - last);
          last = now;
          if (now < until) requestAnimationFrame(frame);
          else done(worst);
        };
        requestAnimationFrame(frame);
      }),
  );
  row('  longest pause of the page in 5 s after', ms(longest));

  console.log('\nScrolling 20,000 rows down the list');
  await open('/workflows?status=SUCCESS', firstRow);
  const frames = await page.evaluate(async () => {
    const view = document.querySelector('[role=grid]');
    const gaps = [];
    let last = performance.now();
    const until = last + 15_000;
    while (last < until) {
      view.scrollTop += 340;
      const now = await new Promise(requestAnimationFrame);
      gaps.push(now - last);
      last = now;
    }
    return { gaps, rows: document.querySelectorAll('[role=row]').length, height: view.scrollHeight };
  });
  row('frame, p50', ms(quantile(frames.gaps, 0.5)));
  row('frame, p95', ms(quantile(frames.gaps, 0.95)), `${frames.rows} rows in the page, ${frames.height} px long`);

  console.log(`\nMemory of the tab, live for ${LIVE_SECONDS} s`);
  const session = await tab.context.newCDPSession(page);
  await session.send('Performance.enable');
  const heap = async () => {
    await session.send('HeapProfiler.collectGarbage');
    const { metrics } = await session.send('Performance.getMetrics');
    return metrics.find((each) => each.name === 'JSHeapUsedSize').value / 1_048_576;
  };
  await open('/workflows', firstRow);
  for (let at = 0; at <= LIVE_SECONDS; at += LIVE_SECONDS / 4) {
    row(`after ${Math.round(at)} s`, `${(await heap()).toFixed(1)} MiB`);
    if (at < LIVE_SECONDS) await new Promise((done) => setTimeout(done, (LIVE_SECONDS / 4) * 1_000));
  }
  if (tab.faults.length > 0) console.log(`\nFaults:\n${tab.faults.join('\n')}`);
} finally {
  await browser?.close();
  await server.stop();
  psql(admin, `DROP DATABASE ${name} WITH (FORCE)`);
}
