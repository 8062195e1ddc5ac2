// The story of an operator, in one go and without a reload where something is watched: register, connect, run, kill -9,
// see the recovery appear, open the workflow, fork it from a step, compare, cancel by filter after a preview. Once with
// executors in Rust and once in Python; then what the example in Rust has not: children, values told to the outside,
// rewinding, queues and schedules.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { pythonDatabase, startPython } from './python.mjs';
import { eventually, examine, openTab, startBrowser, startServer } from './support.mjs';

const VERSION = 'v1';
let server;
let browser;

before(async () => {
  server = await startServer();
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Checkouts in Rust, on SQLite: each executor brings its own customers, `first` and one more. */
function rust() {
  const app = 'checkout';
  let count = 0;
  return {
    app,
    language: 'Rust',
    step: /charge card/,
    // The gateway makes up another charge.
    compared: /[1-9] steps? of \d+ differ/,
    connect(key, work = { first: 2, stepMs: 1_500 }) {
      count += 1;
      const id = `rust-${count}`;
      // No card is declined: what is recovered succeeds.
      const rest = { version: VERSION, rate: 0.001, declined: 0 };
      const executor = server.startExecutor({ app, key, id, ...rest, ...work });
      return { id, kill: () => executor.kill('SIGKILL') };
    },
    run: () => {},
    letEnd: () => {},
    async keepBusy(key) {
      const { id } = this.connect(key, { first: 4, stepMs: 120_000 });
      return `executor:${id}`;
    },
    close: () => {},
  };
}

/** Journeys in Python, on PostgreSQL, at the pace that the test sets. */
function python() {
  const app = 'travel';
  const database = pythonDatabase();
  const executors = [];
  return {
    app,
    database,
    executors,
    language: 'Python',
    step: /leg/,
    compared: /No recorded step differs/,
    async connect(key) {
      const executor = await startPython(server, database, { app, key, version: VERSION });
      executors.push(executor);
      return executor;
    },
    async run(executor) {
      for (const id of ['trip-1', 'trip-2']) {
        database.letPass(id, 1);
        await executor.order({ do: 'start', workflow: 'journey', id, input: 4 });
      }
    },
    letEnd: (id) => database.letPass(id),
    async keepBusy() {
      for (let number = 1; number <= 5; number += 1)
        await executors.at(-1).order({ do: 'start', workflow: 'journey', id: `tour-${number}`, input: 3, user: 'ann' });
      return 'user:ann';
    },
    close: () => database.drop(),
  };
}

/** From nothing to a connected executor, and another one beside it. */
async function connectBoth(page, kit) {
  await page.goto('/new');
  await page.getByLabel('Application name').fill(kit.app);
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/apps/${kit.app}/connect`);
  await page.getByRole('button', { name: 'Make a key' }).click();
  const key = (await page.locator('pre', { hasText: /^dbos_/ }).textContent()).trim();
  await page.getByRole('tab', { name: kit.language }).click();
  await page.getByRole('tabpanel').getByText(key).waitFor();
  // For this test, so that nobody waits for long.
  await server.call('PATCH', `/apps/${kit.app}`, { executorTimeoutSecs: 2 });
  const one = await kit.connect(key);
  await page.getByText('Connected', { exact: true }).waitFor();
  await page.getByText(one.id).waitFor();
  const two = await kit.connect(key);
  await page.getByText('2 executors connected').waitFor();
  return { key, one, two };
}

/** The application's pages, as one clicks from one to the other. */
const go = (page, name) => page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name }).click();

/** Kills the executor and watches its work being taken; returns a workflow of it. */
async function watchRecovery(page, kit, { one, two }) {
  const of = (filter) => server.call('POST', `/apps/${kit.app}/workflows/search`, filter);
  const [lost] = await eventually('it works on something and has a checkpoint', async () => {
    const pending = await of({ status: ['PENDING'], executorId: [one.id] });
    const begun = [];
    for (const each of pending) {
      const steps = await server.call('GET', `/apps/${kit.app}/workflows/${each.workflowId}/steps`);
      if (steps.length > 0) begun.push(each);
    }
    return begun.length > 0 && begun;
  });
  await go(page, /^Recovery/);
  await page.getByText('No executor was lost').waitFor();
  one.kill();
  const row = page.getByRole('row', { name: new RegExp(one.id) });
  await row.getByText('In grace').waitFor();
  await row.getByText('Recovered', { exact: true }).waitFor({ timeout: 60_000 });
  await row.getByText(two.id).waitFor();
  await row.getByRole('button', { name: /Details/ }).click();
  await page.getByRole('list', { name: 'Offers of its work' }).getByText(two.id).first().waitFor();
  return lost.workflowId;
}

/** Opens the workflow from the list and reads that another executor ended it. */
async function openRecovered(page, kit, id, { two }) {
  await go(page, 'Workflows');
  await page.keyboard.press('/');
  await page.keyboard.type(`id:${id}`);
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/workflows?id=${id}`);
  kit.letEnd(id);
  await page.getByRole('row', { name: id }).getByRole('link').first().click();
  await page.getByText(/^Succeeded in/).waitFor({ timeout: 60_000 });
  await page.getByRole('main').getByText(two.id).first().waitFor();
}

async function forkAndCompare(page, kit, id) {
  const steps = page.getByRole('treegrid', { name: 'Steps' });
  await steps.getByRole('row', { name: kit.step }).last().click();
  await page.getByRole('button', { name: 'Fork from this step…' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText(/earlier results? taken over/).waitFor();
  await dialog.getByLabel('Id of the new workflow').fill(`${id}-again`);
  kit.letEnd(`${id}-again`);
  await dialog.getByRole('button', { name: 'Fork', exact: true }).click();
  await page.waitForURL(`**/workflows/${id}-again`);
  await page.getByText('forked from').waitFor();
  await page.getByText(/^Succeeded in/).waitFor({ timeout: 60_000 });
  await page.getByRole('link', { name: 'Compare', exact: true }).click();
  await page.getByText(kit.compared).waitFor();
  await page.getByText('end', { exact: true }).waitFor();
}

/** Cancels what a filter finds: five workflows, after a look at them. */
async function cancelByFilter(page, kit, key) {
  const filter = await kit.keepBusy(key);
  await go(page, 'Workflows');
  await page.keyboard.press('/');
  await page.keyboard.type(filter);
  await page.keyboard.press('Enter');
  await page.waitForURL('**/workflows?*');
  await page.keyboard.type('status:pending');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/workflows?*status=PENDING*');
  await page.getByRole('checkbox', { name: /^Select/ }).nth(4).waitFor();
  await page.getByRole('button', { name: 'Act on all that match' }).click();
  await page.getByRole('menuitem', { name: 'Cancel…' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('heading', { name: 'Cancel 5 workflows' }).waitFor();
  const sample = dialog.getByRole('list', { name: 'Some of the workflows' });
  assert.equal(await sample.getByRole('listitem').count(), 5);
  await dialog.getByLabel('Reason').fill('nobody waits for them');
  await dialog.getByRole('button', { name: 'Cancel them' }).click();
  await dialog.getByRole('heading', { name: '5 of 5 cancelled' }).waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await page.getByRole('button', { name: 'Remove Status PENDING' }).click();
  await eventually('all five are shown as cancelled', async () => {
    const shown = page.getByRole('row').filter({ has: page.getByText('Cancelled', { exact: true }) });
    return (await shown.count()) === 5;
  });
}

for (const make of [rust, python]) {
  describe(`an operator of an application in ${make.name}`, () => {
    let kit;
    let key;
    after(() => kit?.close());

    it('goes from nothing to a recovered, forked, compared and cancelled workflow', async () => {
      kit = make();
      const tab = await openTab(browser, { url: server.url, key: server.adminKey });
      const { page } = tab;
      const fleet = await connectBoth(page, kit);
      key = fleet.key;
      await page.getByRole('link', { name: 'See its workflows' }).click();
      await kit.run(fleet.one);
      await page.getByRole('row', { name: /Pending/ }).first().waitFor();
      const id = await watchRecovery(page, kit, fleet);
      await openRecovered(page, kit, id, fleet);
      await forkAndCompare(page, kit, id);
      await cancelByFilter(page, kit, key);
      await go(page, 'Fleet');
      await page.getByRole('row', { name: new RegExp(kit.app) }).getByText('Healthy', { exact: true }).waitFor();
      assert.deepEqual(tab.faults, []);
      await tab.close();
    });

    if (make === python) describe('whose workflows do more', () => moreOfPython(() => kit, () => key));
  });
}

function moreOfPython(kitOf, keyOf) {
  let tab;
  let page;
  let kit;
  const path = (rest) => `/apps/${kit.app}${rest}`;
  const search = (body) => server.call('POST', path('/workflows/search'), body);
  const order = (message) => kit.executors.at(-1).order(message);
  const ended = (id) =>
    eventually(`${id} has ended`, async () => (await search({ workflowIds: [id], status: ['SUCCESS'] })).length > 0);

  before(async () => {
    kit = kitOf();
    await kit.connect(keyOf());
    tab = await openTab(browser, { url: server.url, key: server.adminKey });
    page = tab.page;
  });
  after(() => tab?.close());

  it('sees what an executor says of itself', async () => {
    await page.goto(path('/executors'));
    const { id } = kit.executors.at(-1);
    const row = page.getByRole('row', { name: new RegExp(id) });
    await row.getByText('python 3.2.0').waitFor();
    await row.getByRole('button', { name: 'Details' }).click();
    await page.getByRole('dialog').getByText('"zone": "north"').waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
  });

  it('opens a child in place, and sees it in the graph', async () => {
    await order({ do: 'start', workflow: 'parent', id: 'family', input: 2 });
    const child = await eventually('the child is there', async () => (await search({ parentWorkflowId: ['family'] }))[0]);
    kit.letEnd(child.workflowId);
    await ended('family');
    await page.goto(path('/workflows/family'));
    const steps = page.getByRole('treegrid', { name: 'Steps' });
    await steps.getByRole('button', { name: 'Steps of this child' }).click();
    await steps.getByRole('row', { name: /leg/ }).nth(1).waitFor();
    await page.getByRole('tab', { name: 'Children and forks' }).click();
    await page.getByRole('link', { name: new RegExp(child.workflowId) }).click();
    await page.waitForURL(`**/workflows/${child.workflowId}`);
    await page.getByText('child of').waitFor();
  });

  it('reads where a workflow waits, and what it tells and is told', async () => {
    await order({ do: 'start', workflow: 'talk', id: 'chat', input: 'Ann' });
    await page.goto(path('/workflows/chat?tab=exchange'));
    await page.getByText('curious').or(page.getByText('glad')).first().waitFor();
    await page.getByText('second').first().waitFor();
    await order({ do: 'send', to: 'chat', topic: 'mailbox', message: 'hello' });
    await page.getByText(/^Succeeded in/).waitFor();
    await page.getByText('heard', { exact: true }).waitFor();
    await page.getByText('Received', { exact: true }).waitFor();
  });

  it('shows a failed step with its error, and begins a fork at it', async () => {
    await order({ do: 'start', workflow: 'passage', id: 'through', input: 'east' });
    await page.goto(path('/workflows/through'));
    await page.getByText(/^Failed/).waitFor();
    const steps = page.getByRole('treegrid', { name: 'Steps' });
    await steps.getByRole('row', { name: /gate.*failed/ }).click();
    await page.getByRole('complementary', { name: 'Step' }).getByText('gate east is closed').waitFor();
    kit.database.sql("INSERT INTO app.gates VALUES ('east')");
    await page.keyboard.press('f');
    await page.getByRole('dialog').getByRole('button', { name: 'Fork', exact: true }).click();
    await page.getByText('forked from').waitFor();
    await page.getByText(/^Succeeded in/).waitFor({ timeout: 60_000 });
    await page.getByRole('link', { name: 'Compare', exact: true }).click();
    await page.getByText(/2 steps of 3 differ/).waitFor();
  });

  it('rewinds a workflow, under its id', async () => {
    await page.goto(path('/workflows/family'));
    const attempts = () => Number(kit.database.sql('SELECT count(*) FROM app.effects WHERE step = 4'));
    await page.goto(path('/workflows/trip-2'));
    kit.letEnd('trip-2');
    await page.getByText(/^Succeeded in/).waitFor();
    const earlier = attempts();
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Rewind…' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('combobox').click();
    await page.getByRole('option', { name: /^4/ }).click();
    await dialog.getByText('1 recorded result dropped.').waitFor();
    await dialog.getByRole('button', { name: 'Rewind' }).click();
    await page.getByText('Rewound').waitFor();
    await eventually('the last step ran again', () => attempts() === earlier + 1);
    await page.getByText(/^Succeeded in/).waitFor();
  });

  it('sees how deep a queue is, what limits it and what holds the rest', async () => {
    for (let number = 1; number <= 6; number += 1)
      await order({ do: 'start', workflow: 'journey', id: `queued-${number}`, input: 1, queue: 'narrow' });
    await page.goto(path('/queues'));
    const row = page.getByRole('row', { name: /narrow/ });
    await row.getByText('2 at once, 1 an executor, 50 in 10 s').waitFor();
    await eventually('two run and four wait', async () => {
      const [waiting, running] = await row.getByRole('cell').allTextContents().then((cells) => cells.slice(1, 3));
      return waiting === '4' && running === '2';
    });
    await page.goto(path('/metrics?by=queue'));
    await page.getByRole('img', { name: /^Queue depth: 4 waiting now/ }).waitFor();
    await page.goto(path('/workflows/queued-6'));
    await page.getByText(/queue narrow|narrow/).first().waitFor();
  });

  it('holds, pushes and makes up for a schedule', async () => {
    await order({ do: 'schedule', name: 'nightly', cron: '*/10 * * * *', context: 'x' });
    await page.goto(path('/schedules'));
    const row = page.getByRole('row', { name: /nightly/ });
    await row.getByRole('button', { name: 'Pause' }).click();
    await row.getByText('Paused').waitFor();
    await row.getByRole('button', { name: 'Resume' }).click();
    await row.getByText('Active').waitFor();
    await row.getByRole('button', { name: 'Run now' }).click();
    await page.getByText('Started', { exact: true }).waitFor();
    await row.getByRole('button', { name: 'Backfill…' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText('It would have fired').waitFor();
    // Whatever the hour: what is announced is what is started, one at the very start of the span included.
    const span = [0, 1].map((hours) => `2026-01-05T0${hours}:00`);
    await dialog.getByLabel('From').fill(span[0]);
    await dialog.getByLabel('Until').fill(span[1]);
    await dialog.getByRole('button', { name: 'Start 6 workflows' }).click();
    await page.getByText('6 workflows started').waitFor();
    await eventually('all of them are there', async () => (await search({ scheduleName: ['nightly'] })).length >= 7);
    await row.getByRole('button', { name: 'Runs' }).click();
    await page.getByRole('dialog').getByRole('row').nth(6).waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
  });

  it('exports a workflow, and imports it again after it was deleted', async () => {
    await page.goto(path('/workflows/chat'));
    await page.getByRole('button', { name: 'More actions' }).click();
    const [file] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('menuitem', { name: 'Export' }).click(),
    ]);
    const saved = await file.path();
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Delete…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.waitForURL('**/workflows');
    const [chooser] = await Promise.all([
      page.waitForEvent('filechooser'),
      page.getByRole('button', { name: 'Import' }).click(),
    ]);
    await chooser.setFiles(saved);
    await page.getByText('Imported').waitFor();
    await ended('chat');
  });

  it('evicts an executor, whose work goes to another', async () => {
    const victim = kit.executors.at(-1);
    await victim.order({ do: 'start', workflow: 'journey', id: 'handed-over', input: 1 });
    // Its sockets stay open, and it does nothing more.
    victim.freeze();
    await page.goto(path('/executors'));
    await page.getByRole('row', { name: new RegExp(victim.id) }).getByRole('button', { name: 'Evict' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText(/its effect may happen twice/).waitFor();
    await dialog.getByLabel('Reason').fill('it is wedged');
    await dialog.getByRole('button', { name: 'Evict' }).click();
    await page.getByText('Evicted', { exact: true }).waitFor();
    await eventually('another has its work', async () => {
      const [taken] = await search({ workflowIds: ['handed-over'] });
      return taken.executorId !== victim.id;
    });
    kit.letEnd('handed-over');
    await ended('handed-over');
  });

  for (const theme of ['light', 'dark']) {
    it(`reads all of it, ${theme}`, async () => {
      const steps = (view) => view.getByRole('button', { name: 'Steps of this child' }).click();
      const drawn = (view) => view.getByRole('img', { name: /^Queue depth/ }).waitFor();
      await examine(browser, server, theme, {
        'python-overview': [path(''), kit.app],
        'python-workflows': [path('/workflows'), 'Workflows'],
        'python-children': [path('/workflows/family'), /parent/, steps],
        'python-graph': [path('/workflows/trip-1?tab=graph'), /journey/],
        'python-exchange': [path('/workflows/chat?tab=exchange'), /talk/],
        'python-failed': [path('/workflows/through?step=2'), /passage/],
        'python-waiting': [path('/workflows/queued-6'), /journey/],
        'python-compare': [path('/compare?left=trip-1&right=trip-1-again'), 'Compare'],
        'python-queues': [path('/queues'), 'Queues'],
        'python-metrics-queues': [path('/metrics?by=queue'), 'Metrics', drawn],
        'python-schedules': [path('/schedules'), 'Schedules'],
        'python-versions': [path('/versions'), 'Versions'],
        'python-recovery': [path('/recovery'), 'Recovery'],
      });
    });
  }

  it('raised no error in any of this', () => {
    assert.deepEqual(tab.faults, []);
  });
}
