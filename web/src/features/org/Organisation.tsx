import { useMutation, useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { queryClient, type Schemas } from '~/api/client';
import { useMay } from '~/api/may';
import { Problem } from '~/api/problem';
import { act, read } from '~/api/queries';
import { setOrgName } from '~/api/session';
import { Button, Field, Input } from '~/ui/controls';
import { Panel } from '~/ui/data';
import { Fault, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';

/** The organisation's name, and how long its audit log is kept. */
export function Organisation() {
  const organisation = useQuery(read.organisation());
  return (
    <Panel title="Organisation">
      <Loaded query={organisation} rows={2}>
        {(data) => <Form key={JSON.stringify(data)} organisation={data} />}
      </Loaded>
    </Panel>
  );
}

function Form({ organisation }: { organisation: Schemas['Organization'] }) {
  const mayWrite = useMay()('organization.write');
  const [name, setName] = useState(organisation.name);
  const [days, setDays] = useState(String(organisation.auditLogRetentionDays));
  const faults = {
    name: /^[a-z0-9_]{3,30}$/.test(name) ? undefined : '3 to 30 lower-case letters, digits and _.',
    days:
      /^\d{1,4}$/.test(days) && Number(days) >= 7 && Number(days) <= 3_650 ? undefined : 'From 7 to 3650.',
  };
  const save = useMutation({
    mutationFn: () =>
      act.updateOrganisation({
        auditLogRetentionDays: Number(days),
        ...(name === organisation.name ? {} : { newName: name }),
      }),
    onSuccess: async () => {
      notify({ title: 'Organisation saved' });
      // Its name is part of every path from here on.
      setOrgName(name);
      await queryClient.invalidateQueries();
    },
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    save.mutate();
  }
  return (
    <form className="stack" style={{ maxWidth: 420 }} onSubmit={submit}>
      <Field label="Name" hint="Part of every path of the API: scripts have to follow." fault={faults.name}>
        {(control) => (
          <Input
            {...control}
            disabled={!mayWrite}
            value={name}
            onChange={(event) => setName(event.target.value)}
          />
        )}
      </Field>
      <Field label="Days that the audit log is kept" fault={faults.days}>
        {(control) => (
          <Input
            {...control}
            disabled={!mayWrite}
            inputMode="numeric"
            value={days}
            onChange={(event) => setDays(event.target.value)}
          />
        )}
      </Field>
      {save.error && <Fault problem={Problem.of(save.error)} />}
      {mayWrite && (
        <div>
          <Button type="submit" disabled={Boolean(faults.name ?? faults.days) || save.isPending}>
            {save.isPending ? 'Saving…' : 'Save'}
          </Button>
        </div>
      )}
    </form>
  );
}
