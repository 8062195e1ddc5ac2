// Whatever an application or another user writes is text in the console: no HTML, no control of what is around it, and no
// more room than other text.

import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { eventually, openTab, startBrowser, startServer } from './support.mjs';

const APP = 'shop';
let server;
let browser;
let executorKey;

before(async () => {
  server = await startServer();
  await server.call('PUT', `/apps/${APP}`, {});
  const { token } = await server.call('POST', '/tokens/executors', { permissions: ['websocket.connect'] });
  executorKey = token;
  server.startExecutor({ app: APP, key: token, id: 'one', version: 'v1', first: 6, rate: 0.01, stepMs: 50 });
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const path = (rest) => `/apps/${APP}${rest}`;

it('shows hostile content as text, everywhere', async () => {
  const hostile = '<img src=x onerror="window.owned=1">\u202Egnirts\u202C"\'><script>window.owned=1</script>';
  const megabyte = `${hostile}${'x'.repeat(1_000_000)}`;
  const [victim, other, failed] = await eventually('three checkouts are done', async () => {
    const done = await server.call('POST', `/apps/${APP}/workflows/search`, { status: ['SUCCESS'], limit: 3 });
    return done.length === 3 && done;
  });
  const of = (id, rest = '') => path(`/workflows/${encodeURIComponent(id)}${rest}`);
  const set = (table, column, value, id, more = '') =>
    server.sql(`UPDATE ${table} SET ${column} = ? WHERE workflow_uuid = ? ${more}`, value, id);
  set('workflow_status', 'name', hostile, victim.workflowId);
  set('workflow_status', 'authenticated_user', megabyte, victim.workflowId);
  set('workflow_status', 'queue_name', hostile, victim.workflowId);
  set('workflow_status', 'schedule_name', hostile, victim.workflowId);
  // On a queue that nobody declares, so that it stays there.
  set('workflow_status', 'queue_name', hostile, other.workflowId);
  set('workflow_status', 'status', 'ENQUEUED', other.workflowId);
  set('workflow_input', 'inputs', JSON.stringify([{ [hostile]: hostile, big: megabyte }]), victim.workflowId);
  set('workflow_output', 'output', megabyte, victim.workflowId);
  set('operation_outputs', 'function_name', hostile, victim.workflowId, 'AND function_id = 0');
  set('operation_outputs', 'output', megabyte, victim.workflowId, 'AND function_id = 0');
  set('workflow_status', 'status', 'ERROR', failed.workflowId);
  set('workflow_status', 'name', megabyte, failed.workflowId);
  server.sql(
    'INSERT OR REPLACE INTO workflow_output (workflow_uuid, error, retention_timestamp) VALUES (?, ?, 1)',
    failed.workflowId,
    megabyte,
  );
  server.sql(
    'INSERT INTO workflow_events (workflow_uuid, key, value) VALUES (?, ?, ?)',
    victim.workflowId,
    hostile,
    JSON.stringify(megabyte),
  );
  await server.call('PUT', `/apps/${APP}/views/${encodeURIComponent(hostile.slice(0, 60))}`, { query: 'status=ERROR' });
  await server.call('POST', `/apps/${APP}/alerting-rules`, {
    ruleType: 'WorkflowFailure',
    ruleMetadata: { workflow_name: hostile },
  });
  await server.call('POST', `/apps/${APP}/operations`, {
    kind: 'resume',
    workflowIds: [victim.workflowId, hostile],
    reason: hostile,
  });
  await server.call('POST', `/tokens/${encodeURIComponent(hostile.slice(0, 60))}`, { permissions: ['metric.read'] });

  // An executor that says hostile things of itself, and is told of in a recovery when it is gone.
  const loud = server.startExecutor({ app: APP, key: executorKey, id: hostile, version: 'v1', rate: 0.001, stepMs: 60_000 });
  await eventually('it is connected', async () =>
    (await server.call('GET', `/apps/${APP}/executors`)).some((each) => each.executorId === hostile),
  );
  loud.kill('SIGKILL');
  const own = await openTab(browser, { url: server.url, key: server.adminKey });
  await own.page.addInitScript(() =>
    localStorage.setItem('segno.columns', JSON.stringify({ user: true, schedule: true, queue: true })),
  );
  const text = () => own.page.getByText('<img src=x').first();
  const pages = {
    list: path(`/workflows?id=${victim.workflowId}`),
    'list, filtered by it': path(`/workflows?user=${encodeURIComponent(hostile)}`),
    timeline: of(victim.workflowId),
    step: of(victim.workflowId, '?step=0'),
    values: of(victim.workflowId, '?tab=values'),
    events: of(victim.workflowId, '?tab=exchange'),
    graph: of(victim.workflowId, '?tab=graph'),
    fields: of(victim.workflowId, '?tab=raw'),
    failed: of(failed.workflowId),
    error: of(failed.workflowId, '?tab=values'),
    compare: path(`/compare?left=${encodeURIComponent(victim.workflowId)}&right=${encodeURIComponent(other.workflowId)}`),
    operations: path('/operations'),
    alerts: path('/alerts'),
    metrics: path('/metrics?span=24h'),
    queues: path('/queues'),
    recovery: path('/recovery'),
    overview: path(''),
    executors: path('/executors'),
    keys: '/keys',
    audit: '/audit',
  };
  for (const [name, address] of Object.entries(pages)) {
    await own.page.goto(address);
    await text().waitFor().catch(() => assert.fail(`it is not shown on: ${name}`));
    assert.equal(await own.page.evaluate(() => window.owned), undefined, name);
    assert.equal(await own.page.locator('main img, main script').count(), 0, name);
    assert(await own.page.evaluate(() => document.documentElement.scrollWidth <= 1280), `${name} is too wide`);
  }
  // Text that turns the reading direction turns nothing but itself: each is isolated.
  await own.page.goto(of(victim.workflowId));
  await text().waitFor();
  const turned = await own.page.evaluate(() => {
    const found = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    const loose = [];
    for (let node = found.nextNode(); node; node = found.nextNode()) {
      if (!node.data.includes('\u202E')) continue;
      const isolated = ['isolate', 'isolate-override', 'plaintext'];
      let element = node.parentElement;
      while (element && !isolated.includes(getComputedStyle(element).unicodeBidi)) element = element.parentElement;
      if (!element) loose.push(node.data.slice(0, 60));
    }
    return loose;
  });
  assert.deepEqual(turned, []);
  // Numbers that no floating-point number holds are shown as they were written.
  set('workflow_output', 'output', '{"exact": 12345678901234567890123, "half": 9007199254740993}', other.workflowId);
  set('workflow_status', 'status', 'SUCCESS', other.workflowId);
  await own.page.goto(of(other.workflowId, '?tab=values'));
  await own.page.getByText('12345678901234567890123').waitFor();
  await own.page.getByText('9007199254740993').waitFor();
  await own.page.goto(path('/workflows'));
  await own.page.getByRole('button', { name: 'Views' }).click();
  await own.page.getByRole('menuitem', { name: '<img src=x' }).waitFor();
  assert.equal(await own.page.evaluate(() => window.owned), undefined);
  assert.deepEqual(own.faults, []);
  await own.close();
});
