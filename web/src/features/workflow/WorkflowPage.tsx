import { Tabs } from '@base-ui/react/tabs';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { lazy, Suspense, useMemo, useState } from 'react';
import { useMay } from '~/api/may';
import { read, type Workflow } from '~/api/queries';
import { controlStyles } from '~/ui/controls';
import { Age, Facts, Foreign, Id, Moment, Page, Panel, StatusBadge, Took } from '~/ui/data';
import { duration } from '~/ui/format';
import { usePushed } from '~/ui/live';
import { Failed, Loaded, Loading } from '~/ui/states';
import { ValueView } from '~/ui/value/ValueView';
import { type Action, WorkflowActions } from './Actions';
import { Exchange } from './Exchange';
import { Standing } from './Standing';
import { StepPanel } from './StepPanel';
import { Timeline } from './Timeline';
import { doingNow, type Known, type Row, timelineRows } from './timeline';
import { useExplanation, useWorkflow } from './useWorkflow';
import { TABS, type Tab, type View } from './view';
import s from './Workflow.module.css';

// The graph library is only for those who look at the graph.
const Lineage = lazy(() => import('./Lineage').then((module) => ({ default: module.Lineage })));

const TAB_LABELS: Record<Tab, string> = {
  timeline: 'Timeline',
  values: 'Input and output',
  exchange: 'Events and messages',
  graph: 'Children and forks',
  raw: 'All fields',
};

/** One workflow: what happened to it, where it is, and what can be done about it. */
export function WorkflowPage(props: { app: string; id: string; view: View; onView: (view: View) => void }) {
  const { app, id } = props;
  const parts = useWorkflow(app, id);
  return (
    <Loaded
      query={parts.query}
      failed={(problem) => (
        <Page title="Workflow">
          <Panel>
            <Failed problem={problem} />
            {problem.kind === 'missing' && (
              <p className="muted" style={{ textAlign: 'center' }}>
                <bdi className="mono">{id}</bdi>
              </p>
            )}
          </Panel>
        </Page>
      )}
    >
      {(workflow) => <Content {...props} parts={parts} workflow={workflow} />}
    </Loaded>
  );
}

function Content(props: {
  app: string;
  view: View;
  onView: (view: View) => void;
  parts: ReturnType<typeof useWorkflow>;
  workflow: Workflow;
}) {
  const { app, workflow, parts, view, onView } = props;
  const { steps, complete, problem } = parts.steps;
  const [action, setAction] = useState<Action | null>(null);
  const mayWrite = useMay()('application.write');
  const recoveries = useQuery({ ...read.recoveries(app, { limit: 100 }), ...usePushed(app, 3_000) });
  const explanation = useExplanation(app, workflow, steps.length);
  const doing = useMemo(() => (explanation.data ? doingNow(explanation.data) : null), [explanation.data]);
  const known = useMemo(() => ({ workflow, steps, doing }), [workflow, steps, doing]);
  const tab = view.tab ?? 'timeline';
  const id = workflow.workflowId;
  return (
    <Page
      title={
        <span className={s.headName}>
          <Foreign text={workflow.workflowName ?? 'unnamed'} />
          <StatusBadge status={workflow.status} />
        </span>
      }
      actions={
        <WorkflowActions app={app} workflow={workflow} steps={steps} action={action} onAction={setAction} />
      }
    >
      <div className={s.headId}>
        <Id value={id} label="workflow id" />
        {workflow.parentWorkflowId && <Relation app={app} label="child of" id={workflow.parentWorkflowId} />}
        {workflow.forkedFrom && (
          <>
            <Relation app={app} label="forked from" id={workflow.forkedFrom} />
            <Link
              className="link"
              to="/apps/$app/compare"
              params={{ app }}
              search={{ left: workflow.forkedFrom, right: id }}
            >
              Compare
            </Link>
          </>
        )}
      </div>
      <Standing app={app} workflow={workflow} steps={steps} explanation={explanation} onAction={setAction} />
      <WorkflowFacts app={app} workflow={workflow} />
      <Tabs.Root
        value={tab}
        onValueChange={(value) => onView(value === 'timeline' ? {} : { tab: value as Tab })}
        className="stack"
      >
        <Tabs.List className={controlStyles.tabs} aria-label="Views of the workflow">
          {TABS.map((each) => (
            <Tabs.Tab key={each} value={each} className={controlStyles.tab}>
              {TAB_LABELS[each]}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <Tabs.Panel value="timeline">
          {problem && steps.length === 0 ? (
            <Panel>
              <Failed problem={problem} />
            </Panel>
          ) : (
            <TimelineTab
              {...props}
              known={known}
              complete={complete}
              recoveries={recoveries.data ?? []}
              onFork={mayWrite ? (step) => setAction({ kind: 'fork', step }) : null}
            />
          )}
        </Tabs.Panel>
        <Tabs.Panel value="values">
          <div className={s.two}>
            <ValueView title="Input" text={workflow.input} file={`${id}-input.json`} />
            {workflow.error ? (
              <ValueView title="Error" text={workflow.error} file={`${id}-error.txt`} />
            ) : (
              <ValueView title="Output" text={workflow.output} file={`${id}-output.json`} />
            )}
          </div>
        </Tabs.Panel>
        <Tabs.Panel value="exchange">
          <Exchange app={app} id={id} active={parts.active} />
        </Tabs.Panel>
        <Tabs.Panel value="graph">
          <Suspense fallback={<Loading rows={3} />}>
            <Lineage app={app} workflow={workflow} forks={parts.forks} below={parts.children} />
          </Suspense>
        </Tabs.Panel>
        <Tabs.Panel value="raw">
          <AllFields workflow={workflow} />
        </Tabs.Panel>
      </Tabs.Root>
    </Page>
  );
}

function Relation({ app, label, id }: { app: string; label: string; id: string }) {
  return (
    <span className="row" style={{ gap: 5 }}>
      {label}
      <Link
        to="/apps/$app/workflows/$id"
        params={{ app, id }}
        className="link mono clip"
        style={{ maxWidth: 280 }}
      >
        <bdi>{id}</bdi>
      </Link>
    </span>
  );
}

function WorkflowFacts({ app, workflow }: { app: string; workflow: Workflow }) {
  const active =
    workflow.completedAt === null && (workflow.status === 'PENDING' || workflow.status === 'ENQUEUED');
  return (
    <Facts
      facts={[
        ['Version', workflow.appVersion && <Id value={workflow.appVersion} label="version" />],
        [
          'Executor',
          workflow.executorId && (
            <Id value={workflow.executorId} label="executor id">
              <Link to="/apps/$app/workflows" params={{ app }} search={{ executor: [workflow.executorId] }}>
                {workflow.executorId}
              </Link>
            </Id>
          ),
        ],
        ['Created', <Age key="created" time={workflow.createdAt} />],
        [
          'Took',
          <Took
            key="took"
            start={workflow.dequeuedAt ?? workflow.createdAt}
            end={active ? null : (workflow.completedAt ?? workflow.updatedAt)}
          />,
        ],
        ['Queue', workflow.queueName && <Foreign text={workflow.queueName} />],
        [
          'Waited',
          workflow.dequeuedAt && workflow.queueName && (
            <Took start={workflow.createdAt} end={workflow.dequeuedAt} />
          ),
        ],
        ['Partition', workflow.queuePartitionKey && <bdi>{workflow.queuePartitionKey}</bdi>],
        ['Priority', workflow.priority !== 0 && workflow.priority],
        ['User', workflow.user && <Foreign text={workflow.user} />],
        ['Schedule', workflow.scheduleName && <Foreign text={workflow.scheduleName} />],
        ['Deduplication id', workflow.deduplicationId && <Id value={workflow.deduplicationId} />],
        ['Timeout', workflow.timeoutMs !== null && duration(workflow.timeoutMs)],
        ['Deadline', workflow.deadline && <Moment time={workflow.deadline} />],
        ['Delayed until', workflow.delayUntil && <Moment time={workflow.delayUntil} />],
      ]}
    />
  );
}

function TimelineTab(props: {
  app: string;
  view: View;
  onView: (view: View) => void;
  parts: ReturnType<typeof useWorkflow>;
  known: Known;
  complete: boolean;
  recoveries: Parameters<typeof Timeline>[0]['recoveries'];
  onFork: ((step: number) => void) | null;
}) {
  const { app, view, onView, known, parts } = props;
  const [child, setChild] = useState<Row | null>(null);
  const rows = useMemo(
    () => timelineRows(known, new Map(parts.children.map((each) => [each.workflowId, each])), new Map()),
    [known, parts.children],
  );
  // A row of a child opened in place is known only here; the own rows are found again by the address.
  const chosen = rows.find((row) => row.key === view.step) ?? (child?.key === view.step ? child : null);
  return (
    <div className={s.timeline} data-open={chosen !== null || undefined}>
      <Timeline
        app={app}
        known={known}
        complete={props.complete}
        below={parts.children}
        recoveries={props.recoveries}
        chosen={view.step}
        onChoose={(row) => {
          setChild(row);
          onView(row ? { step: row.key } : {});
        }}
      />
      {chosen && (
        <StepPanel key={chosen.key} app={app} row={chosen} onClose={() => onView({})} onFork={props.onFork} />
      )}
    </div>
  );
}

function AllFields({ workflow }: { workflow: Workflow }) {
  const { input, output, error, ...rest } = workflow;
  return (
    <div className="stack">
      {workflow.attributes && (
        <ValueView
          title="Attributes"
          text={workflow.attributes}
          file={`${workflow.workflowId}-attributes.json`}
        />
      )}
      <ValueView title="Workflow" text={JSON.stringify(rest)} file={`${workflow.workflowId}.json`} />
      <p className="muted">
        Without its input, output and error, which have their own view
        {[input, output, error].every((each) => each === null) ? ' (none was returned)' : ''}.
      </p>
    </div>
  );
}
