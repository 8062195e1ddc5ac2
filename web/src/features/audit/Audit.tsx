import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { type AuditEntry, read } from '~/api/queries';
import { Button, Input } from '~/ui/controls';
import { Badge, Facts, Id, Moment, Page, Panel, Table } from '~/ui/data';
import { useRenewal } from '~/ui/live';
import { Dialog } from '~/ui/overlay';
import { Empty, Loaded, NoMatch } from '~/ui/states';
import { ValueView } from '~/ui/value/ValueView';

const PAGE = 100;

/** Who did what, when, and whether it was allowed. */
export function Audit() {
  const [operation, setOperation] = useState('');
  const [limit, setLimit] = useState(PAGE);
  const [shown, setShown] = useState<AuditEntry | null>(null);
  const query = operation.trim() === '' ? { limit } : { operation: operation.trim(), limit };
  const entries = useQuery({ ...read.audit(query), ...useRenewal(5_000), placeholderData: keepPreviousData });
  return (
    <Page
      title="Audit"
      actions={
        <div style={{ width: 260 }}>
          <Input
            aria-label="Operation"
            placeholder="Operation, such as workflow.cancel"
            value={operation}
            onChange={(event) => setOperation(event.target.value)}
          />
        </div>
      }
    >
      <Panel flush>
        <Loaded query={entries}>
          {(list) =>
            list.length > 0 ? (
              <AuditTable entries={list} onOpen={setShown} />
            ) : operation ? (
              <NoMatch
                title="Nobody did that"
                actions={<Button onClick={() => setOperation('')}>Show all</Button>}
              >
                Operations are named like <code>workflow.cancel</code>, in full.
              </NoMatch>
            ) : (
              <Empty title="Nothing was done yet">Every change made through the API or here is listed.</Empty>
            )
          }
        </Loaded>
        {entries.data?.length === limit && (
          <div style={{ padding: 10, textAlign: 'center' }}>
            <Button onClick={() => setLimit(limit + PAGE)}>Show more</Button>
          </div>
        )}
      </Panel>
      {shown && <EntryDialog entry={shown} onClose={() => setShown(null)} />}
    </Page>
  );
}

function AuditTable({ entries, onOpen }: { entries: AuditEntry[]; onOpen: (entry: AuditEntry) => void }) {
  return (
    <Table
      label="Audit log"
      head={
        <>
          <th>When</th>
          <th>Operation</th>
          <th>Result</th>
          <th>By</th>
          <th>On</th>
          <th>From</th>
          <th>
            <span className="visually-hidden">Actions</span>
          </th>
        </>
      }
    >
      {entries.map((entry) => (
        <tr key={entry.id}>
          <td>
            <Moment time={entry.emitTime} />
          </td>
          <td>
            <code>{entry.operation}</code>
          </td>
          <td>
            <Badge tone={entry.status === 'success' ? 'ok' : 'err'}>
              {entry.status === 'success' ? 'Done' : 'Refused or failed'}
            </Badge>
          </td>
          <td>
            <bdi>{entry.subject.display || entry.subject.id}</bdi>{' '}
            <span className="muted">{entry.subject.type === 'api_key' ? 'key' : 'user'}</span>
          </td>
          <td style={{ maxWidth: 180 }}>
            {entry.target ? <Id value={entry.target.id} label={entry.target.type} /> : '–'}
          </td>
          <td className="mono">{entry.sourceIp}</td>
          <td data-actions>
            <Button small kind="quiet" onClick={() => onOpen(entry)}>
              Details
            </Button>
          </td>
        </tr>
      ))}
    </Table>
  );
}

function EntryDialog({ entry, onClose }: { entry: AuditEntry; onClose: () => void }) {
  return (
    <Dialog
      open
      onClose={onClose}
      title={entry.operation}
      width={620}
      foot={<Button onClick={onClose}>Close</Button>}
    >
      <Facts
        facts={[
          ['When', <Moment key="when" time={entry.emitTime} />],
          ['By', <bdi key="by">{entry.subject.display || entry.subject.id}</bdi>],
          ['From', entry.sourceIp],
          ['On', entry.target && `${entry.target.type} ${entry.target.id}`],
        ]}
      />
      <ValueView
        title="Details"
        text={entry.details ? JSON.stringify(entry.details) : null}
        file={`audit-${entry.id}.json`}
      />
    </Dialog>
  );
}
