import { useRef, useState } from 'react';
import { Problem } from '~/api/problem';
import { act, type Workflow } from '~/api/queries';
import { Button, Checkbox } from '~/ui/controls';
import { isActive, StatusBadge } from '~/ui/data';
import { count, plural } from '~/ui/format';
import { Dialog, notify } from '~/ui/overlay';
import s from './Workflows.module.css';

type Kind = 'cancel' | 'resume' | 'delete';
const WORDS: Record<Kind, { title: string; verb: string; done: string; children?: string }> = {
  cancel: { title: 'Cancel', verb: 'Cancel them', done: 'cancelled', children: 'Their children too' },
  resume: { title: 'Resume', verb: 'Resume them', done: 'resumed' },
  delete: { title: 'Delete', verb: 'Delete them', done: 'deleted', children: 'Their children too' },
};

/** Whether the action does anything to a workflow of this status; the others are left out and said so. */
function applies(kind: Kind, status: string): boolean {
  if (kind === 'cancel') return isActive(status);
  if (kind === 'resume') return status === 'CANCELLED' || status === 'MAX_RECOVERY_ATTEMPTS_EXCEEDED';
  return !isActive(status);
}

export function BulkBar(props: {
  app: string;
  selected: Workflow[];
  onClear: () => void;
  onDone: () => void;
}) {
  const [kind, setKind] = useState<Kind | null>(null);
  return (
    <div className={s.selection} role="toolbar" aria-label="Selected workflows">
      <strong className="num">{count(props.selected.length)} selected</strong>
      {(Object.keys(WORDS) as Kind[]).map((each) => (
        <Button
          key={each}
          kind={each === 'delete' ? 'danger' : 'plain'}
          disabled={!props.selected.some((row) => applies(each, row.status))}
          onClick={() => setKind(each)}
        >
          {WORDS[each].title}
        </Button>
      ))}
      <Button kind="quiet" onClick={props.onClear}>
        Clear
      </Button>
      {kind && (
        <BulkDialog
          {...props}
          kind={kind}
          onClose={() => setKind(null)}
          onDone={() => {
            props.onClear();
            props.onDone();
          }}
        />
      )}
    </div>
  );
}

type Progress = { done: number; failed: { id: string; text: string }[]; running: boolean; stopped: boolean };
const AT_ONCE = 4;

function BulkDialog(props: {
  app: string;
  selected: Workflow[];
  kind: Kind;
  onClose: () => void;
  onDone: () => void;
}) {
  const { kind, app } = props;
  // The set is fixed when the dialog opens: what is previewed is what is done.
  const [targets] = useState(() => props.selected.filter((row) => applies(kind, row.status)));
  const skipped = props.selected.length - targets.length;
  const [children, setChildren] = useState(false);
  const [progress, setProgress] = useState<Progress | null>(null);
  const stop = useRef(false);
  const words = WORDS[kind];

  async function run() {
    const state: Progress = { done: 0, failed: [], running: true, stopped: false };
    const queue = [...targets];
    const show = () => setProgress({ ...state, failed: [...state.failed] });
    show();
    const worker = async () => {
      for (let row = queue.shift(); row && !stop.current; row = queue.shift()) {
        try {
          if (kind === 'cancel') await act.cancel(app, row.workflowId, children);
          else if (kind === 'resume') await act.resume(app, row.workflowId);
          else await act.remove(app, row.workflowId, children);
        } catch (error) {
          state.failed.push({ id: row.workflowId, text: Problem.of(error).message });
        }
        state.done += 1;
        show();
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    state.running = false;
    state.stopped = stop.current;
    show();
    if (state.failed.length === 0 && !state.stopped) {
      notify({ title: `${plural(state.done, 'workflow')} ${words.done}` });
      props.onClose();
      props.onDone();
    }
  }

  const started = progress !== null;
  const close = () => {
    stop.current = true;
    props.onClose();
    if (started) props.onDone();
  };
  return (
    <Dialog
      open
      onClose={close}
      title={`${words.title} ${plural(targets.length, 'workflow')}`}
      description={
        skipped > 0
          ? `${count(skipped)} of the selected are left out: this does nothing in their state.`
          : undefined
      }
      width={560}
      foot={
        progress?.running ? (
          <Button
            kind="danger"
            onClick={() => {
              stop.current = true;
            }}
          >
            Stop
          </Button>
        ) : (
          <>
            <Button onClick={close}>Close</Button>
            {!started && (
              <Button kind={kind === 'resume' ? 'primary' : 'danger'} onClick={() => void run()}>
                {words.verb}
              </Button>
            )}
          </>
        )
      }
    >
      {!started && (
        <>
          <Sample workflows={targets} />
          {words.children && (
            <Checkbox checked={children} onChange={setChildren}>
              {words.children}
            </Checkbox>
          )}
        </>
      )}
      {progress && <Running progress={progress} total={targets.length} done={words.done} />}
    </Dialog>
  );
}

function Sample({ workflows }: { workflows: Workflow[] }) {
  const first = workflows.slice(0, 6);
  return (
    <ul className="stack" style={{ gap: 6 }}>
      {first.map((workflow) => (
        <li key={workflow.workflowId} className="row">
          <StatusBadge status={workflow.status} />
          <bdi className="clip">{workflow.workflowName}</bdi>
          <bdi className="clip mono muted">{workflow.workflowId}</bdi>
        </li>
      ))}
      {workflows.length > first.length && (
        <li className="muted">and {count(workflows.length - first.length)} more</li>
      )}
    </ul>
  );
}

function Running({ progress, total, done }: { progress: Progress; total: number; done: string }) {
  return (
    <div className="stack" role="status">
      <div className={s.progress}>
        <div style={{ width: `${(100 * progress.done) / Math.max(total, 1)}%` }} />
      </div>
      <p className="num">
        {count(progress.done - progress.failed.length)} of {count(total)} {done}
        {progress.failed.length > 0 && `, ${count(progress.failed.length)} failed`}
        {progress.stopped && ', stopped'}
      </p>
      {progress.failed.length > 0 && (
        <ul className={s.failures}>
          {progress.failed.map((failure) => (
            <li key={failure.id} className="foreign">
              <bdi className="mono">{failure.id}</bdi>: {failure.text}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
