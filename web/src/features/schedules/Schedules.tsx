import { useMutation, useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { useMay } from '~/api/may';
import { Problem } from '~/api/problem';
import { act, read, type Schedule } from '~/api/queries';
import { serverNow, useNow } from '~/ui/clock';
import { Button, Field, Input } from '~/ui/controls';
import { Age, Badge, Page, Panel, Table } from '~/ui/data';
import { count, plural } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { localInput } from '~/ui/local';
import { ActionDialog } from '~/ui/overlay';
import { Banner, Empty, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { firingsWithin, nextFirings } from './firings';
import { Firings, RunsDialog } from './Runs';

/** What starts by the clock: when it did last and will next, and the ways to hold it, push it or catch up. */
export function Schedules({ app }: { app: string }) {
  const schedules = useQuery({ ...read.schedules(app), ...useRenewal(5_000) });
  const [backfill, setBackfill] = useState<Schedule | null>(null);
  const [shown, setShown] = useState<Schedule | null>(null);
  return (
    <Page title="Schedules">
      <Panel flush>
        <Loaded query={schedules}>
          {(list) =>
            list.length === 0 ? (
              <Empty title="No schedules">The application has none.</Empty>
            ) : (
              <Table
                label="Schedules"
                head={
                  <>
                    <th>Schedule</th>
                    <th>Workflow</th>
                    <th>When</th>
                    <th>State</th>
                    <th>Last</th>
                    <th>Next</th>
                    <th>
                      <span className="visually-hidden">Actions</span>
                    </th>
                  </>
                }
              >
                {list.map((schedule) => (
                  <ScheduleRow
                    key={schedule.scheduleId}
                    app={app}
                    schedule={schedule}
                    onBackfill={() => setBackfill(schedule)}
                    onRuns={() => setShown(schedule)}
                  />
                ))}
              </Table>
            )
          }
        </Loaded>
      </Panel>
      {shown && <RunsDialog app={app} schedule={shown} onClose={() => setShown(null)} />}
      {backfill && <BackfillDialog app={app} schedule={backfill} onClose={() => setBackfill(null)} />}
    </Page>
  );
}

function ScheduleRow({
  app,
  schedule,
  onBackfill,
  onRuns,
}: {
  app: string;
  schedule: Schedule;
  onBackfill: () => void;
  onRuns: () => void;
}) {
  const now = useNow();
  const mayWrite = useMay()('application.write');
  const active = schedule.status === 'ACTIVE';
  const next = nextFirings(schedule.cronExpression, schedule.cronTimezone, now, 1)?.[0];
  const renew = () => queryClient.invalidateQueries({ queryKey: read.schedules(app).queryKey });
  const failed = (error: unknown) =>
    notify({ title: 'That did not work', text: Problem.of(error).message, tone: 'err' });
  const hold = useMutation({
    mutationFn: () =>
      active ? act.pauseSchedule(app, schedule.scheduleName) : act.resumeSchedule(app, schedule.scheduleName),
    onSuccess: renew,
    onError: failed,
  });
  const trigger = useMutation({
    mutationFn: () => act.triggerSchedule(app, schedule.scheduleName),
    onSuccess: (id) =>
      notify({
        title: 'Started',
        text: (
          <Link className="link" to="/apps/$app/workflows/$id" params={{ app, id }}>
            Open the workflow
          </Link>
        ),
      }),
    onError: failed,
  });
  return (
    <tr>
      <td>
        <Link
          className="link"
          to="/apps/$app/workflows"
          params={{ app }}
          search={{ schedule: [schedule.scheduleName] }}
        >
          <bdi>{schedule.scheduleName}</bdi>
        </Link>
      </td>
      <td>
        <bdi>{schedule.workflowName}</bdi>
      </td>
      <td>
        <code>{schedule.cronExpression}</code> <span className="muted">{schedule.cronTimezone ?? 'UTC'}</span>
      </td>
      <td>
        <Badge tone={active ? 'ok' : 'off'}>
          {active ? 'Active' : schedule.status === 'PAUSED' ? 'Paused' : schedule.status}
        </Badge>
      </td>
      <td>
        <Age time={schedule.lastFiredAt} />
      </td>
      <td>{active && next ? <Age time={next.toISOString()} /> : <span className="muted">–</span>}</td>
      <td data-actions>
        <Button small kind="quiet" onClick={onRuns}>
          Runs
        </Button>
        {mayWrite && (
          <>
            <Button small kind="quiet" disabled={hold.isPending} onClick={() => hold.mutate()}>
              {active ? 'Pause' : 'Resume'}
            </Button>
            <Button small kind="quiet" disabled={trigger.isPending} onClick={() => trigger.mutate()}>
              Run now
            </Button>
            <Button small kind="quiet" onClick={onBackfill}>
              Backfill…
            </Button>
          </>
        )}
      </td>
    </tr>
  );
}

const MOST_COUNTED = 1_000;

function BackfillDialog({
  app,
  schedule,
  onClose,
}: {
  app: string;
  schedule: Schedule;
  onClose: () => void;
}) {
  const [start, setStart] = useState(() => localInput(serverNow() - 3_600_000));
  const [end, setEnd] = useState(() => localInput(serverNow()));
  const [from, to] = [Date.parse(start), Date.parse(end)];
  const valid = from < to;
  const firings = valid
    ? firingsWithin(schedule.cronExpression, schedule.cronTimezone, from, to, MOST_COUNTED)
    : 0;
  return (
    <ActionDialog
      open
      onClose={onClose}
      title={`Backfill ${schedule.scheduleName}`}
      description="Starts a workflow for every time the schedule would have fired in the span. Firings that already have one are left alone."
      verb={
        firings === null
          ? 'Backfill'
          : `Start ${firings >= MOST_COUNTED ? `${count(MOST_COUNTED)} or more` : plural(firings, 'workflow')}`
      }
      ready={valid && firings !== 0}
      action={() =>
        act.backfillSchedule(
          app,
          schedule.scheduleName,
          // Some SDKs leave out a firing at the start itself. A moment earlier all of them take it, as the preview does.
          new Date(from - 1).toISOString(),
          new Date(to).toISOString(),
        )
      }
      onDone={(ids) => notify({ title: `${plural(ids.length, 'workflow')} started` })}
    >
      <Field label="From">
        {(control) => (
          <Input
            {...control}
            type="datetime-local"
            value={start}
            onChange={(event) => setStart(event.target.value)}
          />
        )}
      </Field>
      <Field label="Until" fault={valid ? undefined : 'It must be later than the start.'}>
        {(control) => (
          <Input
            {...control}
            type="datetime-local"
            value={end}
            onChange={(event) => setEnd(event.target.value)}
          />
        )}
      </Field>
      {valid && firings !== null && firings > 0 && (
        <Firings
          title="It would have fired"
          firings={
            nextFirings(schedule.cronExpression, schedule.cronTimezone, from - 1_000, Math.min(firings, 8)) ??
            []
          }
          more={firings - 8}
        />
      )}
      {firings !== null && firings >= MOST_COUNTED && (
        <Banner tone="warn">
          That is very many at once. The executor enqueues them one by one; take a shorter span.
        </Banner>
      )}
    </ActionDialog>
  );
}
