import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useMemo } from 'react';
import { type Queue, read } from '~/api/queries';
import { Age, Badge, Page, Panel, Table } from '~/ui/data';
import { count, duration } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { Empty, Loaded } from '~/ui/states';
import { type QueueRow, queueRows } from './queues';

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
  return (
    <Page title="Queues">
      <Panel flush>
        <Loaded query={queues}>
          {() =>
            rows.length === 0 ? (
              <Empty title="No queues">The application has declared none.</Empty>
            ) : (
              <QueueTable app={app} rows={rows} counted={active.data !== undefined} />
            )
          }
        </Loaded>
      </Panel>
    </Page>
  );
}

function QueueTable({ app, rows, counted }: { app: string; rows: QueueRow[]; counted: boolean }) {
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
          <th>At once</th>
          <th>Rate</th>
          <th>Looked at</th>
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
                <bdi>{row.name}</bdi>
              </Link>
              {row.queue?.priorityEnabled && <Badge>priorities</Badge>}
              {row.queue?.partitionQueue && <Badge>partitioned</Badge>}
              {!row.queue && <Badge tone="warn">not declared</Badge>}
            </div>
          </td>
          <td data-num>{figure(row.enqueued)}</td>
          <td data-num>{figure(row.pending)}</td>
          <td data-num>{figure(row.delayed)}</td>
          <td>
            <Age time={row.oldest} />
          </td>
          <td>{row.queue ? limits(row.queue) : '–'}</td>
          <td className="num">{row.queue ? rate(row.queue) : '–'}</td>
          <td className="num">
            {row.queue ? `every ${duration(row.queue.pollingIntervalSecs * 1_000)}` : '–'}
          </td>
        </tr>
      ))}
    </Table>
  );
}

function limits(queue: Queue): string {
  const parts = [
    queue.concurrency !== null && `${count(queue.concurrency)} in all`,
    queue.workerConcurrency !== null && `${count(queue.workerConcurrency)} an executor`,
    queue.partitionConcurrency !== null && `${count(queue.partitionConcurrency)} a partition`,
  ].filter((part) => part !== false);
  return parts.length > 0 ? parts.join(', ') : 'no limit';
}

function rate(queue: Queue): string {
  if (queue.rateLimitMax === null || queue.rateLimitPeriodSecs === null) return 'no limit';
  return `${count(queue.rateLimitMax)} in ${duration(queue.rateLimitPeriodSecs * 1_000)}`;
}
