import { Link } from '@tanstack/react-router';
import { GitFork, X } from 'lucide-react';
import { Button, buttonLook } from '~/ui/controls';
import { Badge, Facts, Id, Moment, Took } from '~/ui/data';
import { ValueView } from '~/ui/value/ValueView';
import type { Row } from './timeline';
import s from './Workflow.module.css';

/** One step: when, what came out, and the way to begin again from it. */
export function StepPanel(props: {
  app: string;
  row: Row;
  onClose: () => void;
  onFork: ((stepId: number) => void) | null;
}) {
  const { row, app } = props;
  const step = row.step;
  return (
    <aside className={s.panel} aria-label="Step">
      <header className={s.panelHead}>
        <h2 className="grow clip">
          {row.stepId !== null && <span className="muted num">{row.stepId} </span>}
          <bdi>{row.label}</bdi>
        </h2>
        <Button kind="quiet" small icon aria-label="Close" onClick={props.onClose}>
          <X />
        </Button>
      </header>
      <div className={s.panelBody}>
        {row.kind === 'now' && (
          <p className="soft">
            What runs now is recorded when it ends. If the process dies before that, it is run again from
            here, in another.
          </p>
        )}
        {row.kind === 'queue' && (
          <p className="soft">The time between its creation and an executor taking it.</p>
        )}
        {step && (
          <>
            <Facts
              facts={[
                ['Outcome', <Outcome key="outcome" failed={row.failed} />],
                ['Took', <Took key="took" start={step.startedAt} end={step.completedAt} />],
                ['Started', <Moment key="started" time={step.startedAt} />],
                ['Recorded', <Moment key="recorded" time={step.completedAt} />],
              ]}
            />
            {step.childWorkflowId && (
              <div className="stack" style={{ gap: 6 }}>
                <h3>Child workflow</h3>
                <Id value={step.childWorkflowId} label="child id" />
                <div>
                  <Link
                    to="/apps/$app/workflows/$id"
                    params={{ app, id: step.childWorkflowId }}
                    {...buttonLook()}
                  >
                    Open the child
                  </Link>
                </div>
              </div>
            )}
            {step.error && (
              <ValueView title="Error" text={step.error} file={`step-${step.stepId}-error.txt`} />
            )}
            {(step.output !== null || !step.error) && (
              <ValueView title="Output" text={step.output} file={`step-${step.stepId}-output.json`} />
            )}
            {props.onFork && row.depth === 0 && (
              <div>
                <Button onClick={() => props.onFork?.(step.stepId)}>
                  <GitFork /> Fork from this step…
                </Button>
              </div>
            )}
          </>
        )}
      </div>
    </aside>
  );
}

function Outcome({ failed }: { failed: boolean }) {
  return failed ? <Badge tone="err">Error</Badge> : <Badge tone="ok">Recorded</Badge>;
}
