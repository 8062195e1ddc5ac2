import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { read, type Step, type Workflow } from '~/api/queries';
import { Checkbox } from '~/ui/controls';
import { Foreign, Id, isActive, Page, Panel, StatusBadge, Took } from '~/ui/data';
import { plural } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { Empty, Loaded } from '~/ui/states';
import { type Pair, pairSteps } from './diff';
import { type Steps, useLastLook, useSteps } from './useWorkflow';
import s from './Workflow.module.css';

/** Two workflows side by side, above all a fork and its original: where they went different ways. */
export function Compare({
  app,
  left,
  right,
}: {
  app: string;
  left: string | undefined;
  right: string | undefined;
}) {
  if (!left || !right) return <Empty title="Two workflows are needed">Open a fork and choose Compare.</Empty>;
  return <Both app={app} left={left} right={right} />;
}

function Both({ app, left, right }: { app: string; left: string; right: string }) {
  const renewal = useRenewal(2_000);
  const a = useQuery({ ...read.workflow(app, left), ...renewal });
  const b = useQuery({ ...read.workflow(app, right), ...renewal });
  const aSteps = useSide(app, left, a.data);
  const bSteps = useSide(app, right, b.data);
  const [all, setAll] = useState(true);
  const pairs = useMemo(() => pairSteps(aSteps.steps, bSteps.steps), [aSteps.steps, bSteps.steps]);
  const different = pairs.filter((pair) => pair.change !== 'same');
  const shown = all ? pairs : different;
  return (
    <Page title="Compare">
      <Panel
        flush
        title={
          <span className="soft">
            {different.length === 0
              ? 'No recorded step differs'
              : `${plural(different.length, 'step')} of ${pairs.length} differ`}
          </span>
        }
        actions={
          <Checkbox checked={!all} onChange={(only) => setAll(!only)}>
            Only what differs
          </Checkbox>
        }
      >
        <table className={s.diff}>
          <thead>
            <tr>
              <th style={{ width: 56 }}>Step</th>
              <th>
                <Side app={app} query={a} />
              </th>
              <th>
                <Side app={app} query={b} />
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.slice(0, 2_000).map((pair) => (
              <PairRow key={pair.stepId} pair={pair} />
            ))}
            <tr data-change={outcome(a.data) === outcome(b.data) ? 'same' : 'changed'}>
              <td className="muted">end</td>
              <Outcome workflow={a.data} />
              <Outcome workflow={b.data} />
            </tr>
          </tbody>
        </table>
      </Panel>
    </Page>
  );
}

function useSide(app: string, id: string, workflow: Workflow | undefined): Steps {
  const active = workflow && isActive(workflow.status);
  useLastLook(app, id, active);
  return useSteps(app, id, active);
}

function Side({ app, query }: { app: string; query: { data: Workflow | undefined; error: unknown } }) {
  return (
    <Loaded query={query} rows={1}>
      {(workflow) => (
        <div className="stack" style={{ gap: 4 }}>
          <span className="row">
            <Link to="/apps/$app/workflows/$id" params={{ app, id: workflow.workflowId }} className="link">
              <Foreign text={workflow.workflowName ?? 'unnamed'} />
            </Link>
            <StatusBadge status={workflow.status} />
            <bdi className="mono muted clip">{workflow.appVersion}</bdi>
          </span>
          <Id value={workflow.workflowId} label="workflow id" />
        </div>
      )}
    </Loaded>
  );
}

const CHANGES: Record<Pair['change'], string> = {
  same: 'the same in both',
  changed: 'differs',
  left: 'only on the left',
  right: 'only on the right',
};

function PairRow({ pair }: { pair: Pair }) {
  return (
    <tr data-change={pair.change}>
      <td className="num muted">
        {pair.stepId}
        <span className="visually-hidden"> {CHANGES[pair.change]}</span>
      </td>
      <StepCell step={pair.left} />
      <StepCell step={pair.right} />
    </tr>
  );
}

function StepCell({ step }: { step: Step | null }) {
  if (!step) return <td className="muted">–</td>;
  return (
    <td>
      <span className="row">
        <Foreign text={step.stepName} />
        <span className="muted">
          <Took start={step.startedAt} end={step.completedAt ?? step.startedAt} />
        </span>
      </span>
      <div className={s.value} style={step.error ? { color: 'var(--err)' } : undefined}>
        {(step.error ?? step.output ?? '').slice(0, 1_000)}
      </div>
    </td>
  );
}

function outcome(workflow: Workflow | undefined): string {
  return workflow ? `${workflow.status} ${workflow.output ?? ''} ${workflow.error ?? ''}` : '';
}

function Outcome({ workflow }: { workflow: Workflow | undefined }) {
  if (!workflow) return <td />;
  return (
    <td>
      <StatusBadge status={workflow.status} />
      <div className={s.value}>{(workflow.error ?? workflow.output ?? '').slice(0, 1_000)}</div>
    </td>
  );
}
