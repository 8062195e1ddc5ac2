import { useMutation, useQuery } from '@tanstack/react-query';
import { Megaphone, Plus } from 'lucide-react';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { type AlertChannel, act, read } from '~/api/queries';
import { Button } from '~/ui/controls';
import { Badge, Moment, Page, Panel, Table } from '~/ui/data';
import { duration } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { May } from '~/ui/May';
import { ActionDialog, Dialog } from '~/ui/overlay';
import { Empty, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { ChannelDialog } from './ChannelDialog';
import { KINDS } from './channels';

/** Where alerts go beside applications’ own handlers. */
export function ChannelsPage() {
  const channels = useQuery({ ...read.channels(), ...useRenewal(15_000) });
  const [creating, setCreating] = useState(false);
  const [deleting, setDeleting] = useState<string | null>(null);
  const [history, setHistory] = useState<string | null>(null);
  return (
    <Page
      title="Alert channels"
      actions={
        <May permission="application.write">
          <Button kind="primary" onClick={() => setCreating(true)}>
            <Plus /> New channel
          </Button>
        </May>
      }
    >
      <Panel flush>
        <Loaded query={channels} rows={3}>
          {(list) =>
            list.length === 0 ? (
              <Empty icon={<Megaphone />} title="No channel yet">
                A channel tells Slack, PagerDuty or any web address when an alerting rule fires, and when it
                is over.
              </Empty>
            ) : (
              <ChannelTable channels={list} onDelete={setDeleting} onHistory={setHistory} />
            )
          }
        </Loaded>
      </Panel>
      {creating && <ChannelDialog onClose={() => setCreating(false)} onDone={renew} />}
      {history !== null && <History name={history} onClose={() => setHistory(null)} />}
      <ActionDialog
        open={deleting !== null}
        onClose={() => setDeleting(null)}
        title={`Delete ${deleting ?? ''}`}
        description="Rules that tell it stay and tell it no more."
        verb="Delete"
        danger
        action={() => act.deleteChannel(deleting ?? '')}
        onDone={() => {
          notify({ title: 'Channel deleted' });
          renew();
        }}
      />
    </Page>
  );
}

function renew(): void {
  void queryClient.invalidateQueries({ queryKey: read.channels().queryKey });
}

function ChannelTable(props: {
  channels: AlertChannel[];
  onDelete: (name: string) => void;
  onHistory: (name: string) => void;
}) {
  return (
    <Table
      label="Alert channels"
      head={
        <>
          <th>Channel</th>
          <th>Kind</th>
          <th>Goes to</th>
          <th>Told when over</th>
          <th>At most</th>
          <th>
            <span className="visually-hidden">Actions</span>
          </th>
        </>
      }
    >
      {props.channels.map((channel) => (
        <tr key={channel.name}>
          <td>
            <strong className="foreign">{channel.name}</strong>
          </td>
          <td>{KINDS[channel.kind].label}</td>
          <td className="mono">{channel.origin}</td>
          <td>{channel.sendResolved ? 'yes' : 'no'}</td>
          <td className="num">{channel.maxPerMinute} a minute</td>
          <td data-actions>
            <Button small kind="quiet" onClick={() => props.onHistory(channel.name)}>
              History
            </Button>
            <May permission="application.write">
              <TestButton name={channel.name} />
              <Button small kind="danger" onClick={() => props.onDelete(channel.name)}>
                Delete
              </Button>
            </May>
          </td>
        </tr>
      ))}
    </Table>
  );
}

function TestButton({ name }: { name: string }) {
  const test = useMutation({
    mutationFn: () => act.testChannel(name),
    onSuccess: ({ delivered, status, error, answer, latencyMs }) =>
      delivered
        ? notify({ title: `${name} took the test`, text: `${status ?? ''} after ${duration(latencyMs)}` })
        : notify({
            title: `${name} did not take the test`,
            text: [error, status && `status ${status}`, answer].filter(Boolean).join(': '),
            tone: 'err',
          }),
    onError: (error) =>
      notify({ title: 'The test was not sent', text: Problem.of(error).message, tone: 'err' }),
  });
  return (
    <Button small kind="quiet" disabled={test.isPending} onClick={() => test.mutate()}>
      {test.isPending ? 'Sending…' : 'Send a test'}
    </Button>
  );
}

/** What was sent to a channel lately, and what it said. */
function History({ name, onClose }: { name: string; onClose: () => void }) {
  const attempts = useQuery({ ...read.channelDeliveries(name), ...useRenewal(3_000) });
  return (
    <Dialog
      open
      onClose={onClose}
      title={`Sent to ${name}`}
      width={760}
      foot={<Button onClick={onClose}>Close</Button>}
    >
      <Loaded query={attempts} rows={3}>
        {(list) =>
          list.length === 0 ? (
            <Empty title="Nothing was sent yet">Send a test to see whether it works.</Empty>
          ) : (
            <Table
              label="Deliveries"
              head={
                <>
                  <th>When</th>
                  <th>What</th>
                  <th>Outcome</th>
                  <th data-num>Status</th>
                  <th data-num>Took</th>
                  <th>Error</th>
                </>
              }
            >
              {list.map((attempt) => (
                <tr key={attempt.id}>
                  <td>
                    <Moment time={attempt.at} />
                  </td>
                  <td>{attempt.event}</td>
                  <td>
                    <Badge tone={attempt.delivered ? 'ok' : 'err'}>
                      {attempt.delivered ? 'Delivered' : 'Not delivered'}
                    </Badge>
                  </td>
                  <td data-num>{attempt.status ?? <span className="muted">–</span>}</td>
                  <td data-num>{duration(attempt.latencyMs)}</td>
                  <td className="foreign">{attempt.error ?? <span className="muted">–</span>}</td>
                </tr>
              ))}
            </Table>
          )
        }
      </Loaded>
    </Dialog>
  );
}
