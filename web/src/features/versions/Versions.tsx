import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { queryClient } from '~/api/client';
import { useMay } from '~/api/may';
import { act, read } from '~/api/queries';
import { Button, buttonLook } from '~/ui/controls';
import { Age, Badge, Dot, Id, Page, Panel, Table } from '~/ui/data';
import { count } from '~/ui/format';
import { usePushed, useRenewal } from '~/ui/live';
import { ActionDialog } from '~/ui/overlay';
import { Empty, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { type VersionRow, verdict, versionRows } from './versions';

/** What each version still holds, and what is safe to scale down. */
export function Versions({ app }: { app: string }) {
  const deployments = useQuery({ ...read.deployments(app), ...useRenewal(3_000) });
  const versions = useQuery({ ...read.versions(app), ...usePushed(app, 10_000) });
  const [latest, setLatest] = useState<string | null>(null);
  const rows = useMemo(
    () => versionRows(deployments.data ?? [], versions.data ?? []),
    [deployments.data, versions.data],
  );
  return (
    <Page title="Versions">
      <Panel flush>
        <Loaded query={deployments}>
          {() =>
            rows.length === 0 ? (
              <Empty title="No version yet">The first executor that starts registers its version.</Empty>
            ) : (
              <VersionTable app={app} rows={rows} onLatest={setLatest} />
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
          for (const { queryKey } of [read.versions(app), read.deployments(app)])
            void queryClient.invalidateQueries({ queryKey });
        }}
      />
    </Page>
  );
}

function VersionTable(props: { app: string; rows: VersionRow[]; onLatest: (version: string) => void }) {
  return (
    <Table
      label="Versions"
      head={
        <>
          <th>Version</th>
          <th>State</th>
          <th data-num>Executors</th>
          <th data-num>Running</th>
          <th data-num>Waiting</th>
          <th data-num>Stranded</th>
          <th>Oldest active</th>
          <th>
            <span className="visually-hidden">Actions</span>
          </th>
        </>
      }
    >
      {props.rows.map((row) => (
        <Row key={row.appVersion} {...props} row={row} />
      ))}
    </Table>
  );
}

function Row({ app, row, onLatest }: { app: string; row: VersionRow; onLatest: (version: string) => void }) {
  const mayWrite = useMay()('application.write');
  const state = verdict(row);
  const lost = row.executors.disconnected + row.executors.dead;
  return (
    <tr>
      <td style={{ maxWidth: 240 }}>
        <div className="row">
          <Id value={row.appVersion} label="version" />
          {row.isLatest && <Badge tone="ok">latest</Badge>}
        </div>
      </td>
      <td>
        <div style={{ padding: '3px 0', minWidth: 210 }}>
          <Badge tone={state.tone}>{state.label}</Badge>
          <div className="muted" style={{ marginTop: 3 }}>
            {state.detail}
          </div>
        </div>
      </td>
      <td data-num>
        <span className="row" style={{ justifyContent: 'flex-end', gap: 5 }}>
          <Dot tone={row.executors.healthy > 0 ? 'ok' : 'off'} hollow={row.executors.healthy === 0} />
          {row.executors.healthy}
          {lost > 0 && (
            <span
              style={{ color: 'var(--err)' }}
              title={`${row.executors.disconnected} disconnected, ${row.executors.dead} dead`}
            >
              −{lost}
            </span>
          )}
        </span>
      </td>
      <Figure value={row.workflows.pending} />
      <Figure
        value={row.workflows.enqueued + row.workflows.delayed}
        title={`${count(row.workflows.enqueued)} on a queue, ${count(row.workflows.delayed)} delayed`}
      />
      <td data-num>
        {row.stranded > 0 ? (
          <Link to="/apps/$app/recovery" params={{ app }}>
            <Badge tone="warn">{count(row.stranded)}</Badge>
          </Link>
        ) : (
          <span className="muted">0</span>
        )}
      </td>
      <td>
        <Age time={row.oldestActiveAt} />
      </td>
      <td data-actions>
        <Link
          to="/apps/$app/workflows"
          params={{ app }}
          search={{ version: [row.appVersion] }}
          {...buttonLook('quiet', true)}
        >
          Workflows
        </Link>
        {!row.isLatest && row.registeredAt && mayWrite && (
          <Button small kind="quiet" onClick={() => onLatest(row.appVersion)}>
            Make latest
          </Button>
        )}
      </td>
    </tr>
  );
}

function Figure({ value, title }: { value: number; title?: string }) {
  return (
    <td data-num title={title}>
      {value === 0 ? <span className="muted">0</span> : count(value)}
    </td>
  );
}
