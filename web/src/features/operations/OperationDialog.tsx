import { useMutation, useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { queryClient, type Schemas } from '~/api/client';
import { Problem } from '~/api/problem';
import { act, type Operation, read } from '~/api/queries';
import { Button, buttonLook, Checkbox, Field, Input, TextArea } from '~/ui/controls';
import { Foreign, StatusBadge } from '~/ui/data';
import { count, plural } from '~/ui/format';
import { usePushed } from '~/ui/live';
import { Dialog } from '~/ui/overlay';
import { Select } from '~/ui/Select';
import { Banner, Fault, Loaded, Loading } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { OperationProgress } from './OperationProgress';
import s from './Operations.module.css';
import { isFinal, KINDS, type Kind, outcome, type Target } from './operations';

type Props = {
  app: string;
  kind: Kind;
  target: Target;
  /** What the selection leaves out, in words. */
  remark?: string | undefined;
  onClose: () => void;
  onDone: () => void;
};

/** Bulk work: what would be done, then the doing with its progress. It goes on when the dialog is closed. */
export function OperationDialog(props: Props) {
  const [started, setStarted] = useState<string | null>(null);
  return started === null ? (
    <Prepare {...props} onStarted={setStarted} />
  ) : (
    <Watch {...props} operationId={started} />
  );
}

function Prepare(props: Props & { onStarted: (operationId: string) => void }) {
  const { app, kind, target } = props;
  const words = KINDS[kind];
  const [options, setOptions] = useState<Options>(kind === 'fork' ? { fromLastFailure: true } : {});
  const [reason, setReason] = useState('');
  // What would be done, selected by the server itself; nothing is counted in the browser.
  const preview = useQuery({
    queryKey: ['preview', app, kind, target],
    queryFn: () => act.startOperation(app, { kind, ...target, dryRun: true }),
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
    retry: false,
  });
  const start = useMutation({
    mutationFn: () =>
      act.startOperation(app, {
        kind,
        ...target,
        options,
        ...(reason.trim() ? { reason: reason.trim() } : {}),
      }),
    onSuccess: (operation) => {
      void queryClient.invalidateQueries({ queryKey: read.operations(app).queryKey.slice(0, 2) });
      props.onStarted(operation.id);
    },
  });
  const total = preview.data?.counts.total ?? null;
  return (
    <Dialog
      open
      onClose={props.onClose}
      title={total === null ? `${words.title} workflows` : `${words.title} ${plural(total, 'workflow')}`}
      description={props.remark}
      width={600}
      foot={
        <>
          <Button onClick={props.onClose}>Close</Button>
          <Button
            kind={words.danger ? 'danger' : 'primary'}
            disabled={start.isPending || total === 0 || preview.isPending || preview.isError}
            onClick={() => start.mutate()}
          >
            {start.isPending ? 'Starting…' : words.verb}
          </Button>
        </>
      }
    >
      {preview.isPending ? (
        <Loading rows={3} />
      ) : preview.error ? (
        <Fault problem={Problem.of(preview.error)} />
      ) : (
        <Preview operation={preview.data} />
      )}
      <OptionFields app={app} kind={kind} options={options} onChange={setOptions} />
      <Field label="Reason" hint="Kept with the operation and in the audit log.">
        {(control) => (
          <TextArea
            {...control}
            rows={2}
            maxLength={1_000}
            value={reason}
            onChange={(event) => setReason(event.target.value)}
          />
        )}
      </Field>
      {start.error && <Fault problem={Problem.of(start.error)} />}
    </Dialog>
  );
}

function Preview({ operation }: { operation: Operation }) {
  const { counts, sample, truncated, state, message } = operation;
  if (state === 'WAITING_FOR_EXECUTOR') {
    return (
      <Banner tone="warn">
        No executor is connected who could say which workflows these are. The operation waits for one.
      </Banner>
    );
  }
  if (state === 'FAILED') return <Banner tone="err">{message ?? 'The selection failed.'}</Banner>;
  const total = counts.total ?? 0;
  if (total === 0)
    return <Banner tone="off">No workflow is meant: none of them can be acted on this way.</Banner>;
  return (
    <div className="stack" style={{ gap: 8 }}>
      {truncated && (
        <Banner tone="warn">
          More match than one operation takes: it does the first {count(operation.limit)}.
        </Banner>
      )}
      <Sample operation={operation} />
      {total > sample.length && <p className="muted">and {count(total - sample.length)} more</p>}
    </div>
  );
}

export function Sample({ operation }: { operation: Operation }) {
  return (
    <ul className={s.sample} aria-label="Some of the workflows">
      {operation.sample.map((workflow) => (
        <li key={workflow.workflowId}>
          {workflow.status && <StatusBadge status={workflow.status} />}
          <Foreign text={workflow.workflowName ?? 'unnamed'} />
          <bdi className="clip mono muted">{workflow.workflowId}</bdi>
        </li>
      ))}
    </ul>
  );
}

type Options = Schemas['OperationOptions'];

function OptionFields(props: {
  app: string;
  kind: Kind;
  options: Options;
  onChange: (options: Options) => void;
}) {
  const { kind, options, onChange } = props;
  switch (kind) {
    case 'cancel':
      return (
        <Checkbox
          checked={options.cancelChildren ?? false}
          onChange={(cancelChildren) => onChange({ cancelChildren })}
        >
          Their children too
        </Checkbox>
      );
    case 'delete':
      return (
        <Checkbox
          checked={options.deleteChildren ?? false}
          onChange={(deleteChildren) => onChange({ deleteChildren })}
        >
          Their children too
        </Checkbox>
      );
    case 'resume':
      return <QueueField options={options} onChange={onChange} />;
    case 'fork':
      return <ForkFields {...props} />;
  }
}

function QueueField({ options, onChange }: { options: Options; onChange: (options: Options) => void }) {
  return (
    <Field label="Queue" hint="Empty: they are taken up at once. A queue’s limits spread the load.">
      {(control) => (
        <Input
          {...control}
          value={options.queueName ?? ''}
          onChange={(event) => {
            const { queueName: _, ...rest } = options;
            onChange(event.target.value ? { ...rest, queueName: event.target.value } : rest);
          }}
        />
      )}
    </Field>
  );
}

const FROM = {
  failure: { label: 'From the last step that failed', options: { fromLastFailure: true } },
  last: { label: 'From the last step', options: { fromLastStep: true } },
  start: { label: 'From the beginning', options: {} },
} as const;
type From = keyof typeof FROM;
const KEEP = '';

function ForkFields(props: { app: string; options: Options; onChange: (options: Options) => void }) {
  const { options, onChange } = props;
  const executors = useQuery(read.executors(props.app));
  const healthy = (executors.data ?? []).filter((each) => each.status === 'HEALTHY');
  const versions = [...new Set(healthy.map((each) => each.appVersion))];
  const from: From = options.fromLastFailure ? 'failure' : options.fromLastStep ? 'last' : 'start';
  return (
    <>
      <Field label="Begin">
        {({ id }) => (
          <Select
            id={id}
            label="Begin"
            value={from}
            options={(Object.keys(FROM) as From[]).map((value) => ({ value, label: FROM[value].label }))}
            onChange={(value) => {
              const { fromLastFailure: _, fromLastStep: __, ...rest } = options;
              onChange({ ...rest, ...FROM[value as From].options });
            }}
          />
        )}
      </Field>
      <Field label="Version" hint="The executors that will run the forks.">
        {({ id }) => (
          <Select
            id={id}
            label="Version"
            value={options.appVersion ?? KEEP}
            options={[
              { value: KEEP, label: 'Let the SDK decide' },
              ...versions.map((value) => ({ value, label: <bdi className="mono">{value}</bdi> })),
            ]}
            onChange={(value) => {
              const { appVersion: _, ...rest } = options;
              onChange(value === KEEP ? rest : { ...rest, appVersion: value });
            }}
          />
        )}
      </Field>
      <QueueField options={options} onChange={onChange} />
    </>
  );
}

function Watch(props: Props & { operationId: string }) {
  const { app, operationId } = props;
  const renewal = usePushed(app, 1_000);
  const query = useQuery({
    ...read.operation(app, operationId),
    ...renewal,
    refetchInterval: ({ state }) => (state.data && isFinal(state.data) ? false : 1_000),
  });
  const done = query.data !== undefined && isFinal(query.data);
  const close = () => {
    props.onClose();
    props.onDone();
    if (query.data && !done)
      notify({ title: 'It goes on by itself', text: 'Operations shows how far it is.' });
  };
  return (
    <Dialog
      open
      onClose={close}
      title={query.data ? outcome(query.data) : KINDS[props.kind].title}
      width={600}
      foot={
        <>
          <Link
            to="/apps/$app/operations"
            params={{ app }}
            search={{ id: operationId }}
            {...buttonLook('quiet')}
          >
            Open in Operations
          </Link>
          <Button kind={done ? 'primary' : 'plain'} onClick={close}>
            {done ? 'Close' : 'Leave it running'}
          </Button>
        </>
      }
    >
      <Loaded query={query} rows={2}>
        {(operation) => <OperationProgress app={app} operation={operation} />}
      </Loaded>
    </Dialog>
  );
}
