import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { TriangleAlert } from 'lucide-react';
import { useState } from 'react';
import { type App, read } from '~/api/queries';
import { BarChart } from '~/ui/Chart';
import { Segments } from '~/ui/controls';
import { Badge, Dot, Page, Panel } from '~/ui/data';
import { count } from '~/ui/format';
import { usePushed, useRenewal } from '~/ui/live';
import { Banner, Loaded, NotConnected } from '~/ui/states';
import { RecoveryTable } from '../recovery/RecoveryTable';
import { VersionChips } from './Fleet';
import s from './Fleet.module.css';
import { useActiveCounts, useHealth, useOutcomes } from './useApp';

const SPANS = {
  hour: { label: '1 h', buckets: 60, bucketMs: 60_000 },
  day: { label: '24 h', buckets: 48, bucketMs: 1_800_000 },
  week: { label: '7 d', buckets: 56, bucketMs: 10_800_000 },
} as const;
type Span = keyof typeof SPANS;

/** One application at a glance: is it burning, and where to look. */
export function Overview({ app: name }: { app: string }) {
  const app = useQuery({ ...read.app(name), ...useRenewal(5_000) });
  return <Loaded query={app}>{(data) => <Content app={data} />}</Loaded>;
}

function Content({ app }: { app: App }) {
  const { health, executors, stranded } = useHealth(app);
  const connected = (executors.data ?? []).some((executor) => executor.status === 'HEALTHY');
  const counts = useActiveCounts(app.name, connected);
  const [span, setSpan] = useState<Span>('hour');
  const { buckets, bucketMs, label } = SPANS[span];
  const outcomes = useOutcomes(app.name, connected, buckets, bucketMs);
  const recoveries = useQuery({ ...read.recoveries(app.name, { limit: 8 }), ...usePushed(app.name, 3_000) });
  const strandedWork = (stranded.data ?? []).reduce((sum, each) => sum + (each.pendingWorkflows ?? 0), 0);
  const figure = (status: string) => (counts ? count(counts.get(status) ?? 0) : '–');

  return (
    <Page title={app.name} aside={health && <Badge tone={health.tone}>{health.label}</Badge>}>
      {health?.detail && (
        <Banner tone={health.tone} icon={<TriangleAlert />}>
          {health.detail}.{' '}
          <Link to="/apps/$app/recovery" params={{ app: app.name }} className="link">
            What can be done
          </Link>
        </Banner>
      )}
      <div className={s.tiles}>
        <Tile app={app.name} status={['PENDING']} label="Pending" value={figure('PENDING')} />
        <Tile app={app.name} status={['ENQUEUED', 'DELAYED']} label="Enqueued" value={sumOf(counts)} />
        <Link
          to="/apps/$app/recovery"
          params={{ app: app.name }}
          className={s.tile}
          data-tone={(stranded.data?.length ?? 0) > 0 ? 'warn' : undefined}
        >
          <span className="soft">Stranded</span>
          <span className={s.figure}>{stranded.data ? count(strandedWork) : '–'}</span>
        </Link>
        <div className={s.tile}>
          <span className="soft">Executors</span>
          <VersionChips app={app.name} executors={executors.data ?? []} />
        </div>
      </div>
      <Panel
        title={
          <div className="row wrap" style={{ gap: 14 }}>
            <h2>Workflows started</h2>
            {outcomes && (
              <span className="muted num">
                {count(outcomes.total)} in {label}, {count(outcomes.failed)} failed
              </span>
            )}
          </div>
        }
        actions={
          <>
            <Legend />
            <Segments
              label="Time span"
              value={span}
              onChange={setSpan}
              options={(Object.keys(SPANS) as Span[]).map((each) => ({
                value: each,
                label: SPANS[each].label,
              }))}
            />
          </>
        }
      >
        {outcomes ? (
          <BarChart
            height={190}
            label={`${count(outcomes.total)} workflows started in ${label}, ${count(outcomes.failed)} failed`}
            times={outcomes.times}
            series={outcomes.series}
          />
        ) : executors.data && !connected ? (
          <NotConnected />
        ) : (
          <div style={{ height: 190 }} />
        )}
      </Panel>
      <Panel title="Latest losses of executors" flush>
        <Loaded query={recoveries} rows={3}>
          {(list) => <RecoveryTable app={app.name} recoveries={list} quiet />}
        </Loaded>
      </Panel>
    </Page>
  );
}

function sumOf(counts: Map<string, number> | null): string {
  return counts ? count((counts.get('ENQUEUED') ?? 0) + (counts.get('DELAYED') ?? 0)) : '–';
}

function Tile(props: { app: string; status: string[]; label: string; value: string }) {
  return (
    <Link
      to="/apps/$app/workflows"
      params={{ app: props.app }}
      search={{ status: props.status }}
      className={s.tile}
    >
      <span className="soft">{props.label}</span>
      <span className={`${s.figure} num`}>{props.value}</span>
    </Link>
  );
}

function Legend() {
  return (
    <div className={s.legend}>
      <span>
        <Dot tone="ok" /> Succeeded
      </span>
      <span>
        <Dot tone="run" /> In progress
      </span>
      <span>
        <Dot tone="err" /> Failed
      </span>
      <span>
        <Dot tone="off" /> Cancelled
      </span>
    </div>
  );
}
