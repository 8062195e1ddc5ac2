import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate } from '@tanstack/react-router';
import { Ban, Download, Ellipsis, GitFork, Play, Rewind, Trash2 } from 'lucide-react';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { useMay } from '~/api/may';
import { Problem } from '~/api/problem';
import { act, read, type Step, type Workflow } from '~/api/queries';
import { useHotkeys } from '~/app/hotkeys';
import { Button, Checkbox, Field, Input } from '~/ui/controls';
import { isActive } from '~/ui/data';
import { plural } from '~/ui/format';
import { Menu, type MenuEntry } from '~/ui/Menu';
import { ActionDialog } from '~/ui/overlay';
import { Select } from '~/ui/Select';
import { Banner } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { download } from '~/ui/value/ValueView';

export type Action =
  | { kind: 'cancel' }
  | { kind: 'resume' }
  | { kind: 'delete' }
  | { kind: 'rewind'; step: number }
  | { kind: 'fork'; step: number };

/** What can be done to a workflow in its state; what does nothing there is not offered. */
export function WorkflowActions(props: {
  app: string;
  workflow: Workflow;
  steps: Step[];
  action: Action | null;
  onAction: (action: Action | null) => void;
}) {
  const { workflow, onAction } = props;
  const mayWrite = useMay()('application.write');
  const active = mayWrite && isActive(workflow.status);
  const resumable =
    mayWrite && ['CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED', 'ENQUEUED'].includes(workflow.status);
  useHotkeys({
    c: () => active && onAction({ kind: 'cancel' }),
    r: () => resumable && onAction({ kind: 'resume' }),
    f: () => mayWrite && onAction({ kind: 'fork', step: failedStep(props.steps) }),
    y: () =>
      void navigator.clipboard.writeText(workflow.workflowId).then(() => notify({ title: 'Id copied' })),
  });
  return (
    <>
      {active && (
        <Button onClick={() => onAction({ kind: 'cancel' })}>
          <Ban /> Cancel
        </Button>
      )}
      {resumable && (
        <Button onClick={() => onAction({ kind: 'resume' })}>
          <Play /> Resume
        </Button>
      )}
      {mayWrite && (
        <Button onClick={() => onAction({ kind: 'fork', step: failedStep(props.steps) })}>
          <GitFork /> Fork
        </Button>
      )}
      <Menu
        trigger={
          <Button icon aria-label="More actions">
            <Ellipsis />
          </Button>
        }
        entries={[
          { label: 'Export', icon: <Download />, onSelect: () => void save(props.app, workflow.workflowId) },
          ...(mayWrite
            ? ([
                {
                  label: 'Rewind…',
                  icon: <Rewind />,
                  disabled: active,
                  onSelect: () => onAction({ kind: 'rewind', step: failedStep(props.steps) }),
                },
                'separator',
                {
                  label: 'Delete…',
                  icon: <Trash2 />,
                  danger: true,
                  onSelect: () => onAction({ kind: 'delete' }),
                },
              ] satisfies MenuEntry[])
            : []),
        ]}
      />
      <Dialogs {...props} />
    </>
  );
}

/** The step to begin a fork at: the first that failed, else the first of all. */
function failedStep(steps: Step[]): number {
  return steps.find((step) => step.error)?.stepId ?? steps[0]?.stepId ?? 0;
}

type DialogProps = Parameters<typeof WorkflowActions>[0];

function Dialogs(props: DialogProps) {
  switch (props.action?.kind) {
    case 'cancel':
      return <CancelDialog {...props} />;
    case 'resume':
      return <ResumeDialog {...props} />;
    case 'delete':
      return <DeleteDialog {...props} />;
    case 'rewind':
      return <RewindDialog {...props} from={props.action.step} />;
    case 'fork':
      return <ForkDialog {...props} from={props.action.step} />;
    default:
      return null;
  }
}

function renew(app: string, id: string): void {
  void queryClient.invalidateQueries({ queryKey: read.workflow(app, id).queryKey });
  void queryClient.invalidateQueries({ queryKey: ['steps', app, id] });
  void queryClient.invalidateQueries({ queryKey: ['workflows', app] });
}

function CancelDialog({ app, workflow, onAction }: DialogProps) {
  const [children, setChildren] = useState(false);
  return (
    <ActionDialog
      open
      onClose={() => onAction(null)}
      title="Cancel this workflow"
      description="It is marked cancelled at once. A step that runs just now is not interrupted: the workflow stops when that step ends."
      verb="Cancel the workflow"
      danger
      action={() => act.cancel(app, workflow.workflowId, children)}
      onDone={() => {
        notify({ title: 'Cancel requested', text: 'It takes effect at the next step.' });
        renew(app, workflow.workflowId);
      }}
    >
      <Checkbox checked={children} onChange={setChildren}>
        Cancel its children too
      </Checkbox>
    </ActionDialog>
  );
}

function ResumeDialog({ app, workflow, onAction }: DialogProps) {
  const [queue, setQueue] = useState('');
  return (
    <ActionDialog
      open
      onClose={() => onAction(null)}
      title="Resume this workflow"
      description="It goes on behind its last recorded step, in an executor of the latest version."
      verb="Resume"
      action={() => act.resume(app, workflow.workflowId, queue.trim())}
      onDone={() => {
        notify({ title: 'Resumed' });
        renew(app, workflow.workflowId);
      }}
    >
      <Field label="Queue" hint="Empty: it is taken up at once.">
        {(control) => <Input {...control} value={queue} onChange={(event) => setQueue(event.target.value)} />}
      </Field>
    </ActionDialog>
  );
}

function DeleteDialog({ app, workflow, onAction }: DialogProps) {
  const navigate = useNavigate();
  const [children, setChildren] = useState(false);
  return (
    <ActionDialog
      open
      onClose={() => onAction(null)}
      title="Delete this workflow"
      description="Removes it and all its steps from the application’s database. This cannot be undone."
      verb="Delete"
      danger
      action={() => act.remove(app, workflow.workflowId, children)}
      onDone={() => {
        notify({ title: 'Workflow deleted' });
        void queryClient.invalidateQueries({ queryKey: ['workflows', app] });
        void navigate({ to: '/apps/$app/workflows', params: { app } });
      }}
    >
      {isActive(workflow.status) && (
        <Banner tone="warn">
          It is still active. Cancel it first, or a running process will write to what no longer exists.
        </Banner>
      )}
      <Checkbox checked={children} onChange={setChildren}>
        Delete its children too
      </Checkbox>
    </ActionDialog>
  );
}

/** Exports a workflow with its children into a file that the same application, or one of its language, can import. */
async function save(app: string, id: string): Promise<void> {
  try {
    download(await act.exportWorkflow(app, id, true), `${id}.export`);
  } catch (error) {
    notify({ title: 'The export failed', text: Problem.of(error).message, tone: 'err' });
  }
}

function RewindDialog({ app, workflow, steps, from, onAction }: DialogProps & { from: number }) {
  const [step, setStep] = useState(String(from));
  const dropped = steps.filter((each) => each.stepId >= Number(step)).length;
  return (
    <ActionDialog
      open
      onClose={() => onAction(null)}
      title="Rewind this workflow"
      description="Takes this very workflow back to a step and runs it again from there, under the same id. What was recorded from that step on is dropped; a fork keeps it."
      verb="Rewind"
      danger
      action={() => act.rewind(app, workflow.workflowId, Number(step))}
      onDone={() => {
        notify({ title: 'Rewound' });
        renew(app, workflow.workflowId);
      }}
    >
      <Field label="First step to run again" hint={`${plural(dropped, 'recorded result')} dropped.`}>
        {({ id }) => (
          <Select
            id={id}
            label="First step to run again"
            value={step}
            onChange={setStep}
            options={stepOptions(steps, from)}
          />
        )}
      </Field>
    </ActionDialog>
  );
}

const KEEP = '';

function ForkDialog({ app, workflow, steps, from, onAction }: DialogProps & { from: number }) {
  const navigate = useNavigate();
  const [step, setStep] = useState(String(from));
  const [version, setVersion] = useState(workflow.appVersion ?? KEEP);
  const [queue, setQueue] = useState('');
  const [newId, setNewId] = useState('');
  const executors = useQuery(read.executors(app));
  const live = [
    ...new Set(
      (executors.data ?? []).filter((each) => each.status === 'HEALTHY').map((each) => each.appVersion),
    ),
  ];
  const versions = [...new Set([...(workflow.appVersion ? [workflow.appVersion] : []), ...live])];
  const kept = steps.filter((each) => each.stepId < Number(step)).length;
  return (
    <ActionDialog
      open
      onClose={() => onAction(null)}
      title="Fork from a step"
      description="Makes a new workflow with the same input that takes over the results before the step and runs from it. This one stays as it is."
      verb="Fork"
      width={540}
      action={() =>
        act.fork(app, workflow.workflowId, {
          startStep: Number(step),
          ...(version === KEEP ? {} : { appVersion: version }),
          ...(queue.trim() ? { queueName: queue.trim() } : {}),
          ...(newId.trim() ? { newWorkflowId: newId.trim() } : {}),
        })
      }
      onDone={(id) => {
        notify({
          title: 'Forked',
          text: (
            <Link
              className="link"
              to="/apps/$app/compare"
              params={{ app }}
              search={{ left: workflow.workflowId, right: id }}
            >
              Compare it with the original
            </Link>
          ),
        });
        renew(app, workflow.workflowId);
        void navigate({ to: '/apps/$app/workflows/$id', params: { app, id } });
      }}
    >
      <Field
        label="First step to run again"
        hint={`${plural(kept, 'earlier result')} taken over, everything from here on runs.`}
      >
        {({ id }) => (
          <Select
            id={id}
            label="First step to run again"
            value={step}
            onChange={setStep}
            options={stepOptions(steps, from)}
          />
        )}
      </Field>
      <Field
        label="Version"
        hint={
          version !== KEEP && !live.includes(version)
            ? 'No connected executor runs this version: the fork waits until one does.'
            : 'The executors that will run it.'
        }
      >
        {({ id }) => (
          <Select
            id={id}
            label="Version"
            value={version}
            onChange={setVersion}
            options={[
              ...versions.map((each) => ({
                value: each,
                label: <bdi className="mono">{each}</bdi>,
                meta: [each === workflow.appVersion && 'its own', !live.includes(each) && 'not connected']
                  .filter(Boolean)
                  .join(', '),
              })),
              { value: KEEP, label: 'Let the SDK decide' },
            ]}
          />
        )}
      </Field>
      <Field label="Queue" hint="Empty: it is taken up at once.">
        {(control) => <Input {...control} value={queue} onChange={(event) => setQueue(event.target.value)} />}
      </Field>
      <Field label="Id of the new workflow" hint="Empty: one is made.">
        {(control) => (
          <Input
            {...control}
            className="mono"
            value={newId}
            onChange={(event) => setNewId(event.target.value)}
          />
        )}
      </Field>
    </ActionDialog>
  );
}

const MOST_OPTIONS = 200;

/** The steps to choose from; of very many those around the one proposed. */
function stepOptions(steps: Step[], from: number) {
  const at = Math.max(0, steps.findIndex((step) => step.stepId === from) - MOST_OPTIONS / 2);
  const near = steps.slice(at, at + MOST_OPTIONS);
  const options = near.map((step) => ({
    value: String(step.stepId),
    label: (
      <span>
        <span className="muted num">{step.stepId}</span> <bdi>{step.stepName}</bdi>
      </span>
    ),
    meta: step.error ? 'failed' : undefined,
  }));
  if (!options.some((option) => option.value === '0')) {
    options.unshift({ value: '0', label: <span>From the very beginning</span>, meta: undefined });
  }
  const last = steps.at(-1);
  if (last)
    options.push({
      value: String(last.stepId + 1),
      label: <span>After the last recorded step</span>,
      meta: undefined,
    });
  return options;
}
