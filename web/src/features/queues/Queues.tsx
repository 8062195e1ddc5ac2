import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useMemo } from 'react';
import { type Queue, read } from '~/api/queries';
import { BarChart, type Series } from '~/ui/Chart';
import { useNow } from '~/ui/clock';
import { Age, Badge, Foreign, Page, Panel, Table } from '~/ui/data';
import { count, duration } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { Empty, Loaded } from '~/ui/states';
import { timeWindow } from '../fleet/outcomes';
import { type Group, groups, type Span, times } from '../metrics/groups';
import s from '../metrics/Metrics.module.css';
import { isInternal, type QueueRow, queueRows } from './queues';

/** How much waits where, for how long, and what the limits allow. */
export function Queues({ app }: { app: string }) {
  const queues = useQuery({ ...read.queues(app), ...useRenewal(10_000) });
  const active = useQuery({
    ...read.aggregates(app, {
      groupByQueueName: true,
      groupByStatus: true,
      selectCount: true,
      selectMinCreatedAt: true,
      status: ['PENDING', 'ENQUEUED', 'DELAYED'],
    }),
    ...useRenewal(3_000),
  });
  const rows = useMemo(() => queueRows(queues.data ?? [], active.data ?? []), [queues.data, active.data]);
  const lately = useLately(app);
  return (
    <Page title="Queues">
      <Panel flush>
        <Loaded query={queues}>
          {() =>
            rows.length === 0 ? (
              <Empty title="No queues">The application has declared none.</Empty>
            ) : (
              <QueueTable app={app} rows={rows} counted={active.data !== undefined} lately={lately} />
            )
          }
        </Loaded>
      </Panel>
    </Page>
  );
}

const BUCKET = 120_000;
const BUCKETS = 30;

/** What each queue took in during the last hour, and how long it let wait. */
function useLately(app: string): { span: Span; of: ReadonlyMap<string, Group> } {
  const now = Math.floor(useNow() / BUCKET) * BUCKET;
  const span = useMemo(() => ({ ...timeWindow(now, BUCKETS, BUCKET), bucketMs: BUCKET }), [now]);
  const query = useQuery({
    ...read.aggregates(app, {
      groupByQueueName: true,
      groupByStatus: true,
      selectCount: true,
      selectMaxQueueWaitMs: true,
      timeBucketSizeMs: BUCKET,
      startTime: new Date(span.start).toISOString(),
    }),
    ...useRenewal(10_000),
    placeholderData: keepPreviousData,
  });
  return useMemo(
    () => ({
      span,
      of: new Map(groups(query.data ?? [], 'queue', span).map((group) => [group.name, group])),
    }),
    [query.data, span],
  );
}

function QueueTable({
  app,
  rows,
  counted,
  lately,
}: {
  app: string;
  rows: QueueRow[];
  counted: boolean;
  lately: ReturnType<typeof useLately>;
}) {
  const figure = (value: number) => (counted ? count(value) : '–');
  return (
    <Table
      label="Queues"
      head={
        <>
          <th>Queue</th>
          <th data-num>Waiting</th>
          <th data-num>Running</th>
          <th data-num>Delayed</th>
          <th>Oldest waiting</th>
          <th data-num>Longest wait, 1 h</th>
          <th className={s.words}>Limits</th>
          <th className={s.spark}>Enqueued in the last hour</th>
        </>
      }
    >
      {rows.map((row) => (
        <tr key={row.name}>
          <td>
            <div className="row">
              <Link
                className="link"
                to="/apps/$app/workflows"
                params={{ app }}
                search={{ queue: [row.name] }}
              >
                <Foreign text={row.name} />
              </Link>
              {row.queue?.priorityEnabled && <Badge>priorities</Badge>}
              {row.queue?.partitionQueue && <Badge>partitioned</Badge>}
              {!row.queue &&
                (isInternal(row.name) ? <Badge>internal</Badge> : <Badge tone="warn">not declared</Badge>)}
            </div>
          </td>
          <td data-num>{figure(row.enqueued)}</td>
          <td data-num>{figure(row.pending)}</td>
          <td data-num>{figure(row.delayed)}</td>
          <td>
            <Age time={row.oldest} />
          </td>
          <td data-num>
            <Longest group={lately.of.get(row.name)} />
          </td>
          <td>{row.queue ? <Limits queue={row.queue} /> : <span className="muted">–</span>}</td>
          <td className={s.spark}>
            <Lately group={lately.of.get(row.name)} span={lately.span} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Longest({ group }: { group: Group | undefined }) {
  return group && group.worst !== null ? duration(group.worst) : <span className="muted">–</span>;
}

function Lately({ group, span }: { group: Group | undefined; span: Span }) {
  const at = useMemo(() => times(span), [span]);
  const series = useMemo(
    (): Series[] =>
      group
        ? [
            { label: 'Failed', tone: 'err', values: group.failed },
            { label: 'Active', tone: 'wait', values: group.other },
            { label: 'Succeeded', tone: 'ok', values: group.ok },
          ]
        : [],
    [group],
  );
  if (!group) return <span className="muted">nothing</span>;
  return (
    <div className="row">
      <div className="grow">
        <BarChart
          spark
          height={26}
          label={`${count(group.total)} in the last hour`}
          times={at}
          series={series}
        />
      </div>
      <span className="num soft">{count(group.total)}</span>
    </div>
  );
}

function Limits({ queue }: { queue: Queue }) {
  return (
    <span title={`Looked at every ${duration(queue.pollingIntervalSecs * 1_000)}`}>
      {limits(queue) || 'none'}
    </span>
  );
}

function limits(queue: Queue): string {
  const rate = (most: number | null, secs: number | null, of: string) =>
    most !== null && secs !== null && `${count(most)} ${of}in ${duration(secs * 1_000)}`;
  return [
    queue.concurrency !== null && `${count(queue.concurrency)} at once`,
    queue.workerConcurrency !== null && `${count(queue.workerConcurrency)} an executor`,
    queue.partitionConcurrency !== null && `${count(queue.partitionConcurrency)} a partition`,
    queue.partitionWorkerConcurrency !== null &&
      `${count(queue.partitionWorkerConcurrency)} a partition and executor`,
    rate(queue.rateLimitMax, queue.rateLimitPeriodSecs, ''),
    rate(queue.partitionRateLimitMax, queue.partitionRateLimitPeriodSecs, 'of a partition '),
  ]
    .filter((part) => part !== false)
    .join(', ');
}
