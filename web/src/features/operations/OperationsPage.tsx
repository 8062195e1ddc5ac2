import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { type Operation, read } from '~/api/queries';
import { Button, buttonLook, Checkbox } from '~/ui/controls';
import { Age, Chip, Facts, Moment, Page, Panel, Table, Took } from '~/ui/data';
import { usePushed } from '~/ui/live';
import { Dialog } from '~/ui/overlay';
import { Empty, Loaded } from '~/ui/states';
import { Sample } from './OperationDialog';
import { OperationProgress, OperationState, ProgressBar } from './OperationProgress';
import s from './Operations.module.css';
import { filterFacts, isFinal, KINDS, outcome } from './operations';

const PAGE = 100;

/** Bulk work: what was asked for, by whom and why, how far it is, and what did not work. */
export function OperationsPage(props: {
  app: string;
  chosen: string | undefined;
  onChoose: (id: string | undefined) => void;
}) {
  const { app, chosen, onChoose } = props;
  const [limit, setLimit] = useState(PAGE);
  const [dry, setDry] = useState(false);
  const operations = useQuery({ ...read.operations(app, { limit }), ...usePushed(app, 3_000) });
  const shown = operations.data?.filter((each) => dry || !each.dryRun);
  return (
    <Page
      title="Operations"
      actions={
        <>
          <Checkbox checked={dry} onChange={setDry}>
            Previews too
          </Checkbox>
          <Link to="/apps/$app/workflows" params={{ app }} {...buttonLook()}>
            Choose workflows
          </Link>
        </>
      }
    >
      <Panel flush>
        <Loaded query={operations}>
          {() =>
            shown && shown.length > 0 ? (
              <OperationTable operations={shown} onOpen={onChoose} />
            ) : (
              <Empty title="No bulk work yet">
                Select workflows, or filter the list and act on all that match. Each such operation is kept
                here, with its progress, and survives a restart of the server.
              </Empty>
            )
          }
        </Loaded>
        {operations.data?.length === limit && (
          <div style={{ padding: 10, textAlign: 'center' }}>
            <Button onClick={() => setLimit(limit + PAGE)}>Show more</Button>
          </div>
        )}
      </Panel>
      {chosen && <OperationDetail app={app} id={chosen} onClose={() => onChoose(undefined)} />}
    </Page>
  );
}

function OperationTable({ operations, onOpen }: { operations: Operation[]; onOpen: (id: string) => void }) {
  return (
    <Table
      label="Operations"
      head={
        <>
          <th>What</th>
          <th>State</th>
          <th style={{ width: '26%' }}>Progress</th>
          <th>Reason</th>
          <th>By</th>
          <th>Asked for</th>
          <th>Took</th>
          <th>
            <span className="visually-hidden">Actions</span>
          </th>
        </>
      }
    >
      {operations.map((operation) => (
        <tr key={operation.id}>
          <td>
            <strong>{KINDS[operation.kind].title}</strong>{' '}
            <span className="muted">
              {operation.dryRun ? 'preview, ' : ''}
              {operation.filter ? 'by filter' : 'by selection'}
            </span>
          </td>
          <td>
            <OperationState operation={operation} />
          </td>
          <td>
            <div className="stack" style={{ gap: 4, padding: '4px 0' }}>
              <span className="num">{outcome(operation)}</span>
              {!operation.dryRun && <ProgressBar operation={operation} />}
            </div>
          </td>
          <td style={{ maxWidth: 220 }}>
            {operation.reason ? (
              <bdi className="clip" style={{ display: 'block' }} title={operation.reason}>
                {operation.reason}
              </bdi>
            ) : (
              <span className="muted">–</span>
            )}
          </td>
          <td>
            <bdi>{operation.requestedBy}</bdi>
          </td>
          <td>
            <Age time={operation.createdAt} />
          </td>
          <td>
            <Took start={operation.startedAt} end={operation.completedAt} />
          </td>
          <td data-actions>
            <Button small kind="quiet" onClick={() => onOpen(operation.id)}>
              Details
            </Button>
          </td>
        </tr>
      ))}
    </Table>
  );
}

function OperationDetail({ app, id, onClose }: { app: string; id: string; onClose: () => void }) {
  const query = useQuery({
    ...read.operation(app, id),
    ...usePushed(app, 1_000),
    refetchInterval: ({ state }) => (state.data && isFinal(state.data) ? false : 1_000),
  });
  const title = query.data ? `${KINDS[query.data.kind].title} in bulk` : 'Operation';
  return (
    <Dialog open onClose={onClose} title={title} width={680} foot={<Button onClick={onClose}>Close</Button>}>
      <Loaded query={query} rows={3}>
        {(operation) => (
          <>
            <OperationProgress app={app} operation={operation} />
            <Facts
              facts={[
                ['Asked for', <Moment key="asked" time={operation.createdAt} />],
                ['By', <bdi key="by">{operation.requestedBy}</bdi>],
                ['Began', operation.startedAt && <Moment time={operation.startedAt} />],
                ['Ended', operation.completedAt && <Moment time={operation.completedAt} />],
                ['Reason', operation.reason && <bdi>{operation.reason}</bdi>],
              ]}
            />
            {operation.filter && (
              <div className="stack" style={{ gap: 6 }}>
                <h3>All that matched</h3>
                <div className={s.filter}>
                  {filterFacts(operation.filter).map(([name, value]) => (
                    <Chip key={name} title={value}>
                      <span className="muted">{name}</span>
                      <bdi className="clip">{value}</bdi>
                    </Chip>
                  ))}
                </div>
              </div>
            )}
            {operation.sample.length > 0 && (
              <div className="stack" style={{ gap: 6 }}>
                <h3>Some of the workflows, as they were when selected</h3>
                <Sample operation={operation} />
              </div>
            )}
          </>
        )}
      </Loaded>
    </Dialog>
  );
}
