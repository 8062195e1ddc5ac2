import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { queryClient } from '~/api/client';
import { act, read } from '~/api/queries';
import { Button } from '~/ui/controls';
import { Age, Badge, Dot, Id, Page, Panel, Table } from '~/ui/data';
import { count } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { ActionDialog, notify } from '~/ui/overlay';
import { Empty, Loaded } from '~/ui/states';
import { type VersionRow, verdict, versionRows } from './versions';

/** What each version still holds, and what is safe to scale down. */
export function Versions({ app }: { app: string }) {
  const versions = useQuery({ ...read.versions(app), ...useRenewal(5_000) });
  const executors = useQuery({ ...read.executors(app), ...useRenewal(3_000) });
  const active = useQuery({
    ...read.aggregates(app, {
      groupByAppVersion: true,
      groupByStatus: true,
      selectCount: true,
      selectMinCreatedAt: true,
      status: ['PENDING', 'ENQUEUED', 'DELAYED'],
    }),
    ...useRenewal(5_000),
  });
  const [latest, setLatest] = useState<string | null>(null);
  const rows = useMemo(
    () => versionRows(versions.data ?? [], executors.data ?? [], active.data ?? []),
    [versions.data, executors.data, active.data],
  );
  return (
    <Page title="Versions">
      <Panel flush>
        <Loaded query={versions}>
          {() =>
            rows.length === 0 ? (
              <Empty title="No version yet">The first executor that starts registers its version.</Empty>
            ) : (
              <VersionTable app={app} rows={rows} counted={active.data !== undefined} onLatest={setLatest} />
            )
          }
        </Loaded>
      </Panel>
      <ActionDialog
        open={latest !== null}
        onClose={() => setLatest(null)}
        title="Make this the latest version"
        description={`New scheduled and resumed workflows, and those enqueued without a version, go to ${latest ?? ''}. Workflows that have begun stay with theirs.`}
        verb="Make it the latest"
        action={() => act.setLatestVersion(app, latest ?? '')}
        onDone={() => {
          notify({ title: 'Latest version set', text: latest ?? '' });
          void queryClient.invalidateQueries({ queryKey: read.versions(app).queryKey });
        }}
      />
    </Page>
  );
}

function VersionTable(props: {
  app: string;
  rows: VersionRow[];
  counted: boolean;
  onLatest: (version: string) => void;
}) {
  const { app } = props;
  const figure = (value: number) =>
    props.counted ? (
      value === 0 ? (
        <span className="muted">0</span>
      ) : (
        count(value)
      )
    ) : (
      <span className="muted">–</span>
    );
  return (
    <Table
      label="Versions"
      head={
        <>
          <th>Version</th>
          <th>State</th>
          <th data-num>Executors</th>
          <th data-num>Pending</th>
          <th data-num>Enqueued</th>
          <th data-num>Delayed</th>
          <th>Oldest active</th>
          <th>
            <span className="visually-hidden">Actions</span>
          </th>
        </>
      }
    >
      {props.rows.map((row) => {
        const state = verdict(row);
        return (
          <tr key={row.name}>
            <td style={{ maxWidth: 240 }}>
              <div className="row">
                <Id value={row.name} label="version" />
                {row.latest && <Badge tone="ok">latest</Badge>}
              </div>
            </td>
            <td>
              {props.counted ? (
                <div style={{ padding: '3px 0', minWidth: 270 }}>
                  <Badge tone={state.tone}>{state.label}</Badge>
                  <div className="muted" style={{ marginTop: 3 }}>
                    {state.detail}
                  </div>
                </div>
              ) : (
                <span className="muted">unknown</span>
              )}
            </td>
            <td data-num>
              <span className="row" style={{ justifyContent: 'flex-end', gap: 5 }}>
                <Dot tone={row.healthy > 0 ? 'ok' : 'off'} hollow={row.healthy === 0} />
                {row.healthy}
                {row.lost > 0 && <span style={{ color: 'var(--err)' }}>−{row.lost}</span>}
              </span>
            </td>
            <td data-num>{figure(row.pending)}</td>
            <td data-num>{figure(row.enqueued)}</td>
            <td data-num>{figure(row.delayed)}</td>
            <td>
              <Age time={row.oldest} />
            </td>
            <td data-actions>
              <Link
                className="link"
                to="/apps/$app/workflows"
                params={{ app }}
                search={{ version: [row.name] }}
                style={{ marginRight: 8 }}
              >
                Workflows
              </Link>
              {!row.latest && row.registeredAt && (
                <Button small onClick={() => props.onLatest(row.name)}>
                  Make latest
                </Button>
              )}
            </td>
          </tr>
        );
      })}
    </Table>
  );
}
