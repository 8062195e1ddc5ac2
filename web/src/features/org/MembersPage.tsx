import { useMutation, useQuery } from '@tanstack/react-query';
import { Plus, UserPlus } from 'lucide-react';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { useMay, useSelf } from '~/api/may';
import { Problem } from '~/api/problem';
import { act, type Role, read } from '~/api/queries';
import { Button } from '~/ui/controls';
import { Badge, Chip, Code, Page, Panel, Table } from '~/ui/data';
import { useRenewal } from '~/ui/live';
import { May } from '~/ui/May';
import { ActionDialog, Dialog } from '~/ui/overlay';
import { Select } from '~/ui/Select';
import { Fault, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { Domains } from './Domains';
import { Organisation } from './Organisation';
import { RoleDialog } from './RoleDialog';

/** Who belongs to the organisation, what each may do, and how further people get in. */
export function MembersPage() {
  return (
    <Page title="Members" actions={<Invite />}>
      <Members />
      <Roles />
      <Domains />
      <Organisation />
    </Page>
  );
}

function Invite() {
  const [secret, setSecret] = useState<string | null>(null);
  const make = useMutation({
    mutationFn: act.makeSecret,
    onSuccess: setSecret,
    onError: (error) =>
      notify({ title: 'No join secret was made', text: Problem.of(error).message, tone: 'err' }),
  });
  return (
    <May permission="organization.write">
      <Button kind="primary" disabled={make.isPending} onClick={() => make.mutate()}>
        <UserPlus /> Invite somebody
      </Button>
      <Dialog
        open={secret !== null}
        onClose={() => setSecret(null)}
        title="A join secret"
        description="Give it to one person. It lets them in once, within a week, and cannot be shown again."
        foot={
          <Button kind="primary" onClick={() => setSecret(null)}>
            I have copied it
          </Button>
        }
      >
        <Code text={secret ?? ''} label="join secret" />
        <p className="muted">They log in here and are asked for it.</p>
      </Dialog>
    </May>
  );
}

function renew(): void {
  for (const { queryKey } of [read.members(), read.roles()]) void queryClient.invalidateQueries({ queryKey });
}

function Members() {
  const members = useQuery({ ...read.members(), ...useRenewal(15_000) });
  const roles = useQuery(read.roles());
  const self = useSelf();
  const mayWrite = useMay()('organization.write');
  const [removing, setRemoving] = useState<string | null>(null);
  const [granting, setGranting] = useState<{ member: string; role: string } | null>(null);
  return (
    <Panel flush>
      <Loaded query={members} rows={3}>
        {({ users }) => (
          <Table
            label="Members"
            head={
              <>
                <th>Name</th>
                <th>Role</th>
                <th>May</th>
                <th>
                  <span className="visually-hidden">Actions</span>
                </th>
              </>
            }
          >
            {Object.entries(users)
              .sort(([a], [b]) => a.localeCompare(b))
              .map(([name, role]) => (
                <tr key={name}>
                  <td>
                    <strong className="foreign">{name}</strong> {name === self?.name && <Badge>you</Badge>}
                  </td>
                  <td style={{ width: 200 }}>
                    {mayWrite ? (
                      <Select
                        label={`Role of ${name}`}
                        value={role.name}
                        options={(roles.data ?? [role]).map((each) => ({
                          value: each.name,
                          label: each.name,
                        }))}
                        onChange={(next) => next !== role.name && setGranting({ member: name, role: next })}
                      />
                    ) : (
                      role.name
                    )}
                  </td>
                  <td>
                    <Permissions role={role} />
                  </td>
                  <td data-actions>
                    {mayWrite && (
                      <Button kind="danger" small onClick={() => setRemoving(name)}>
                        Remove
                      </Button>
                    )}
                  </td>
                </tr>
              ))}
          </Table>
        )}
      </Loaded>
      <ActionDialog
        open={removing !== null}
        onClose={() => setRemoving(null)}
        title={`Remove ${removing ?? ''}`}
        description="They lose their account on this server at once. API keys stay: revoke those they know."
        verb="Remove"
        danger
        action={() => act.removeMember(removing ?? '')}
        onDone={() => {
          notify({ title: 'Member removed' });
          renew();
        }}
      />
      <ActionDialog
        open={granting !== null}
        onClose={() => setGranting(null)}
        title={`Make ${granting?.member ?? ''} ${granting?.role ?? ''}`}
        description="It holds from their next request on."
        verb="Change the role"
        action={() => act.grantRole(granting?.member ?? '', granting?.role ?? '')}
        onDone={() => {
          notify({ title: 'Role changed' });
          renew();
        }}
      />
    </Panel>
  );
}

function Permissions({ role }: { role: Role }) {
  return (
    <span className="row wrap" style={{ gap: 4 }}>
      {role.permissions.map((permission) => (
        <Chip key={permission}>{permission}</Chip>
      ))}
    </span>
  );
}

function Roles() {
  const roles = useQuery({ ...read.roles(), ...useRenewal(15_000) });
  const [creating, setCreating] = useState(false);
  const remove = useMutation({ mutationFn: act.deleteRole, onSuccess: renew });
  return (
    <Panel
      title="Roles"
      flush
      actions={
        <May permission="organization.write">
          <Button small onClick={() => setCreating(true)}>
            <Plus /> New role
          </Button>
        </May>
      }
    >
      {remove.error && (
        <div style={{ padding: 12 }}>
          <Fault problem={Problem.of(remove.error)} />
        </div>
      )}
      <Loaded query={roles} rows={2}>
        {(list) => (
          <Table
            label="Roles"
            head={
              <>
                <th>Role</th>
                <th>May</th>
                <th>
                  <span className="visually-hidden">Actions</span>
                </th>
              </>
            }
          >
            {list.map((role) => (
              <tr key={role.name}>
                <td>
                  <strong>{role.name}</strong> {role.isGlobal && <span className="muted">built in</span>}
                </td>
                <td>
                  <Permissions role={role} />
                </td>
                <td data-actions>
                  {!role.isGlobal && (
                    <May permission="organization.write">
                      <Button
                        kind="danger"
                        small
                        disabled={remove.isPending}
                        onClick={() => remove.mutate(role.name)}
                      >
                        Delete
                      </Button>
                    </May>
                  )}
                </td>
              </tr>
            ))}
          </Table>
        )}
      </Loaded>
      {creating && <RoleDialog onClose={() => setCreating(false)} onDone={renew} />}
    </Panel>
  );
}
