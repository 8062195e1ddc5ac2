import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { useMay } from '~/api/may';
import { act, type Executor, type Recovery, read } from '~/api/queries';
import { Button, buttonLook, Field, TextArea } from '~/ui/controls';
import { Age, Badge, Foreign, Id, StatusBadge } from '~/ui/data';
import { count, plural } from '~/ui/format';
import { ActionDialog } from '~/ui/overlay';
import { Select } from '~/ui/Select';
import { Banner, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { OperationDialog } from '../operations/OperationDialog';
import s from './Recovery.module.css';
import { RecoveryDetail } from './RecoveryTable';
import { reasonText } from './recovery';

const PREVIEW = 50;

/** Work that nobody can take: why, and the ways out, each previewed before it is done. */
export function StrandedCard({ app, recovery }: { app: string; recovery: Recovery }) {
  const [dialog, setDialog] = useState<'assign' | 'abandon' | 'cancel' | null>(null);
  const [detail, setDetail] = useState(false);
  const mayWrite = useMay()('application.write');
  const executors = useQuery(read.executors(app));
  const versions = liveVersions(executors.data ?? []).filter((version) => version !== recovery.appVersion);
  const filter = { status: ['PENDING'], executor: [recovery.executorId], version: [recovery.appVersion] };
  return (
    <article className={s.card} aria-label={`Stranded: ${recovery.executorId}`}>
      <div className={s.cardHead}>
        <Badge tone="warn">Stranded</Badge>
        <h2>
          {recovery.pendingWorkflows === null
            ? 'An unknown number of workflows'
            : plural(recovery.pendingWorkflows, 'workflow')}
        </h2>
        <span className="soft">of executor</span>
        <Id value={recovery.executorId} label="executor id" />
        <span className="soft">version</span>
        <Id value={recovery.appVersion} label="version" />
        <span className="grow" />
        <span className="soft">
          lost <Age time={recovery.disconnectedAt} />
        </span>
      </div>
      <p>{reasonText(recovery)}</p>
      <div className={s.ways}>
        <div className={s.way}>
          <h3>Bring the version back</h3>
          <p>
            Start an executor of version <bdi className="mono">{recovery.appVersion}</bdi>. It takes the work
            the moment it connects; nothing else is to be done.
          </p>
          <div>
            <Link to="/apps/$app/workflows" params={{ app }} search={filter} {...buttonLook()}>
              Show the workflows
            </Link>
          </div>
        </div>
        <div className={s.way}>
          <h3>Go on with another version</h3>
          <p>
            Executors of the version you choose continue the work from its last checkpoints. Safe only if the
            workflows’ code did not change in its steps.
          </p>
          <div>
            <Button disabled={versions.length === 0 || !mayWrite} onClick={() => setDialog('assign')}>
              Assign to a version…
            </Button>
            {versions.length === 0 && <span className="muted"> no other version is connected</span>}
          </div>
        </div>
        <div className={s.way}>
          <h3>Give it up</h3>
          <p>
            Nobody wants this work any more. Cancel the workflows, or leave them pending and have them offered
            to nobody again.
          </p>
          <div className="row wrap">
            <Button disabled={!mayWrite} onClick={() => setDialog('cancel')}>
              Cancel them…
            </Button>
            <Button kind="danger" disabled={!mayWrite} onClick={() => setDialog('abandon')}>
              Abandon…
            </Button>
          </div>
        </div>
      </div>
      <div>
        <Button kind="quiet" small aria-expanded={detail} onClick={() => setDetail(!detail)}>
          {detail ? 'Hide what was tried' : 'What was tried'}
        </Button>
        {detail && <RecoveryDetail recovery={recovery} />}
      </div>
      {dialog === 'cancel' && (
        <OperationDialog
          app={app}
          kind="cancel"
          target={{
            filter: {
              status: filter.status,
              executorId: [recovery.executorId],
              appVersion: [recovery.appVersion],
            },
          }}
          onClose={() => setDialog(null)}
          onDone={() => renew(app)}
        />
      )}
      <AssignDialog
        app={app}
        recovery={recovery}
        versions={versions}
        executors={executors.data ?? []}
        open={dialog === 'assign'}
        onClose={() => setDialog(null)}
      />
      <AbandonDialog
        app={app}
        recovery={recovery}
        open={dialog === 'abandon'}
        onClose={() => setDialog(null)}
      />
    </article>
  );
}

function liveVersions(executors: Executor[]): string[] {
  return [...new Set(executors.filter((each) => each.status === 'HEALTHY').map((each) => each.appVersion))];
}

function renew(app: string): void {
  const key = read.recoveries(app).queryKey;
  void queryClient.invalidateQueries({ queryKey: [key[0], key[1]] });
}

type DialogProps = { app: string; recovery: Recovery; open: boolean; onClose: () => void };

function AssignDialog(props: DialogProps & { versions: string[]; executors: Executor[] }) {
  const { app, recovery, versions } = props;
  const [chosen, setChosen] = useState('');
  const version = chosen || versions[0] || '';
  const takers = props.executors.filter((each) => each.status === 'HEALTHY' && each.appVersion === version);
  return (
    <ActionDialog
      open={props.open}
      onClose={props.onClose}
      title="Go on with another version"
      description={`Hands what ${recovery.executorId} left behind to executors of the version you choose.`}
      width={560}
      verb="Assign"
      ready={version !== ''}
      action={() => act.assignRecovery(app, recovery.id, version)}
      onDone={() => {
        notify({ title: 'Assigned', text: `Executors of ${version} are being offered the work.` });
        renew(app);
      }}
    >
      <Field label="Version" hint={`${plural(takers.length, 'healthy executor')} of it`}>
        {({ id }) => (
          <Select
            id={id}
            label="Version"
            value={version}
            onChange={setChosen}
            options={versions.map((each) => ({ value: each, label: <span className="mono">{each}</span> }))}
          />
        )}
      </Field>
      <Banner tone="warn">
        Steps that are checkpointed are not run again. If the new code has other steps, or the same ones in
        another order, a workflow fails where they differ.
      </Banner>
      {props.open && <PendingPreview app={app} recovery={recovery} />}
    </ActionDialog>
  );
}

function AbandonDialog(props: DialogProps) {
  const { app, recovery } = props;
  const [reason, setReason] = useState('');
  return (
    <ActionDialog
      open={props.open}
      onClose={props.onClose}
      title="Give up this work"
      description="The workflows stay pending in the application’s database and are not offered to anybody again."
      width={560}
      verb="Abandon"
      danger
      ready={reason.trim() !== ''}
      action={() => act.abandonRecovery(app, recovery.id, reason.trim())}
      onDone={() => {
        notify({ title: 'Abandoned', text: `What ${recovery.executorId} left behind is no longer offered.` });
        renew(app);
      }}
    >
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
      {props.open && <PendingPreview app={app} recovery={recovery} />}
    </ActionDialog>
  );
}

/** The workflows an action is about, as far as anybody can be asked. */
function PendingPreview({ app, recovery }: { app: string; recovery: Recovery }) {
  const query = useQuery(
    read.search(app, {
      executorId: [recovery.executorId],
      appVersion: [recovery.appVersion],
      status: ['PENDING'],
      limit: PREVIEW,
    }),
  );
  return (
    <Loaded
      query={query}
      rows={2}
      failed={() => <p className="muted">Nobody is connected who could list the workflows.</p>}
    >
      {(list) =>
        list.length === 0 ? (
          <p className="muted">None of its workflows is pending any more.</p>
        ) : (
          <div className="stack" style={{ gap: 6 }}>
            <h3>
              {list.length === PREVIEW
                ? `The first ${count(PREVIEW)} workflows`
                : plural(list.length, 'workflow')}{' '}
              it is about
            </h3>
            <ul className={s.preview}>
              {list.map((workflow) => (
                <li key={workflow.workflowId}>
                  <StatusBadge status={workflow.status} />
                  <Foreign text={workflow.workflowName ?? 'unnamed'} />
                  <span className="grow" />
                  <Id value={workflow.workflowId} />
                </li>
              ))}
            </ul>
          </div>
        )
      }
    </Loaded>
  );
}
