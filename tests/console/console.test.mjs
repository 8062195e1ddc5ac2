// The console against a real server with real executors, as an operator uses it. The tests are one story: each goes on
// where the one before it ended.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it as test } from 'node:test';
import { accessibilityFaults, ARTIFACTS, eventually, examine, openTab, startBrowser, startServer } from './support.mjs';

const APP = 'shop';
const V1 = 'v1';
const OLD = 'v0';

let server;
let browser;
let tab;
let page;
let executorKey;
const executors = {};

before(async () => {
  // The receiver of the test's alerts is on this machine.
  server = await startServer({ SEGNO_ALERT_ALLOW_HTTP: 'true', SEGNO_ALERT_ALLOW_PRIVATE_NETWORKS: 'true' });
  browser = await startBrowser();
  tab = await openTab(browser, { url: server.url, expected: [401] });
  page = tab.page;
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** One part of the story. After a part failed, those that go on where it ended fail at once and say why. */
let broken = null;
function it(name, part) {
  test(name, async () => {
    if (broken) assert.fail(`not tried, for this failed before: ${broken}`);
    try {
      await part();
    } catch (error) {
      broken = name;
      await page?.screenshot({ path: join(ARTIFACTS, 'failure.png') }).catch(() => {});
      if (tab?.faults.length > 0) console.error(tab.faults.join('\n'));
      throw error;
    }
  });
}

const path = (rest) => `/apps/${APP}${rest}`;
const recoveries = (query = '') => server.call('GET', `/apps/${APP}/recoveries${query}`);
const search = (body) => server.call('POST', `/apps/${APP}/workflows/search`, body);
const start = (id, options = {}) => {
  executors[id] = server.startExecutor({ app: APP, key: executorKey, id, version: V1, ...options });
};
const healthy = (id) =>
  eventually(`${id} is healthy`, async () =>
    (await server.call('GET', `/apps/${APP}/executors`)).some((each) => each.executorId === id && each.status === 'HEALTHY'),
  );

describe('the console', () => {
  it('asks for a key, refuses a wrong one and says so', async () => {
    await page.goto(path('/workflows?status=ERROR'));
    await page.waitForURL('**/login?next=*');
    await page.getByLabel('API key').fill('dbos_wrong');
    await page.keyboard.press('Enter');
    await page.getByText('does not know this key').waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.getItem('segno.key')), null);
  });

  it('lets the right one in, to where one wanted to go, and keeps it in this tab only', async () => {
    await page.getByLabel('API key').fill(server.adminKey);
    await page.keyboard.press('Enter');
    await page.waitForURL('**/workflows?status=ERROR');
    assert.equal(await page.evaluate(() => JSON.stringify(localStorage) + document.cookie), '{}');
    await page.getByText('There is no such application').waitFor();
    // From here on no call may be refused.
    await tab.close();
    tab = await openTab(browser, { url: server.url, key: server.adminKey });
    page = tab.page;
  });

  it('leads from an empty fleet to a connected application', async () => {
    await page.goto('/');
    await page.getByRole('heading', { name: 'Connect your first application' }).waitFor();
    await page.getByLabel('Application name').fill('Not A Name');
    await page.getByText('Lower-case letters').waitFor();
    await page.getByLabel('Application name').fill(APP);
    await page.keyboard.press('Enter');
    await page.waitForURL(`**${path('/connect')}`);
    await page.getByText(`Waiting for the first executor of ${APP}`).waitFor();
    await page.getByRole('button', { name: 'Make a key' }).click();
    const key = page.locator('pre', { hasText: /^dbos_/ });
    await key.waitFor();
    executorKey = (await key.textContent()).trim();
    await page.getByRole('tab', { name: 'Rust' }).click();
    await page.getByRole('tabpanel').getByText(executorKey).waitFor();
    start('one', { first: 6 });
    await page.getByText('Connected').waitFor();
    start('two');
    await healthy('two');
    await page.getByRole('link', { name: 'See its workflows' }).click();
    await page.getByRole('row').nth(3).waitFor();
  });

  it('saves the grace, which the following tests make short', async () => {
    await page.goto(path('/settings'));
    await page.getByLabel('Grace, in seconds').fill('5');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByText('Settings saved').waitFor();
    assert.equal((await server.call('GET', `/apps/${APP}`)).executorTimeoutSecs, 5);
  });

  it('shows the fleet with versions, counts and outcomes', async () => {
    await page.goto('/');
    const row = page.getByRole('row', { name: new RegExp(APP) });
    await row.getByText('Healthy', { exact: true }).waitFor();
    await row.getByText(V1).waitFor();
    await row.getByRole('img', { name: /[1-9]\d* started in the last hour/ }).waitFor();
  });

  it('filters by keyboard, in the address, with chips that go one by one', async () => {
    await page.goto(path('/workflows'));
    await page.getByRole('row').nth(2).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('status:succ');
    await page.keyboard.press('Enter');
    await page.waitForURL('**/workflows?status=SUCCESS');
    await page.keyboard.type('since:1h');
    await page.keyboard.press('Enter');
    await page.waitForURL('**/workflows?status=SUCCESS&since=1h');
    await eventually('only successful ones are shown', async () => {
      const statuses = await page.getByRole('row').getByRole('gridcell').nth(1).allTextContents();
      return statuses.every((status) => status === 'Success');
    });
    const link = await openTab(browser, { url: server.url, key: server.adminKey });
    await link.page.goto(page.url());
    await link.page.getByRole('button', { name: 'Remove Status SUCCESS' }).waitFor();
    assert.deepEqual(link.faults, []);
    await link.close();
    await page.getByRole('button', { name: 'Remove Status SUCCESS' }).click();
    await page.waitForURL('**/workflows?since=1h');
    await page.getByRole('button', { name: 'Clear', exact: true }).click();
    await page.waitForURL('**/workflows');
  });

  it('filters by time, by a span or between two moments', async () => {
    await page.goto(path('/workflows'));
    await page.getByRole('button', { name: 'Any time' }).click();
    await page.getByRole('menuitem', { name: 'Last 6 hours' }).click();
    await page.waitForURL('**/workflows?since=6h');
    await page.getByRole('button', { name: 'Last 6 hours' }).click();
    await page.getByRole('menuitem', { name: 'Between…' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('From').fill('2020-01-01T00:00');
    await dialog.getByLabel('Until').fill('2019-01-01T00:00');
    await dialog.getByText('It must be later than the start.').waitFor();
    await dialog.getByLabel('Until').fill('2020-01-02T00:00');
    await dialog.getByRole('button', { name: 'Filter' }).click();
    await page.waitForURL('**/workflows?since=*&until=*');
    await page.getByText('No workflow matches').waitFor();
  });

  it('shows the columns one wants, and remembers them', async () => {
    await page.goto(path('/workflows'));
    const columns = () => page.getByRole('columnheader').allTextContents();
    await eventually('the usual columns are there', async () => (await columns()).includes('Executor'));
    await page.getByRole('button', { name: 'Columns' }).click();
    await page.getByRole('menuitemcheckbox', { name: 'Executor' }).click();
    await page.getByRole('menuitemcheckbox', { name: 'Priority' }).click();
    await page.keyboard.press('Escape');
    await page.reload();
    await eventually('they are the chosen ones', async () => {
      const shown = await columns();
      return !shown.includes('Executor') && shown.includes('Priority');
    });
    await page.evaluate(() => localStorage.removeItem('segno.columns'));
  });

  it('says when nothing matches', async () => {
    await page.goto(path('/workflows?name=nobody-has-this-name'));
    await page.getByText('No workflow matches').waitFor();
  });

  it('announces new workflows and moves no row that is read', async () => {
    await page.goto(path('/workflows'));
    await page.getByRole('row').nth(2).waitFor();
    await page.keyboard.press('j');
    await page.keyboard.press('j');
    const active = page.locator('[role=row][data-active]');
    const idOf = () => active.getByRole('gridcell').nth(3).textContent();
    const [id, top] = [await idOf(), (await active.boundingBox()).y];
    await page.getByRole('button', { name: /new workflow/ }).waitFor();
    assert.equal((await active.boundingBox()).y, top);
    assert.equal(await idOf(), id);
    await page.keyboard.press('n');
    await eventually('the row made room', async () => (await active.boundingBox()).y > top);
  });

  it('stands still while paused', async () => {
    await page.keyboard.press('Escape');
    await page.keyboard.press('p');
    await page.getByRole('button', { name: 'Paused' }).waitFor();
    const calls = [];
    const count = (request) => calls.push(request.url());
    page.on('request', count);
    await new Promise((done) => setTimeout(done, 3_000));
    page.off('request', count);
    assert.deepEqual(calls, []);
    await page.keyboard.press('p');
    await page.getByRole('button', { name: 'Live' }).waitFor();
  });

  it('shows a dead executor’s work being taken, live', async () => {
    await page.goto(path('/recovery'));
    executors.one.kill('SIGKILL');
    const row = page.getByRole('row', { name: /one/ });
    await row.getByText('In grace').waitFor();
    await row.getByText(/Recovered|Nothing pending/).waitFor({ timeout: 60_000 });
    await row.getByRole('button', { name: /Details/ }).click();
    await page.getByText('Grace', { exact: true }).waitFor();
  });

  it('tells the story of one workflow, and forks it from a step', async () => {
    const [done] = await search({ status: ['SUCCESS'], limit: 1, sortDesc: true });
    await page.goto(path(`/workflows/${encodeURIComponent(done.workflowId)}`));
    await page.getByText(/Succeeded in/).waitFor();
    const steps = page.getByRole('treegrid', { name: 'Steps' });
    await steps.getByRole('row').nth(2).waitFor();
    await steps.getByRole('row').nth(2).click();
    await page.waitForURL('**step=*');
    await page.getByRole('button', { name: 'Fork from this step…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Fork', exact: true }).click();
    await page.getByText('forked from').waitFor();
    assert.notEqual(page.url().split('?')[0].split('/').at(-1), done.workflowId);
    await page.getByText(/Succeeded in|Failed in/).waitFor({ timeout: 60_000 });
    await page.getByRole('link', { name: 'Compare', exact: true }).click();
    await page.getByText(/differ/).first().waitFor();
    await page.getByText('end', { exact: true }).waitFor();
  });

  it('cancels what runs, resumes it, and deletes it', async () => {
    start('slow', { rate: 1, stepMs: 4_000 });
    await healthy('slow');
    const running = await eventually('a workflow runs slowly', async () => {
      const found = await search({ status: ['PENDING'], executorId: ['slow'], limit: 1, sortDesc: true });
      return found[0];
    });
    await page.goto(path(`/workflows/${encodeURIComponent(running.workflowId)}`));
    // The server says so, and for a Rust executor even which step it is in.
    await page.getByText(/^(A step|It runs|Step)/i).first().waitFor();
    await page.keyboard.press('c');
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel the workflow' }).click();
    await page.getByText('Cancel requested').waitFor();
    await page.getByText(/^Cancelled /).waitFor();
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
    await page.getByText(/^(Running|Waiting|Succeeded)/).waitFor();
    await page.getByText(/^(Succeeded|Failed)/).waitFor({ timeout: 90_000 });
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Delete…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.waitForURL('**/workflows');
    assert.deepEqual(await search({ workflowIds: [running.workflowId] }), []);
  });

  it('cancels a selection, after showing what it is', async () => {
    await page.goto(path('/workflows?status=PENDING'));
    await page.getByRole('checkbox', { name: /^Select/ }).nth(1).waitFor();
    await page.keyboard.press('j');
    await page.keyboard.press('x');
    await page.keyboard.press('j');
    await page.keyboard.press('x');
    await page.getByRole('toolbar').getByText('2 selected').waitFor();
    await page.getByRole('toolbar').getByRole('button', { name: 'Cancel' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('heading', { name: /^Cancel [12] workflows?$/ }).waitFor();
    await dialog.getByLabel('Reason').fill('a drill');
    await dialog.getByRole('button', { name: 'Cancel them' }).click();
    await dialog.getByRole('heading', { name: /^[12] of [12] cancelled/ }).waitFor();
    await dialog.getByRole('link', { name: 'Open in Operations' }).click();
    await page.waitForURL('**/operations?id=*');
    await page.getByRole('dialog').getByText('a drill').waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await page.getByRole('row', { name: /Cancel.*by selection/ }).getByText('Done').waitFor();
  });

  it('acts on all that match a filter, after a preview with a count', async () => {
    await page.goto(path('/workflows?status=CANCELLED'));
    await page.getByRole('checkbox', { name: /^Select/ }).first().waitFor();
    const meant = (await search({ status: ['CANCELLED'] })).length;
    assert(meant > 0);
    await page.getByRole('button', { name: 'Act on all that match' }).click();
    await page.getByRole('menuitem', { name: 'Fork…' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('heading', { name: new RegExp(`^Fork ${meant} workflows?$`) }).waitFor();
    assert.equal(await dialog.getByRole('list', { name: 'Some of the workflows' }).getByRole('listitem').count(), meant);
    await dialog.getByRole('button', { name: 'Fork them' }).click();
    await dialog.getByRole('heading', { name: `${meant} of ${meant} forked` }).waitFor();
    await dialog.getByRole('button', { name: 'Close' }).click();
    await eventually('the forks are there', async () => (await search({ wasForkedFrom: true })).length >= meant);
  });

  it('keeps views on the server, for everybody', async () => {
    await page.goto(path('/workflows?status=ERROR&since=24h'));
    await page.getByRole('button', { name: 'Views' }).click();
    await page.getByRole('menuitem', { name: 'Save this view…' }).click();
    await page.getByRole('dialog').getByLabel('Name').fill('Broken today');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByText('View saved').waitFor();
    const other = await openTab(browser, { url: server.url, key: server.adminKey });
    await other.page.goto(path('/workflows'));
    await other.page.getByRole('button', { name: 'Views' }).click();
    await other.page.getByRole('menuitem', { name: 'Broken today' }).click();
    await other.page.waitForURL('**/workflows?status=ERROR&since=24h');
    await other.page.getByRole('button', { name: 'Broken today' }).click();
    await other.page.getByRole('menuitem', { name: 'Manage views…' }).click();
    await other.page.getByRole('button', { name: 'Delete Broken today' }).click();
    await other.page.getByText('View deleted').waitFor();
    assert.deepEqual(await server.call('GET', `/apps/${APP}/views`), []);
    assert.deepEqual(other.faults, []);
    await other.close();
  });

  it('puts stranded work first, and assigns it to another version', async () => {
    start('older', { version: OLD, first: 4, rate: 0.01, stepMs: 60_000 });
    await healthy('older');
    await eventually('it has begun', async () => (await search({ appVersion: [OLD], status: ['PENDING'] })).length > 0);
    executors.older.kill('SIGKILL');
    await page.goto(path('/recovery'));
    const card = page.getByRole('article', { name: 'Stranded: older' });
    await card.getByText(`No connected executor runs version ${OLD}`).waitFor({ timeout: 60_000 });
    await page.getByRole('link', { name: /^Recovery/ }).getByText('1').waitFor();
    await card.getByRole('button', { name: 'Assign to a version…' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText(/workflows? it is about/).waitFor();
    await dialog.getByRole('button', { name: 'Assign' }).click();
    await page.getByText('Assigned', { exact: true }).waitFor();
    await card.waitFor({ state: 'detached', timeout: 60_000 });
    await eventually('it was taken', async () =>
      (await recoveries('?executorId=older')).some((each) => each.status === 'RECOVERED'),
    );
  });

  it('gives work up when told to, with a reason', async () => {
    const pending = (id) => search({ executorId: [id], status: ['PENDING'] });
    for (const id of ['older-2', 'older-3']) {
      start(id, { version: OLD, first: 2, rate: 0.01, stepMs: 60_000 });
      await healthy(id);
      await eventually('it has begun', async () => (await pending(id)).length === 3);
    }
    for (const id of ['older-2', 'older-3']) executors[id].kill('SIGKILL');
    await page.goto(path('/recovery'));
    const card = page.getByRole('article', { name: 'Stranded: older-2' });
    await card.getByRole('button', { name: 'Abandon…' }).click({ timeout: 60_000 });
    const verb = page.getByRole('dialog').getByRole('button', { name: 'Abandon' });
    assert(await verb.isDisabled());
    await page.getByRole('dialog').getByLabel('Reason').fill('an experiment');
    await verb.click();
    await page.getByText('Abandoned', { exact: true }).first().waitFor();
    await card.waitFor({ state: 'detached' });
    assert.equal((await recoveries('?executorId=older-2'))[0].status, 'ABANDONED');
    const other = page.getByRole('article', { name: 'Stranded: older-3' });
    await other.getByRole('button', { name: 'Cancel them…' }).click();
    await page.getByRole('dialog').getByRole('heading', { name: 'Cancel 3 workflows' }).waitFor();
    await page.screenshot({ path: join(ARTIFACTS, 'stranded-cancel-light.png') });
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel them' }).click();
    await page.getByRole('dialog').getByRole('heading', { name: '3 of 3 cancelled' }).waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await other.waitFor({ state: 'detached', timeout: 60_000 });
    assert.deepEqual(await pending('older-3'), []);
  });

  it('shows what each version holds', async () => {
    await page.goto(path('/versions'));
    await page.getByRole('row', { name: new RegExp(`^${V1}`) }).waitFor();
    const old = page.getByRole('row', { name: new RegExp(`^${OLD}`) });
    const current = page.getByRole('row', { name: new RegExp(`^${V1}`) });
    await old.getByText('latest', { exact: true }).waitFor();
    await current.getByRole('button', { name: 'Make latest' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Make it the latest' }).click();
    await page.getByText('Latest version set').waitFor();
    await current.getByText('latest', { exact: true }).waitFor();
  });

  it('makes and deletes alerting rules', async () => {
    await page.goto(path('/alerts'));
    await page.getByRole('button', { name: 'New rule' }).first().click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Failures, at least').fill('0');
    await dialog.getByText('A whole number, at least 1.').waitFor();
    assert(await dialog.getByRole('button', { name: 'Make the rule' }).isDisabled());
    await dialog.getByLabel('Failures, at least').fill('3');
    await dialog.getByLabel('Workflow', { exact: true }).fill('checkout');
    await dialog.getByRole('button', { name: 'Make the rule' }).click();
    const row = page.getByRole('row', { name: /3 failures of workflow checkout within 1 m 00 s/ });
    await row.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByText('Rule deleted').waitFor();
    assert.deepEqual(await server.call('GET', `/apps/${APP}/alerting-rules`), []);
  });

  it('makes alert channels, tests them and shows what was sent', async () => {
    const told = [];
    const receiver = createServer((request, response) => {
      request.on('data', (data) => told.push(String(data)));
      request.on('end', () => response.writeHead(told.length > 1 ? 500 : 204).end());
    });
    await new Promise((done) => receiver.listen(0, '127.0.0.1', done));
    await page.goto('/channels');
    await page.getByRole('button', { name: 'New channel' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('combobox', { name: 'Kind' }).click();
    await page.getByRole('option', { name: 'Own JSON' }).click();
    await dialog.getByLabel('Name').fill('ops');
    await dialog.getByLabel('Address').fill(`http://127.0.0.1:${receiver.address().port}/hook`);
    await dialog.getByLabel('Body').fill('{"said": {{ message }}}');
    await dialog.getByRole('button', { name: 'Make the channel' }).click();
    await server.call('POST', `/apps/${APP}/alerting-rules`, { ruleType: 'StrandedRecovery', ruleMetadata: {} });
    await page.goto(path('/alerts'));
    await page.getByRole('row', { name: /strand/i }).getByRole('button', { name: 'Choose…' }).click();
    await page.getByRole('dialog').getByText('ops', { exact: true }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByText('Channels saved').waitFor();
    const [rule] = await server.call('GET', `/apps/${APP}/alerting-rules`);
    assert.deepEqual(rule.channels, ['ops']);
    await page.goto('/channels');
    const row = page.getByRole('row', { name: /^ops/ });
    await row.getByRole('button', { name: 'Send a test' }).click();
    await page.getByText('ops took the test').waitFor();
    assert.match(told.join(''), /"said":/);
    await row.getByRole('button', { name: 'Send a test' }).click();
    await page.getByText('ops did not take the test').waitFor();
    await row.getByRole('button', { name: 'History' }).click();
    await page.getByRole('dialog').getByText('Not delivered').waitFor();
    await page.getByRole('dialog').getByText('Delivered', { exact: true }).waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await row.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByText('Channel deleted').waitFor();
    receiver.close();
  });

  it('charts workflows and steps', async () => {
    await page.goto(path('/metrics'));
    await page.getByRole('row', { name: /^checkout/ }).waitFor();
    await page.getByRole('img', { name: /^Workflows started: [1-9]/ }).waitFor();
    await page.getByRole('button', { name: 'By step' }).click();
    await page.waitForURL('**/metrics?by=step');
    await page.getByRole('button', { name: 'charge_card' }).or(page.getByRole('table').getByRole('button').first()).first().click();
    await page.waitForURL('**/metrics?by=step&name=*');
    await page.getByRole('img', { name: /^Longest step: [1-9]/ }).waitFor();
  });

  it('describes the installation', async () => {
    await page.goto('/system');
    await page.getByRole('row', { name: /Serving/ }).waitFor();
    await page.getByRole('row', { name: /^rust/ }).getByText(APP).waitFor();
  });

  it('sets limits in the words people use', async () => {
    await page.goto(path('/settings'));
    await page.getByLabel('Delete completed workflows that are older than').fill('soon');
    await page.getByText('A length of time such as').waitFor();
    await page.getByLabel('Delete completed workflows that are older than').fill('30d');
    await page.getByRole('button', { name: 'Save the limits' }).click();
    await page.getByText('Limits saved').waitFor();
    assert.equal((await server.call('GET', `/apps/${APP}`)).gcTimeThresholdMs, 30 * 86_400_000);
    await page.getByLabel('Delete completed workflows that are older than').fill('');
    await page.getByRole('button', { name: 'Save the limits' }).click();
    await eventually('it is cleared', async () => (await server.call('GET', `/apps/${APP}`)).gcTimeThresholdMs === null);
  });

  it('decides who may take the work of the dead, and whether values are seen', async () => {
    await page.goto(path('/settings'));
    await page.getByRole('combobox', { name: 'Recovery policy' }).click();
    await page.getByRole('option', { name: /latest version/ }).click();
    await page.getByText('A workflow whose steps changed between the versions fails').waitFor();
    await page.getByText('Metadata only.').click();
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByText('Settings saved').first().waitFor();
    const saved = await server.call('GET', `/apps/${APP}`);
    assert.deepEqual([saved.recoveryPolicy, saved.privateMode], ['latest', true]);
    await server.call('PATCH', `/apps/${APP}`, { recoveryPolicy: 'same-version', privateMode: false });
  });

  it('registers an application and deletes it, when its name is typed', async () => {
    await server.call('PUT', '/apps/mistake', {});
    await page.goto('/apps/mistake/settings');
    await page.getByRole('button', { name: 'Delete the application…' }).click();
    const verb = page.getByRole('dialog').getByRole('button', { name: 'Delete' });
    assert(await verb.isDisabled());
    await page.getByRole('dialog').getByLabel('Type mistake to confirm').fill('mistake');
    await verb.click();
    await page.getByText('mistake was deleted').waitFor();
    assert.deepEqual((await server.call('GET', '/apps')).map((each) => each.name), [APP]);
  });

  it('tells who did what', async () => {
    await page.goto('/audit');
    await page.getByLabel('Operation', { exact: true }).fill('application.delete');
    const row = page.getByRole('row', { name: /application\.delete.*SEGNO_ADMIN_KEY/ });
    await row.getByRole('button', { name: 'Details' }).click();
    await page.getByRole('dialog').getByText('application mistake').waitFor();
    await page.keyboard.press('Escape');
    await page.getByLabel('Operation', { exact: true }).fill('nobody.does_this');
    await page.getByText('Nobody did that').waitFor();
  });

  it('offers nothing that a key may not do', async () => {
    const { token } = await server.call('POST', '/tokens/looker', { permissions: ['application.read'] });
    const own = await openTab(browser, { url: server.url, key: token });
    await own.page.goto(path('/workflows?status=SUCCESS'));
    await own.page.getByRole('checkbox', { name: /^Select/ }).first().click();
    assert.equal(await own.page.getByRole('button', { name: /Act on all|Import/ }).count(), 0);
    assert.equal(await own.page.getByRole('toolbar').count(), 0);
    assert.equal(await own.page.getByRole('link', { name: /API keys|Audit/ }).count(), 0);
    await own.page.goto(path('/settings'));
    await own.page.getByText('You may see these settings').waitFor();
    assert(await own.page.getByLabel('Grace, in seconds').isDisabled());
    await own.page.goto(path('/executors'));
    await own.page.getByRole('row').nth(1).waitFor();
    assert.equal(await own.page.getByRole('button', { name: 'Evict' }).count(), 0);
    assert.deepEqual(own.faults, []);
    await own.close();
  });

  it('makes, renames and revokes keys', async () => {
    await page.goto('/keys');
    await page.getByRole('button', { name: 'New key' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name').fill('reader');
    await dialog.getByText('see applications, executors').click();
    await dialog.getByRole('button', { name: 'Make the key' }).click();
    const secret = (await page.getByRole('dialog').locator('pre').textContent()).trim();
    assert.match(secret, /^dbos_/);
    await page.getByRole('button', { name: 'I have copied it' }).click();
    const row = page.getByRole('row', { name: /^reader/ });
    await row.getByText('application.read').waitFor();
    await row.getByRole('button', { name: 'Rename' }).click();
    await page.getByRole('dialog').getByLabel('New name').fill('auditor');
    await page.getByRole('dialog').getByRole('button', { name: 'Rename' }).click();
    const renamed = page.getByRole('row', { name: /^auditor/ });
    await renamed.getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    // What lies under a dialog is hidden from roles, so first the word that it is done.
    await page.getByText('Key revoked').waitFor();
    await renamed.waitFor({ state: 'detached' });
    const answer = await fetch(`${server.url}/v2/orgs/local/apps`, { headers: { Authorization: `Bearer ${secret}` } });
    assert.equal(answer.status, 401);
  });

  it('jumps with the palette and lists its keys', async () => {
    await page.goto('/');
    await page.getByRole('row', { name: new RegExp(APP) }).waitFor();
    await page.keyboard.press('Control+k');
    await page.getByLabel(/Page, application/).fill(APP);
    await page.keyboard.press('Enter');
    await page.waitForURL(`**${path('')}`);
    await page.getByRole('heading', { level: 1, name: APP }).waitFor();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.keyboard.press('g');
    await page.keyboard.press('e');
    await page.waitForURL(`**${path('/executors')}`);
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
    await page.keyboard.press('Escape');
  });

  it('follows the system’s theme until one is chosen, and moves nothing for those who ask for rest', async () => {
    const own = await openTab(browser, { url: server.url, key: server.adminKey, theme: 'dark' });
    await own.page.emulateMedia({ reducedMotion: 'reduce', colorScheme: 'dark' });
    await own.page.goto(path('/recovery'));
    await own.page.getByRole('heading', { level: 1, name: 'Recovery' }).waitFor();
    const ground = () => own.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const dark = await ground();
    await own.page.getByRole('button', { name: 'Theme: system' }).click();
    await own.page.getByRole('button', { name: 'Theme: light' }).waitFor();
    assert.notEqual(await ground(), dark);
    const moving = () => own.page.evaluate(() => document.getAnimations().filter((each) => each.playState === 'running').length);
    await eventually('nothing moves', async () => (await moving()) === 0);
    await own.page.emulateMedia({ reducedMotion: 'no-preference' });
    await eventually('the live dot does', async () => (await moving()) > 0);
    await own.close();
  });

  it('raised no error in any of this', () => {
    assert.deepEqual(tab.faults, []);
  });

  for (const theme of ['light', 'dark']) {
    it(`is accessible on every page, ${theme}`, async () => {
      const [shown] = await search({ status: ['SUCCESS'], limit: 1, sortDesc: true });
      const id = encodeURIComponent(shown.workflowId);
      const pages = {
        fleet: ['/', 'Fleet'],
        register: ['/new', 'Register an application'],
        overview: [path(''), APP],
        workflows: [path('/workflows'), 'Workflows'],
        filtered: [path('/workflows?status=SUCCESS&since=24h'), 'Workflows'],
        'no-match': [path('/workflows?name=nothing'), 'Workflows'],
        workflow: [path(`/workflows/${id}?step=1`), /checkout/],
        values: [path(`/workflows/${id}?tab=values`), /checkout/],
        exchange: [path(`/workflows/${id}?tab=exchange`), /checkout/],
        lineage: [path(`/workflows/${id}?tab=graph`), /checkout/],
        fields: [path(`/workflows/${id}?tab=raw`), /checkout/],
        recovery: [path('/recovery'), 'Recovery'],
        executors: [path('/executors'), 'Executors'],
        versions: [path('/versions'), 'Versions'],
        queues: [path('/queues'), 'Queues'],
        schedules: [path('/schedules'), 'Schedules'],
        operations: [path('/operations'), 'Operations'],
        metrics: [path('/metrics'), 'Metrics'],
        'metrics-steps': [path('/metrics?by=step&span=6h'), 'Metrics'],
        alerts: [path('/alerts'), 'Alerts'],
        system: ['/system', 'System'],
        channels: ['/channels', 'Alert channels'],
        audit: ['/audit', 'Audit'],
        connect: [path('/connect'), 'Connect an executor'],
        settings: [path('/settings'), 'Settings'],
        keys: ['/keys', 'API keys'],
      };
      await examine(browser, server, theme, pages);
    });
  }

  it('fits a phone where it is asked whether something burns', async () => {
    const own = await openTab(browser, { url: server.url, key: server.adminKey, theme: 'dark' });
    await own.page.setViewportSize({ width: 390, height: 800 });
    const [failed] = await search({ status: ['ERROR', 'SUCCESS'], limit: 1 });
    for (const [name, address] of [
      ['fleet', '/'],
      ['overview', path('')],
      ['recovery', path('/recovery')],
      ['workflow', path(`/workflows/${encodeURIComponent(failed.workflowId)}`)],
    ]) {
      await own.page.goto(address);
      await own.page.getByRole('heading', { level: 1 }).waitFor();
      await own.page.getByRole('status', { name: 'Loading' }).first().waitFor({ state: 'detached' });
      assert.deepEqual(await accessibilityFaults(own.page), [], name);
      assert.equal(await own.page.evaluate(() => document.documentElement.scrollWidth), 390, name);
      await own.page.screenshot({ path: join(ARTIFACTS, `${name}-phone.png`) });
    }
    await own.page.getByRole('button', { name: 'Navigation' }).click();
    await own.page.getByRole('dialog', { name: 'Navigation' }).getByRole('link', { name: 'Executors' }).click();
    await own.page.waitForURL(`**${path('/executors')}`);
    await own.close();
  });

  it('loads the fleet with less than 300 kB', async () => {
    const own = await openTab(browser, { url: server.url, key: server.adminKey });
    const session = await own.context.newCDPSession(own.page);
    await session.send('Network.enable');
    let bytes = 0;
    session.on('Network.loadingFinished', (event) => {
      bytes += event.encodedDataLength;
    });
    await own.page.goto('/');
    await own.page.getByRole('row', { name: new RegExp(APP) }).waitFor();
    console.log(`first load of the fleet: ${Math.round(bytes / 1_000)} kB`);
    assert(bytes < 300_000, `${bytes} bytes`);
    await own.close();
  });

  it('tells a missing executor, a missing server and an empty list apart', async () => {
    for (const executor of server.executors) executor.kill('SIGKILL');
    await eventually('the server has noticed', async () => {
      const known = await server.call('GET', `/apps/${APP}/executors`);
      return known.every((each) => each.status !== 'HEALTHY');
    });
    const own = await openTab(browser, { url: server.url, key: server.adminKey, expected: [503] });
    await own.page.goto(path('/workflows'));
    await own.page.getByText('No executor is connected').waitFor();
    await own.page.screenshot({ path: join(ARTIFACTS, 'not-connected-light.png') });
    // Bulk work waits for somebody to do it, and may be called off.
    await server.call('POST', `/apps/${APP}/operations`, { kind: 'cancel', filter: { workflowName: ['checkout'] } });
    await own.page.goto(path('/operations'));
    await own.page.getByRole('row', { name: /Waiting for an executor/i }).getByRole('button', { name: 'Details' }).click();
    await own.page.getByRole('dialog').getByRole('button', { name: 'Abort' }).click();
    await own.page.getByRole('dialog').getByText('Aborted').first().waitFor();
    await own.page.goto(path('/workflows'));
    await own.page.getByText('No executor is connected').waitFor();
    start('again');
    await own.page.getByRole('row').nth(2).waitFor({ timeout: 60_000 });
    await own.page.context().setOffline(true);
    await own.page.getByText('The server does not answer: this is what it said last').waitFor({ timeout: 60_000 });
    await own.page.getByRole('button', { name: 'Reconnecting' }).waitFor({ timeout: 60_000 });
    await own.page.context().setOffline(false);
    await own.page.getByRole('button', { name: 'Live' }).waitFor({ timeout: 60_000 });
    await own.close();
  });
});
