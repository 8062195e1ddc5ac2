import { useMutation } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { queryClient } from '~/api/client';
import { useMay } from '~/api/may';
import { Problem } from '~/api/problem';
import { act, type Operation, read } from '~/api/queries';
import { Button } from '~/ui/controls';
import { Badge } from '~/ui/data';
import { Banner, Fault } from '~/ui/states';
import s from './Operations.module.css';
import { isFinal, outcome, progress, STATES } from './operations';

export function OperationState({ operation }: { operation: Operation }) {
  const { label, tone } = STATES[operation.state];
  return (
    <Badge tone={operation.state === 'DONE' && operation.counts.failed > 0 ? 'warn' : tone}>{label}</Badge>
  );
}

export function ProgressBar({ operation }: { operation: Operation }) {
  const part = progress(operation);
  const percent = part === null ? 0 : Math.round(part * 100);
  return (
    <div
      className={s.progress}
      role="progressbar"
      aria-label={outcome(operation)}
      aria-valuenow={percent}
      data-tone={operation.counts.failed > 0 ? 'warn' : STATES[operation.state].tone}
      data-unknown={(part === null && !isFinal(operation)) || undefined}
    >
      <div style={{ width: `${percent}%` }} />
    </div>
  );
}

/** How far an operation is, what did not work, and the way to stop it. */
export function OperationProgress({ app, operation }: { app: string; operation: Operation }) {
  const mayWrite = useMay()('application.write');
  const abort = useMutation({
    mutationFn: () => act.abortOperation(app, operation.id),
    onSuccess: () => {
      void queryClient.invalidateQueries({ queryKey: read.operation(app, operation.id).queryKey });
      void queryClient.invalidateQueries({ queryKey: read.operations(app).queryKey.slice(0, 2) });
    },
  });
  return (
    <div className="stack" role="status">
      <div className="row">
        <OperationState operation={operation} />
        <span className="grow num">{outcome(operation)}</span>
        {!isFinal(operation) && mayWrite && (
          <Button kind="danger" small disabled={abort.isPending} onClick={() => abort.mutate()}>
            Abort
          </Button>
        )}
      </div>
      <ProgressBar operation={operation} />
      {operation.message && (
        <Banner tone={operation.state === 'FAILED' ? 'err' : 'warn'}>{operation.message}</Banner>
      )}
      {abort.error && <Fault problem={Problem.of(abort.error)} />}
      {operation.errors.length > 0 && (
        <div className="stack" style={{ gap: 6 }}>
          <h3>What did not work</h3>
          <ul className={s.failures}>
            {operation.errors.map((failure) => (
              <li key={failure.workflowId} className="foreign">
                <Link
                  className="link mono"
                  to="/apps/$app/workflows/$id"
                  params={{ app, id: failure.workflowId }}
                >
                  <bdi>{failure.workflowId}</bdi>
                </Link>
                : {failure.message}
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}
