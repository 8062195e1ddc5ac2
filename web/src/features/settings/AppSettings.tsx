import { useMutation, useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { type FormEvent, useState } from 'react';
import { queryClient, type Schemas } from '~/api/client';
import { useMay } from '~/api/may';
import { Problem } from '~/api/problem';
import { type App, act, read } from '~/api/queries';
import { Button, Checkbox, Field, Input } from '~/ui/controls';
import { Page, Panel } from '~/ui/data';
import { ActionDialog } from '~/ui/overlay';
import { Select } from '~/ui/Select';
import { Banner, Fault, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { Limits } from './Limits';
import s from './Settings.module.css';

/** How an application is watched: when a process counts as dead, and what may be done then. */
export function AppSettings({ app }: { app: string }) {
  const query = useQuery(read.app(app));
  const mayWrite = useMay()('application.write');
  return (
    <Page title="Settings">
      <Loaded query={query}>
        {(data) => (
          <fieldset className={s.form} disabled={!mayWrite}>
            {!mayWrite && <Banner tone="off">You may see these settings, and not change them.</Banner>}
            <Panel title="Recovery">
              <Form key={JSON.stringify(data)} app={data} />
            </Panel>
            <Panel title="Retention and time-outs">
              <Limits key={JSON.stringify(data)} app={data} />
            </Panel>
            {mayWrite && <Danger app={data.name} />}
          </fieldset>
        )}
      </Loaded>
    </Page>
  );
}

type Policy = NonNullable<Schemas['PatchAppInputBody']['recoveryPolicy']>;

function Form({ app }: { app: App }) {
  const [timeout, setTimeout_] = useState(String(app.executorTimeoutSecs));
  const [policy, setPolicy] = useState<Policy>(app.recoveryPolicy ?? 'same-version');
  const [privateMode, setPrivateMode] = useState(app.privateMode);
  const save = useMutation({
    mutationFn: () =>
      act.updateApp(app.name, { executorTimeoutSecs: Number(timeout), recoveryPolicy: policy, privateMode }),
    onSuccess: () => {
      notify({ title: 'Settings saved' });
      void queryClient.invalidateQueries({ queryKey: read.app(app.name).queryKey });
    },
  });
  const fault = /^[1-9]\d{0,8}$/.test(timeout) ? undefined : 'A whole number of seconds, at least 1.';
  function submit(event: FormEvent) {
    event.preventDefault();
    if (!fault) save.mutate();
  }
  return (
    <form className="stack" style={{ gap: 16 }} onSubmit={submit}>
      <Field
        label="Grace, in seconds"
        hint="How long a lost connection may last before the process counts as dead and its workflows are handed on."
        fault={fault}
      >
        {(control) => (
          <Input
            {...control}
            inputMode="numeric"
            style={{ maxWidth: 140 }}
            value={timeout}
            onChange={(event) => setTimeout_(event.target.value)}
          />
        )}
      </Field>
      <Field
        label="Who may take the work of a dead executor"
        hint="A workflow goes on with the code it started with, unless you say otherwise here."
      >
        {({ id }) => (
          <Select
            id={id}
            label="Recovery policy"
            value={policy}
            onChange={(value) => setPolicy(value as Policy)}
            options={[
              { value: 'same-version', label: 'Executors of the same version only' },
              { value: 'latest', label: 'Executors of the latest version, if none of the same is left' },
            ]}
          />
        )}
      </Field>
      {policy === 'latest' && (
        <Banner tone="warn">
          A workflow whose steps changed between the versions fails where they differ. Choose this only if
          your deploys keep the steps of running workflows as they are.
        </Banner>
      )}
      <Checkbox checked={privateMode} onChange={setPrivateMode}>
        <strong>Metadata only.</strong> Inputs, outputs, events and messages are never asked of the executors,
        so they cannot be seen here either.
      </Checkbox>
      {save.error && <Fault problem={Problem.of(save.error)} />}
      <div>
        <Button kind="primary" type="submit" disabled={Boolean(fault) || save.isPending}>
          {save.isPending ? 'Saving…' : 'Save'}
        </Button>
      </div>
    </form>
  );
}

function Danger({ app }: { app: string }) {
  const [open, setOpen] = useState(false);
  const [typed, setTyped] = useState('');
  const navigate = useNavigate();
  return (
    <Panel title="Delete">
      <div className="row wrap" style={{ justifyContent: 'space-between' }}>
        <p className="soft grow">
          Forgets the application, its recoveries and its connections. The workflows in its own database are
          not touched.
        </p>
        <Button kind="danger" onClick={() => setOpen(true)}>
          Delete the application…
        </Button>
      </div>
      <ActionDialog
        open={open}
        onClose={() => {
          setOpen(false);
          setTyped('');
        }}
        title={`Delete ${app}`}
        description="Its executors are disconnected and refused until it is registered again. Dead executors’ work is no longer recovered."
        verb="Delete"
        danger
        ready={typed === app}
        action={() => act.deleteApp(app)}
        onDone={() => {
          notify({ title: `${app} was deleted` });
          const { queryKey } = read.apps();
          // At once, or the fleet's page would ask about an application that is gone.
          queryClient.setQueryData<App[]>(queryKey, (apps) => apps?.filter((each) => each.name !== app));
          void queryClient.invalidateQueries({ queryKey });
          void navigate({ to: '/' });
        }}
      >
        <Field label={`Type ${app} to confirm`}>
          {(control) => (
            <Input {...control} value={typed} onChange={(event) => setTyped(event.target.value)} />
          )}
        </Field>
      </ActionDialog>
    </Panel>
  );
}
