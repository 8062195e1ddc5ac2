import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useSelf } from '~/api/may';
import { act, read } from '~/api/queries';
import { Checkbox, Field, Input } from '~/ui/controls';
import { ActionDialog } from '~/ui/overlay';
import { notify } from '~/ui/toasts';
import { MEANING } from '../keys/permissions';

/** A role of the organisation's own. Nobody can give what they do not have. */
export function RoleDialog({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [name, setName] = useState('');
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(['application.read']));
  const permissions = useQuery(read.permissions());
  const own = useSelf()?.permissions ?? [];
  const fault =
    name === '' || /^[a-zA-Z0-9_]{3,30}$/.test(name) ? undefined : '3 to 30 letters, digits and _.';
  return (
    <ActionDialog
      open
      onClose={onClose}
      title="New role"
      width={540}
      verb="Make the role"
      ready={name !== '' && !fault && chosen.size > 0}
      action={() => act.createRole(name, [...chosen])}
      onDone={() => {
        notify({ title: 'Role made', text: name });
        onDone();
      }}
    >
      <Field label="Name" fault={fault}>
        {(control) => (
          <Input {...control} value={name} maxLength={30} onChange={(event) => setName(event.target.value)} />
        )}
      </Field>
      <fieldset style={{ border: 0, padding: 0, margin: 0 }} className="stack">
        <legend style={{ fontWeight: 500, paddingBottom: 8 }}>It may</legend>
        {(permissions.data ?? []).map((permission) => (
          <Checkbox
            key={permission}
            checked={chosen.has(permission)}
            disabled={!own.includes(permission)}
            onChange={(on) => {
              const next = new Set(chosen);
              if (on) next.add(permission);
              else next.delete(permission);
              setChosen(next);
            }}
          >
            {MEANING[permission] ?? permission} <code className="muted">{permission}</code>
          </Checkbox>
        ))}
      </fieldset>
    </ActionDialog>
  );
}
