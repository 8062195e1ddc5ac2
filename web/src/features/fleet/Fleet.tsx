import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { Plus, TriangleAlert } from 'lucide-react';
import { lazy, Suspense } from 'react';
import { type App, read } from '~/api/queries';
import { BarChart } from '~/ui/Chart';
import { buttonLook } from '~/ui/controls';
import { Badge, Chip, Dot, Page, Panel, Table } from '~/ui/data';
import { count } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { May } from '~/ui/May';
import { Banner, Loaded } from '~/ui/states';
import s from './Fleet.module.css';
import { byVersion } from './health';
import { useActiveCounts, useHealth, useOutcomes } from './useApp';

const Welcome = lazy(() => import('../connect/Welcome').then((module) => ({ default: module.Welcome })));

/** Every application, how it is, and what needs a person. */
export function Fleet() {
  const apps = useQuery({ ...read.apps(), ...useRenewal(5_000) });
  return (
    <Loaded query={apps}>
      {(list) =>
        list.length === 0 ? (
          <Suspense>
            <Welcome />
          </Suspense>
        ) : (
          <Page
            title="Fleet"
            actions={
              <May permission="application.write">
                <Link to="/new" {...buttonLook()}>
                  <Plus /> Register an application
                </Link>
              </May>
            }
          >
            <div className={s.attention}>
              {list.map((app) => (
                <Attention key={app.id} app={app} />
              ))}
            </div>
            <Panel flush>
              <Table
                label="Applications"
                head={
                  <>
                    <th>Application</th>
                    <th>Health</th>
                    <th className={s.wide}>Executors by version</th>
                    <th data-num>Pending</th>
                    <th data-num className={s.wide}>
                      Enqueued
                    </th>
                    <th data-num>Stranded</th>
                    <th className={`${s.spark} ${s.wide}`}>Started in the last hour</th>
                  </>
                }
              >
                {list.map((app) => (
                  <AppRow key={app.id} app={app} />
                ))}
              </Table>
            </Panel>
          </Page>
        )
      }
    </Loaded>
  );
}

function Attention({ app }: { app: App }) {
  const { health } = useHealth(app);
  if (!health?.detail) return null;
  return (
    <Banner tone={health.tone} icon={<TriangleAlert />}>
      <Link to="/apps/$app/recovery" params={{ app: app.name }}>
        <strong>{app.name}</strong>: {health.detail}.{' '}
        <span style={{ textDecoration: 'underline', textUnderlineOffset: 3 }}>What can be done</span>
      </Link>
    </Banner>
  );
}

function AppRow({ app }: { app: App }) {
  const { health, executors, stranded } = useHealth(app);
  const connected = app.status === 'AVAILABLE';
  const counts = useActiveCounts(app.name, connected);
  const outcomes = useOutcomes(app.name, connected, 60, 60_000);
  const strandedWork = (stranded.data ?? []).reduce((sum, each) => sum + (each.pendingWorkflows ?? 0), 0);
  return (
    <tr className={s.row}>
      <td>
        <div className={s.name}>
          <Dot tone={health?.tone ?? 'off'} pulse={health?.tone === 'ok'} />
          <Link to="/apps/$app" params={{ app: app.name }}>
            {app.name}
          </Link>
          {app.language && <span className="muted">{app.language}</span>}
        </div>
      </td>
      <td>{health && <Badge tone={health.tone}>{health.label}</Badge>}</td>
      <td>
        <VersionChips app={app.name} executors={executors.data ?? []} />
      </td>
      <Figure value={counts ? (counts.get('PENDING') ?? 0) : null} />
      <Figure value={counts ? (counts.get('ENQUEUED') ?? 0) + (counts.get('DELAYED') ?? 0) : null} />
      <Figure value={stranded.data ? strandedWork : null} tone="warn" />
      <td className={s.spark}>
        {outcomes ? (
          <BarChart
            spark
            height={30}
            label={`${count(outcomes.total)} started in the last hour, ${count(outcomes.failed)} failed`}
            times={outcomes.times}
            series={outcomes.series}
          />
        ) : (
          <span className="muted">–</span>
        )}
      </td>
    </tr>
  );
}

function Figure({ value, tone }: { value: number | null; tone?: 'warn' }) {
  return (
    <td data-num>
      {value === null ? (
        <span className="muted">–</span>
      ) : value > 0 && tone ? (
        <Badge tone={tone}>{count(value)}</Badge>
      ) : (
        <span className={value === 0 ? s.zero : s.big}>{count(value)}</span>
      )}
    </td>
  );
}

export function VersionChips(props: { app: string; executors: Parameters<typeof byVersion>[0] }) {
  const versions = byVersion(props.executors);
  if (versions.length === 0) {
    return (
      <Link to="/apps/$app/connect" params={{ app: props.app }} className="link">
        Connect one
      </Link>
    );
  }
  return (
    <div className={s.chips}>
      {versions.slice(0, 4).map(({ version, healthy, lost }) => (
        <Link key={version} to="/apps/$app/executors" params={{ app: props.app }}>
          <Chip title={`${healthy} healthy, ${lost} lost, version ${version}`}>
            <bdi className="clip mono" style={{ maxWidth: 110 }}>
              {version}
            </bdi>
            <span className="row num" style={{ gap: 4 }}>
              <Dot tone={healthy > 0 ? 'ok' : 'err'} hollow={healthy === 0} />
              {healthy}
              {lost > 0 && <span style={{ color: 'var(--err)' }}>−{lost}</span>}
            </span>
          </Chip>
        </Link>
      ))}
      {versions.length > 4 && <span className="muted">and {versions.length - 4} more</span>}
    </div>
  );
}
