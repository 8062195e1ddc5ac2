import { Tabs } from '@base-ui/react/tabs';
import { useMutation, useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { Check, CircleCheck, KeyRound } from 'lucide-react';
import { type ReactNode, useState } from 'react';
import { serverUrl } from '~/api/base';
import { useMay, useSelf } from '~/api/may';
import { Problem } from '~/api/problem';
import { act, type Executor, read } from '~/api/queries';
import { Button, buttonLook, controlStyles } from '~/ui/controls';
import { Badge, Code, Dot } from '~/ui/data';
import { plural } from '~/ui/format';
import { Fault } from '~/ui/states';
import s from './Connect.module.css';
import { RegisterForm } from './RegisterForm';
import { LANGUAGES, type Language, snippet, websocketUrl } from './snippets';

type StepState = 'done' | 'now' | 'later';

/** From nothing to a connected application: register, key, code, and the moment it turns green. */
export function Guide({ app, onRegistered }: { app: string | null; onRegistered: (app: string) => void }) {
  const [key, setKey] = useState<string | null>(null);
  const executors = useQuery({
    ...read.executors(app ?? ''),
    enabled: app !== null,
    // Waiting for one event: this is looked at even while the console is paused.
    refetchInterval: 1_000,
  });
  const connected = (executors.data ?? []).filter((executor) => executor.status === 'HEALTHY');
  // Without authentication any text does as a key, so that step is done from the start.
  const self = useSelf();
  const open = self?.mode === 'none';
  const haveKey = open || key !== null;
  return (
    <div className={s.steps}>
      <GuideStep number={1} title="Register the application" state={app ? 'done' : 'now'}>
        {app ? (
          <p className="soft">
            <strong>{app}</strong> is registered.
          </p>
        ) : (
          <RegisterForm onDone={onRegistered} />
        )}
      </GuideStep>
      <GuideStep
        number={2}
        title="Make a key for its executors"
        state={!app ? 'later' : haveKey ? 'done' : 'now'}
      >
        {open ? (
          <p className="soft">This server runs without authentication: any text does as a key.</p>
        ) : (
          <ExecutorKey app={app} value={key} onKey={setKey} />
        )}
      </GuideStep>
      <GuideStep
        number={3}
        title="Point the application here"
        state={!app || !haveKey ? 'later' : connected.length > 0 ? 'done' : 'now'}
      >
        <Snippets app={app ?? 'my-app'} secret={open ? 'any-text' : (key ?? 'YOUR_KEY')} />
      </GuideStep>
      <GuideStep
        number={4}
        title="Start it"
        state={connected.length > 0 ? 'done' : app && haveKey ? 'now' : 'later'}
      >
        {app && <Waiting app={app} connected={connected} />}
      </GuideStep>
    </div>
  );
}

function GuideStep(props: { number: number; title: string; state: StepState; children: ReactNode }) {
  return (
    <section className={s.step} data-state={props.state}>
      <div className={s.rail}>
        <span className={s.number}>
          {props.state === 'done' ? <Check aria-label="Done" /> : props.number}
        </span>
      </div>
      <div className={s.body}>
        <h2>{props.title}</h2>
        {props.children}
      </div>
    </section>
  );
}

function ExecutorKey(props: { app: string | null; value: string | null; onKey: (key: string) => void }) {
  const create = useMutation({
    mutationFn: async (app: string) => {
      const body = { appNames: [app], permissions: ['websocket.connect'] };
      try {
        return await act.createToken(`${app}-executors`, body);
      } catch (error) {
        if (Problem.of(error).status !== 409) throw error;
        // A key of that name exists, and its secret cannot be shown again: make another.
        return act.createToken(`${app}-executors-${Date.now().toString(36)}`, body);
      }
    },
    onSuccess: props.onKey,
  });
  const mayMake = useMay()('token.write');
  if (!mayMake) {
    return (
      <p className="soft">
        You may not make keys. Ask an administrator for one that may <code>websocket.connect</code>.
      </p>
    );
  }
  if (props.value) {
    return (
      <>
        <p className="soft">Copy it now: it is not shown again. It is already in the code below.</p>
        <Code text={props.value} label="key" />
      </>
    );
  }
  return (
    <>
      <p className="soft">It may do one thing: connect executors of this application.</p>
      <div>
        <Button
          kind="primary"
          disabled={!props.app || create.isPending}
          onClick={() => props.app && create.mutate(props.app)}
        >
          <KeyRound /> Make a key
        </Button>
      </div>
      {create.error && <Fault problem={Problem.of(create.error)} />}
    </>
  );
}

function Snippets({ app, secret }: { app: string; secret: string }) {
  const [language, setLanguage] = useState<Language>('python');
  const url = websocketUrl(serverUrl(''));
  return (
    <Tabs.Root value={language} onValueChange={(value) => setLanguage(value as Language)} className="stack">
      <Tabs.List className={controlStyles.tabs} aria-label="Language">
        {LANGUAGES.map((each) => (
          <Tabs.Tab key={each} value={each} className={controlStyles.tab}>
            {snippet(each, app, url, secret).label}
          </Tabs.Tab>
        ))}
      </Tabs.List>
      {LANGUAGES.map((each) => {
        const { install, code, note } = snippet(each, app, url, secret);
        return (
          <Tabs.Panel key={each} value={each} className="stack">
            <Code text={install} label="command" />
            <Code text={code} label="code" short />
            {note && <p className="muted">{note}</p>}
          </Tabs.Panel>
        );
      })}
    </Tabs.Root>
  );
}

function Waiting({ app, connected }: { app: string; connected: Executor[] }) {
  const first = connected[0];
  if (!first) {
    return (
      <div className={s.waiting} role="status">
        <Dot tone="wait" pulse />
        Waiting for the first executor of {app}. An executor that was refused tries again by itself.
      </div>
    );
  }
  return (
    <div className={s.connected} role="status">
      <CircleCheck />
      <div className="grow">
        <strong>
          {connected.length === 1 ? 'Connected' : `${plural(connected.length, 'executor')} connected`}
        </strong>
        : <bdi className="mono">{first.executorId}</bdi>
        {first.hostname && (
          <>
            {' '}
            on <bdi>{first.hostname}</bdi>
          </>
        )}{' '}
        <Badge tone="ok">
          {first.language ?? 'unknown'} {first.dbosVersion ?? ''}
        </Badge>
      </div>
      <Link to="/apps/$app/workflows" params={{ app }} {...buttonLook('primary')}>
        See its workflows
      </Link>
    </div>
  );
}
