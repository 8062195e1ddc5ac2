import { useQuery } from '@tanstack/react-query';
import { KeyRound, Plus } from 'lucide-react';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { useSelf } from '~/api/may';
import { act, read, type Token } from '~/api/queries';
import { Button, Checkbox, Field, Input } from '~/ui/controls';
import { Age, Chip, Code, Page, Panel, Table } from '~/ui/data';
import { useRenewal } from '~/ui/live';
import { May } from '~/ui/May';
import { ActionDialog, Dialog } from '~/ui/overlay';
import { Banner, Empty, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { MEANING } from './permissions';

/** API keys: of executors, of scripts, of people. */
export function Keys() {
  const tokens = useQuery({ ...read.tokens(), ...useRenewal(10_000) });
  const apps = useQuery(read.apps());
  const self = useSelf();
  const [creating, setCreating] = useState(false);
  const [made, setMade] = useState<{ name: string; secret: string } | null>(null);
  const [renaming, setRenaming] = useState<string | null>(null);
  const [revoking, setRevoking] = useState<string | null>(null);
  const names = new Map((apps.data ?? []).map((app) => [app.id, app.name]));
  return (
    <Page
      title="API keys"
      actions={
        <May permission="token.write">
          <Button kind="primary" onClick={() => setCreating(true)}>
            <Plus /> New key
          </Button>
        </May>
      }
    >
      {self?.mode === 'none' && (
        <Banner tone="warn">
          This server runs without authentication: everybody who reaches it may do everything, and keys are
          not checked.
        </Banner>
      )}
      <Panel flush>
        <Loaded query={tokens}>
          {(list) =>
            list.length === 0 ? (
              <Empty icon={<KeyRound />} title="No keys yet">
                Executors connect with a key; scripts and people call the API with one.
              </Empty>
            ) : (
              <KeyTable tokens={list} names={names} onRename={setRenaming} onRevoke={setRevoking} />
            )
          }
        </Loaded>
      </Panel>
      {creating && <CreateDialog onClose={() => setCreating(false)} onMade={setMade} />}
      <Dialog
        open={made !== null}
        onClose={() => setMade(null)}
        title={`Key ${made?.name ?? ''}`}
        description="Copy it now: it is stored only as a hash and cannot be shown again."
        foot={
          <Button kind="primary" onClick={() => setMade(null)}>
            I have copied it
          </Button>
        }
      >
        <Code text={made?.secret ?? ''} label="key" />
      </Dialog>
      {renaming !== null && <RenameDialog name={renaming} onClose={() => setRenaming(null)} />}
      <ActionDialog
        open={revoking !== null}
        onClose={() => setRevoking(null)}
        title={`Revoke ${revoking ?? ''}`}
        description="It stops working at once. Executors that are connected with it are cut off, and their grace begins."
        verb="Revoke"
        danger
        action={() => act.deleteToken(revoking ?? '')}
        onDone={() => {
          notify({ title: 'Key revoked', text: revoking ?? '' });
          renew();
        }}
      />
    </Page>
  );
}

function renew(): void {
  void queryClient.invalidateQueries({ queryKey: read.tokens().queryKey });
}

function KeyTable(props: {
  tokens: Token[];
  names: Map<string, string>;
  onRename: (name: string) => void;
  onRevoke: (name: string) => void;
}) {
  return (
    <Table
      label="API keys"
      head={
        <>
          <th>Name</th>
          <th>Applications</th>
          <th>May</th>
          <th>Made</th>
          <th>
            <span className="visually-hidden">Actions</span>
          </th>
        </>
      }
    >
      {props.tokens.map((token) => (
        <tr key={token.tokenName}>
          <td>
            <strong className="foreign">{token.tokenName}</strong>
          </td>
          <td>
            {token.appIds.length === 0 ? (
              <span className="soft">all</span>
            ) : (
              <span className="row wrap" style={{ gap: 4 }}>
                {token.appIds.map((id) => (
                  <Chip key={id}>{props.names.get(id) ?? id}</Chip>
                ))}
              </span>
            )}
          </td>
          <td>
            <span className="row wrap" style={{ gap: 4 }}>
              {token.permissions.map((permission) => (
                <Chip key={permission}>{permission}</Chip>
              ))}
            </span>
          </td>
          <td>
            <Age time={token.createdAt} />
          </td>
          <td data-actions>
            <May permission="token.write">
              <Button kind="quiet" small onClick={() => props.onRename(token.tokenName)}>
                Rename
              </Button>
              <Button kind="danger" small onClick={() => props.onRevoke(token.tokenName)}>
                Revoke
              </Button>
            </May>
          </td>
        </tr>
      ))}
    </Table>
  );
}

function CreateDialog(props: {
  onClose: () => void;
  onMade: (made: { name: string; secret: string }) => void;
}) {
  const [name, setName] = useState('');
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(['websocket.connect']));
  const [apps, setApps] = useState<ReadonlySet<string>>(new Set());
  const permissions = useQuery(read.permissions());
  const known = useQuery(read.apps());
  // No call can grant the making of further keys: only the admin key holds it.
  const grantable = (permissions.data ?? []).filter((permission) => permission !== 'token.write');
  return (
    <ActionDialog
      open
      onClose={props.onClose}
      title="New key"
      width={540}
      verb="Make the key"
      ready={name.trim() !== '' && chosen.size > 0}
      action={() => act.createToken(name.trim(), { permissions: [...chosen], appNames: [...apps] })}
      onDone={(secret) => {
        renew();
        props.onMade({ name: name.trim(), secret });
      }}
    >
      <Field label="Name" hint="What it is for; it is named in the audit log.">
        {(control) => (
          <Input
            {...control}
            value={name}
            maxLength={128}
            onChange={(event) => setName(event.target.value)}
          />
        )}
      </Field>
      <fieldset style={{ border: 0, padding: 0, margin: 0 }} className="stack">
        <legend style={{ fontWeight: 500, paddingBottom: 8 }}>It may</legend>
        {grantable.map((permission) => (
          <Checkbox
            key={permission}
            checked={chosen.has(permission)}
            onChange={(on) => setChosen(toggled(chosen, permission, on))}
          >
            {MEANING[permission] ?? permission} <code className="muted">{permission}</code>
          </Checkbox>
        ))}
      </fieldset>
      {(known.data?.length ?? 0) > 0 && (
        <fieldset style={{ border: 0, padding: 0, margin: 0 }} className="stack">
          <legend style={{ fontWeight: 500, paddingBottom: 8 }}>
            For {apps.size === 0 ? 'all applications' : 'these applications only'}
          </legend>
          <div className="row wrap" style={{ gap: '8px 16px', maxHeight: 160, overflow: 'auto' }}>
            {known.data?.map((app) => (
              <Checkbox
                key={app.id}
                checked={apps.has(app.name)}
                onChange={(on) => setApps(toggled(apps, app.name, on))}
              >
                {app.name}
              </Checkbox>
            ))}
          </div>
        </fieldset>
      )}
    </ActionDialog>
  );
}

function RenameDialog({ name, onClose }: { name: string; onClose: () => void }) {
  const [next, setNext] = useState(name);
  return (
    <ActionDialog
      open
      onClose={onClose}
      title={`Rename ${name}`}
      description="The key itself, its scope and its permissions stay."
      verb="Rename"
      ready={next.trim() !== '' && next.trim() !== name}
      action={() => act.renameToken(name, next.trim())}
      onDone={() => {
        notify({ title: 'Key renamed', text: next.trim() });
        renew();
      }}
    >
      <Field label="New name">
        {(control) => (
          <Input
            {...control}
            value={next}
            maxLength={128}
            onChange={(event) => setNext(event.target.value)}
          />
        )}
      </Field>
    </ActionDialog>
  );
}

function toggled(set: ReadonlySet<string>, value: string, on: boolean): ReadonlySet<string> {
  const next = new Set(set);
  if (on) next.add(value);
  else next.delete(value);
  return next;
}
