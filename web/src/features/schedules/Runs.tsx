import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { read, type Schedule } from '~/api/queries';
import { useNow } from '~/ui/clock';
import { Button, buttonLook } from '~/ui/controls';
import { Age, Facts, Moment, StatusBadge, Table, Took } from '~/ui/data';
import { count } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { Dialog } from '~/ui/overlay';
import { Empty, Loaded } from '~/ui/states';
import { nextFirings } from './firings';

const LAST = 10;
const NEXT = 5;

/** When a schedule started something lately and what became of it, and when it will next. */
export function RunsDialog({
  app,
  schedule,
  onClose,
}: {
  app: string;
  schedule: Schedule;
  onClose: () => void;
}) {
  const runs = useQuery({
    ...read.search(app, { scheduleName: [schedule.scheduleName], limit: LAST, sortDesc: true }),
    ...useRenewal(3_000),
  });
  const minute = Math.floor(useNow() / 1_000) * 1_000;
  const next = nextFirings(schedule.cronExpression, schedule.cronTimezone, minute, NEXT);
  return (
    <Dialog
      open
      onClose={onClose}
      title={schedule.scheduleName}
      width={720}
      foot={
        <>
          <Link
            to="/apps/$app/workflows"
            params={{ app }}
            search={{ schedule: [schedule.scheduleName] }}
            {...buttonLook('quiet')}
          >
            All its workflows
          </Link>
          <Button onClick={onClose}>Close</Button>
        </>
      }
    >
      <Facts
        facts={[
          ['Starts', <bdi key="workflow">{schedule.workflowName}</bdi>],
          ['When', <code key="cron">{schedule.cronExpression}</code>],
          ['Time zone', schedule.cronTimezone ?? 'UTC'],
          ['Missed firings', schedule.automaticBackfill ? 'made up for' : 'left out'],
        ]}
      />
      {schedule.status === 'ACTIVE' ? (
        next && <Firings title="Next" firings={next} more={0} />
      ) : (
        <p className="muted">It is paused and does not fire.</p>
      )}
      <div className="stack" style={{ gap: 6 }}>
        <h3>Last runs</h3>
        <Loaded query={runs} rows={3}>
          {(list) =>
            list.length === 0 ? (
              <Empty title="It has not run yet" />
            ) : (
              <Table
                label="Last runs"
                head={
                  <>
                    <th>Status</th>
                    <th>Workflow</th>
                    <th>Started</th>
                    <th>Took</th>
                  </>
                }
              >
                {list.map((run) => (
                  <tr key={run.workflowId}>
                    <td>
                      <StatusBadge status={run.status} />
                    </td>
                    <td style={{ maxWidth: 320 }}>
                      <Link
                        className="link mono clip"
                        style={{ display: 'block' }}
                        to="/apps/$app/workflows/$id"
                        params={{ app, id: run.workflowId }}
                      >
                        <bdi>{run.workflowId}</bdi>
                      </Link>
                    </td>
                    <td>
                      <Age time={run.createdAt} />
                    </td>
                    <td>
                      <Took
                        start={run.dequeuedAt ?? run.createdAt}
                        end={run.status === 'PENDING' ? null : (run.completedAt ?? run.updatedAt)}
                      />
                    </td>
                  </tr>
                ))}
              </Table>
            )
          }
        </Loaded>
      </div>
    </Dialog>
  );
}

/** Moments at which a schedule fires. */
export function Firings({ title, firings, more }: { title: string; firings: Date[]; more: number }) {
  return (
    <div className="stack" style={{ gap: 6 }}>
      <h3>{title}</h3>
      <ul className="row wrap" style={{ gap: '4px 16px' }}>
        {firings.map((firing) => (
          <li key={firing.getTime()}>
            <Moment time={firing.toISOString()} />
          </li>
        ))}
        {more > 0 && <li className="muted">and {count(more)} more</li>}
      </ul>
    </div>
  );
}
