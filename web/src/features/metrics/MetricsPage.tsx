import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useMemo } from 'react';
import { useMay } from '~/api/may';
import { read } from '~/api/queries';
import { BarChart, type Series } from '~/ui/Chart';
import { useNow } from '~/ui/clock';
import { Button, Segments } from '~/ui/controls';
import { Foreign, Page, Panel, Table } from '~/ui/data';
import { count, duration } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { Empty, Loaded } from '~/ui/states';
import { timeWindow } from '../fleet/outcomes';
import { type Depths, depthOf, depths } from './depth';
import { type By, type Group, groups, type Span, times, together } from './groups';
import s from './Metrics.module.css';
import { type MetricsView, SPANS, type SpanName } from './view';

const WORDS: Record<By, { label: string; count: string; longest: string; none: string }> = {
  workflow: {
    label: 'By workflow',
    count: 'Workflows started',
    longest: 'Longest from creation to end',
    none: 'No workflow was started in this time.',
  },
  step: {
    label: 'By step',
    count: 'Steps ended',
    longest: 'Longest step',
    none: 'No step ended in this time.',
  },
  queue: {
    label: 'By queue',
    count: 'Workflows enqueued',
    longest: 'Longest wait on a queue',
    none: 'No workflow was enqueued in this time.',
  },
};

/** How much, how well and how fast: of each workflow, step or queue. */
export function MetricsPage(props: { app: string; view: MetricsView; onView: (view: MetricsView) => void }) {
  const { app, view, onView } = props;
  const { span, query } = useFigures(app, view);
  const all = useMemo(
    () => (query.data ? groups(query.data, view.by, span) : []),
    [query.data, view.by, span],
  );
  const chosen = all.find((group) => group.name === view.name);
  const waiting = useDepths(app, span, view.by === 'queue');
  const shown = useMemo(() => chosen ?? together(all, span), [chosen, all, span]);
  return (
    <Page
      title="Metrics"
      actions={
        <>
          <Segments
            label="Told apart"
            value={view.by}
            options={(Object.keys(WORDS) as By[]).map((by) => ({ value: by, label: WORDS[by].label }))}
            onChange={(by) => onView({ by, span: view.span })}
          />
          <Segments
            label="Time span"
            value={view.span}
            options={(Object.keys(SPANS) as SpanName[]).map((value) => ({
              value,
              label: SPANS[value].label,
            }))}
            onChange={(next) => onView({ ...view, span: next })}
          />
        </>
      }
    >
      <Loaded query={query}>
        {() =>
          all.length === 0 && !heldAnything(waiting) ? (
            <Panel>
              <Empty title="Nothing to measure">{WORDS[view.by].none}</Empty>
            </Panel>
          ) : (
            <>
              {view.name && (
                <div className="row">
                  <span className="soft">Only</span>
                  <strong>
                    <Foreign text={view.name} />
                  </strong>
                  <Button small kind="quiet" onClick={() => onView({ ...view, name: undefined })}>
                    Show all
                  </Button>
                </div>
              )}
              <Charts by={view.by} group={shown} span={span} />
              {view.by === 'queue' && waiting && <Waiting all={waiting} name={chosen?.name} span={span} />}
              <Panel flush>
                <GroupTable
                  by={view.by}
                  all={all}
                  span={span}
                  waiting={waiting}
                  chosen={chosen?.name}
                  onChoose={(name) => onView({ ...view, name: name === view.name ? undefined : name })}
                />
              </Panel>
            </>
          )
        }
      </Loaded>
    </Page>
  );
}

function useFigures(app: string, { by, span: name }: MetricsView) {
  const { buckets, bucketMs } = SPANS[name];
  const now = Math.floor(useNow() / bucketMs) * bucketMs;
  const span = useMemo(
    (): Span => ({ ...timeWindow(now, buckets, bucketMs), bucketMs }),
    [now, buckets, bucketMs],
  );
  const since = new Date(span.start).toISOString();
  const renewal = { ...useRenewal(name === '1h' ? 5_000 : 30_000), placeholderData: keepPreviousData };
  const workflows = useQuery({
    ...read.aggregates(app, {
      ...(by === 'queue'
        ? { groupByQueueName: true, selectMaxQueueWaitMs: true }
        : { groupByWorkflowName: true, selectMaxTotalLatencyMs: true }),
      groupByStatus: true,
      selectCount: true,
      timeBucketSizeMs: bucketMs,
      startTime: since,
    }),
    ...renewal,
    enabled: by !== 'step',
  });
  const steps = useQuery({
    ...read.stepAggregates(app, {
      groupByFunctionName: true,
      groupByStatus: true,
      selectCount: true,
      selectMaxDurationMs: true,
      timeBucketSizeMs: bucketMs,
      completedAfter: since,
    }),
    ...renewal,
    enabled: by === 'step',
  });
  return { span, query: by === 'step' ? steps : workflows };
}

/** How many waited on each queue, as the server measured it and as it is now; null where that is not to be known. */
function useDepths(app: string, span: Span, enabled: boolean): Depths | null {
  const may = useMay()('metric.read');
  const stored = useQuery({
    ...read.metrics(app, {
      // With what was measured shortly before, which holds until the next measurement.
      startTime: new Date(span.start - 900_000).toISOString(),
      endTime: new Date(span.end).toISOString(),
    }),
    ...useRenewal(15_000),
    placeholderData: keepPreviousData,
    enabled: enabled && may,
  });
  const active = useQuery({
    ...read.aggregates(app, { groupByQueueName: true, selectCount: true, status: ['ENQUEUED'] }),
    ...useRenewal(5_000),
    enabled,
  });
  return useMemo(() => {
    if (!stored.data || !active.data) return null;
    const now = new Map<string, number>();
    for (const { group, count: size } of active.data)
      if (group.queue_name) now.set(group.queue_name, size ?? 0);
    return depths(stored.data, now, span);
  }, [stored.data, active.data, span]);
}

function heldAnything(waiting: Depths | null): boolean {
  return waiting !== null && [...waiting.values()].some((values) => values.some((value) => value > 0));
}

function Waiting({ all, name, span }: { all: Depths; name: string | undefined; span: Span }) {
  const at = useMemo(() => times(span), [span]);
  const values = useMemo(() => depthOf(all, span, name), [all, name, span]);
  const series = useMemo((): Series[] => [{ label: 'Waiting', tone: 'wait', values }], [values]);
  const [now, most] = [values.at(-1) ?? 0, values.reduce((a, b) => Math.max(a, b), 0)];
  return (
    <Panel
      title={
        <div className="row wrap" style={{ gap: 12 }}>
          <h2>Queue depth</h2>
          <span className="muted num">
            {count(now)} waiting now, {count(most)} at most
          </span>
        </div>
      }
    >
      <BarChart
        height={150}
        label={`Queue depth: ${count(now)} waiting now, ${count(most)} at most`}
        times={at}
        series={series}
      />
    </Panel>
  );
}

function outcomes(group: Group): Series[] {
  return [
    { label: 'Failed', tone: 'err', values: group.failed },
    { label: 'Other', tone: 'off', values: group.other },
    { label: 'Succeeded', tone: 'ok', values: group.ok },
  ];
}

function Charts({ by, group, span }: { by: By; group: Group; span: Span }) {
  const words = WORDS[by];
  const at = useMemo(() => times(span), [span]);
  const counts = useMemo(() => outcomes(group), [group]);
  const longest = useMemo(
    (): Series[] => [{ label: words.longest, tone: 'run', values: group.longest }],
    [group, words.longest],
  );
  return (
    <div className={s.charts}>
      <Panel
        title={
          <div className="row wrap" style={{ gap: 12 }}>
            <h2>{words.count}</h2>
            <span className="muted num">
              {count(group.total)}, {count(group.failures)} failed
            </span>
          </div>
        }
      >
        <BarChart
          height={170}
          label={`${words.count}: ${count(group.total)}, ${count(group.failures)} failed`}
          times={at}
          series={counts}
        />
      </Panel>
      <Panel
        title={
          <div className="row wrap" style={{ gap: 12 }}>
            <h2>{words.longest}</h2>
            <span className="muted num">{group.worst === null ? 'none ended' : duration(group.worst)}</span>
          </div>
        }
      >
        <BarChart
          line
          height={170}
          label={`${words.longest}: ${group.worst === null ? 'none' : duration(group.worst)}`}
          times={at}
          series={longest}
          format={duration}
        />
      </Panel>
    </div>
  );
}

function GroupTable(props: {
  by: By;
  all: Group[];
  span: Span;
  waiting: Depths | null;
  chosen: string | undefined;
  onChoose: (name: string) => void;
}) {
  const { by, all, span } = props;
  const minutes = (span.end - span.start) / 60_000;
  return (
    <Table
      label={WORDS[by].label}
      head={
        <>
          <th>{by === 'workflow' ? 'Workflow' : by === 'step' ? 'Step' : 'Queue'}</th>
          <th data-num>{WORDS[by].count}</th>
          <th data-num>A minute</th>
          <th data-num>Failed</th>
          <th data-num>{WORDS[by].longest}</th>
          {by === 'queue' && <th data-num>Waiting now</th>}
          <th className={s.spark}>Over time</th>
        </>
      }
    >
      {all.slice(0, 200).map((group) => (
        <tr key={group.name} data-chosen={group.name === props.chosen || undefined}>
          <td>
            <button
              type="button"
              className={s.name}
              aria-pressed={group.name === props.chosen}
              onClick={() => props.onChoose(group.name)}
            >
              <Foreign text={group.name} />
            </button>
          </td>
          <td data-num>{count(group.total)}</td>
          <td data-num>{perMinute(group.total / minutes)}</td>
          <td data-num>
            {group.failures === 0 ? (
              <span className="muted">0</span>
            ) : (
              <span style={{ color: 'var(--err)' }}>
                {count(group.failures)}{' '}
                <span className="muted">({percent(group.failures / group.total)})</span>
              </span>
            )}
          </td>
          <td data-num>{group.worst === null ? <span className="muted">–</span> : duration(group.worst)}</td>
          {by === 'queue' && (
            <td data-num>
              {props.waiting ? (
                count(props.waiting.get(group.name)?.at(-1) ?? 0)
              ) : (
                <span className="muted">–</span>
              )}
            </td>
          )}
          <td className={s.spark}>
            <Spark group={group} span={span} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Spark({ group, span }: { group: Group; span: Span }) {
  const at = useMemo(() => times(span), [span]);
  const series = useMemo(() => outcomes(group), [group]);
  return <BarChart spark height={26} label={`${count(group.total)} over time`} times={at} series={series} />;
}

function perMinute(value: number): string {
  return value >= 10 ? count(Math.round(value)) : value.toFixed(value >= 1 ? 1 : 2);
}

function percent(part: number): string {
  return part >= 0.1 ? `${Math.round(part * 100)} %` : `${(part * 100).toFixed(1)} %`;
}
