import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { useMay } from '~/api/may';
import { act, type Executor, read } from '~/api/queries';
import { Button, buttonLook, Field, TextArea } from '~/ui/controls';
import { Age, Badge, Code, Facts, Id, Page, Panel, Table } from '~/ui/data';
import { count } from '~/ui/format';
import { usePushed, useRenewal } from '~/ui/live';
import { ActionDialog, Dialog } from '~/ui/overlay';
import { Banner, Empty, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { unresponsiveSince } from '../fleet/health';
import { RecoveryTable } from '../recovery/RecoveryTable';

/** The processes of an application, and the history of each. */
export function Executors({ app }: { app: string }) {
  const executors = useQuery({ ...read.executors(app), ...usePushed(app, 2_000) });
  const pending = useQuery({
    ...read.aggregates(app, {
      groupByExecutorId: true,
      groupByAppVersion: true,
      selectCount: true,
      status: ['PENDING'],
    }),
    ...useRenewal(3_000),
  });
  const running = pending.data
    ? new Map(
        pending.data.map((row) => [
          `${row.group.executor_id} ${row.group.application_version}`,
          row.count ?? 0,
        ]),
      )
    : null;
  const [chosen, setChosen] = useState<Executor | null>(null);
  const [evicting, setEvicting] = useState<Executor | null>(null);
  return (
    <Page
      title="Executors"
      actions={
        <Link to="/apps/$app/connect" params={{ app }} {...buttonLook()}>
          Connect another
        </Link>
      }
    >
      <Panel flush>
        <Loaded query={executors}>
          {(list) =>
            list.length === 0 ? (
              <Empty
                title="No executor is known"
                actions={
                  <Link to="/apps/$app/connect" params={{ app }} {...buttonLook('primary')}>
                    Connect one
                  </Link>
                }
              >
                Lost executors are forgotten once their work is settled; what happened to it stays under
                Recovery.
              </Empty>
            ) : (
              <ExecutorTable
                app={app}
                executors={list}
                running={running}
                onOpen={setChosen}
                onEvict={setEvicting}
              />
            )
          }
        </Loaded>
      </Panel>
      {evicting && <EvictDialog app={app} executor={evicting} onClose={() => setEvicting(null)} />}
      {chosen && <ExecutorDialog app={app} executor={chosen} onClose={() => setChosen(null)} />}
    </Page>
  );
}

function ExecutorTable(props: {
  app: string;
  executors: Executor[];
  /** Pending workflows by executor and version; null while nobody could be asked. */
  running: ReadonlyMap<string, number> | null;
  onOpen: (executor: Executor) => void;
  onEvict: (executor: Executor) => void;
}) {
  const mayWrite = useMay()('application.write');
  const sorted = [...props.executors].sort(
    (a, b) => a.appVersion.localeCompare(b.appVersion) || a.executorId.localeCompare(b.executorId),
  );
  return (
    <Table
      label="Executors"
      head={
        <>
          <th>Executor</th>
          <th>Status</th>
          <th data-num>Runs</th>
          <th>Version</th>
          <th>Host</th>
          <th>SDK</th>
          <th>First seen</th>
          <th>Last change</th>
          <th>
            <span className="visually-hidden">Actions</span>
          </th>
        </>
      }
    >
      {sorted.map((executor) => (
        <tr key={`${executor.executorId} ${executor.appVersion}`}>
          <td style={{ maxWidth: 260 }}>
            <Id value={executor.executorId} label="executor id" />
          </td>
          <td>
            <ExecutorStatus executor={executor} />
          </td>
          <td data-num>
            <Link
              to="/apps/$app/workflows"
              params={{ app: props.app }}
              search={{
                executor: [executor.executorId],
                version: [executor.appVersion],
                status: ['PENDING'],
              }}
              className="link"
            >
              {props.running === null
                ? '–'
                : count(props.running.get(`${executor.executorId} ${executor.appVersion}`) ?? 0)}
            </Link>
          </td>
          <td style={{ maxWidth: 180 }}>
            <Id value={executor.appVersion} label="version" />
          </td>
          <td>
            <bdi>{executor.hostname ?? '–'}</bdi>
          </td>
          <td className="soft">
            {executor.language ?? 'unknown'} {executor.dbosVersion ?? ''}
          </td>
          <td>
            <Age time={executor.createdAt} />
          </td>
          <td>
            <Age time={executor.updatedAt} />
          </td>
          <td data-actions>
            <Button kind="quiet" small onClick={() => props.onOpen(executor)}>
              Details
            </Button>
            {executor.status !== 'DEAD' && mayWrite && (
              <Button kind="danger" small onClick={() => props.onEvict(executor)}>
                Evict
              </Button>
            )}
          </td>
        </tr>
      ))}
    </Table>
  );
}

export function ExecutorStatus({ executor }: { executor: Executor }) {
  if (executor.status === 'HEALTHY' && unresponsiveSince(executor))
    return <Badge tone="warn">Unresponsive</Badge>;
  switch (executor.status) {
    case 'HEALTHY':
      return <Badge tone="ok">Healthy</Badge>;
    case 'DISCONNECTED':
      return <Badge tone="warn">Disconnected</Badge>;
    case 'DEAD':
      return <Badge tone="err">Dead</Badge>;
  }
}

function ExecutorDialog({
  app,
  executor,
  onClose,
}: {
  app: string;
  executor: Executor;
  onClose: () => void;
}) {
  const history = useQuery(read.recoveries(app, { executorId: executor.executorId, limit: 20 }));
  const metadata = executor.executorMetadata;
  return (
    <Dialog
      open
      onClose={onClose}
      title={executor.executorId}
      width={900}
      foot={<Button onClick={onClose}>Close</Button>}
    >
      <Facts
        facts={[
          ['Status', <ExecutorStatus key="status" executor={executor} />],
          ['Version', <Id key="version" value={executor.appVersion} />],
          ['Host', executor.hostname && <bdi>{executor.hostname}</bdi>],
          ['SDK', `${executor.language ?? 'unknown'} ${executor.dbosVersion ?? ''}`],
          ['First seen', <Age key="first" time={executor.createdAt} />],
          ['Unresponsive', unresponsiveSince(executor) && <Age time={unresponsiveSince(executor)} />],
        ]}
      />
      {metadata && Object.keys(metadata).length > 0 && (
        <div className="stack" style={{ gap: 6 }}>
          <h3>Metadata</h3>
          <Code text={JSON.stringify(metadata, null, 2)} label="metadata" />
        </div>
      )}
      <div className="stack" style={{ gap: 6 }}>
        <h3>Times it was lost</h3>
        <Loaded query={history} rows={2}>
          {(list) => <RecoveryTable app={app} recoveries={list} quiet />}
        </Loaded>
      </div>
    </Dialog>
  );
}

function EvictDialog({ app, executor, onClose }: { app: string; executor: Executor; onClose: () => void }) {
  const [reason, setReason] = useState('');
  return (
    <ActionDialog
      open
      onClose={onClose}
      title={`Evict ${executor.executorId}`}
      description="Your word that this process is gone or wedged: it counts as dead at once, its connection is closed and refused for an hour, and its work is handed on."
      verb="Evict"
      danger
      ready={reason.trim() !== ''}
      action={() => act.evict(app, executor.executorId, reason.trim())}
      onDone={() => {
        notify({ title: 'Evicted', text: `The work of ${executor.executorId} is being handed on.` });
        void queryClient.invalidateQueries({ queryKey: read.executors(app).queryKey });
      }}
    >
      {executor.status === 'HEALTHY' && (
        <Banner tone="warn">
          It is connected. If the process lives, a step that it runs just now is run again elsewhere: its
          effect may happen twice.
        </Banner>
      )}
      <Field label="Reason" hint="Kept in the audit log.">
        {(control) => (
          <TextArea
            {...control}
            rows={2}
            value={reason}
            onChange={(event) => setReason(event.target.value)}
          />
        )}
      </Field>
    </ActionDialog>
  );
}
