import type { UseQueryResult } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useMay } from '~/api/may';
import type { Explanation, Step, Workflow } from '~/api/queries';
import { useNow } from '~/ui/clock';
import { Button, buttonLook } from '~/ui/controls';
import { Dot, isActive } from '~/ui/data';
import type { Action } from './Actions';
import { ended, type Sentence, sentence, type Way, ways } from './explain';
import s from './Workflow.module.css';

/** One sentence: how it ended, or why it is not moving, with the ways out. */
export function Standing(props: {
  app: string;
  workflow: Workflow;
  steps: Step[];
  explanation: Pick<UseQueryResult<Explanation, unknown>, 'data' | 'error'>;
  onAction: (action: Action) => void;
}) {
  const { workflow, explanation } = props;
  const now = useNow();
  const said: Sentence =
    ended(workflow, props.steps, now) ??
    (explanation.data
      ? sentence(explanation.data, now)
      : explanation.error
        ? { tone: 'off', text: 'Nobody can be asked at the moment why it stands where it stands.' }
        : { tone: 'off', text: 'Asking why it stands where it stands…' });
  const mayWrite = useMay()('application.write');
  const out = (explanation.data && isActive(workflow.status) ? ways(explanation.data) : []).filter(
    (way) => mayWrite || (way.kind !== 'fork' && way.kind !== 'cancel'),
  );
  return (
    <div className={s.sentence} data-tone={said.tone}>
      <Dot tone={said.tone} pulse={said.tone === 'run'} />
      <p className="foreign">{said.text}</p>
      {out.length > 0 && (
        <div className={s.waysOut} role="group" aria-label="Ways out">
          {out.map((way) => (
            <WayOut key={way.kind} {...props} way={way} />
          ))}
        </div>
      )}
    </div>
  );
}

function WayOut({ app, workflow, way, onAction, steps }: Parameters<typeof Standing>[0] & { way: Way }) {
  switch (way.kind) {
    case 'fork':
      return (
        <Button small onClick={() => onAction({ kind: 'fork', step: (steps.at(-1)?.stepId ?? -1) + 1 })}>
          Fork to another version…
        </Button>
      );
    case 'cancel':
      return (
        <Button small onClick={() => onAction({ kind: 'cancel' })}>
          Cancel it…
        </Button>
      );
    case 'connect':
      return (
        <Link to="/apps/$app/connect" params={{ app }} {...buttonLook('plain', true)}>
          Start an executor of {workflow.appVersion ?? 'it'}
        </Link>
      );
    case 'recovery':
      return (
        <Link to="/apps/$app/recovery" params={{ app }} {...buttonLook('plain', true)}>
          See its recovery
        </Link>
      );
    case 'executors':
      return (
        <Link to="/apps/$app/executors" params={{ app }} {...buttonLook('plain', true)}>
          See its executor
        </Link>
      );
    case 'queue':
      return (
        <Link to="/apps/$app/queues" params={{ app }} {...buttonLook('plain', true)}>
          See the queue
        </Link>
      );
    case 'running':
      return (
        <Link
          to="/apps/$app/workflows"
          params={{ app }}
          search={{ queue: [way.queue], status: ['PENDING'] }}
          {...buttonLook('plain', true)}
        >
          What runs on it
        </Link>
      );
    case 'workflow':
      return (
        <Link to="/apps/$app/workflows/$id" params={{ app, id: way.id }} {...buttonLook('plain', true)}>
          Open what it waits for
        </Link>
      );
  }
}
