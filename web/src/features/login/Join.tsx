import { useMutation } from '@tanstack/react-query';
import { useRouter } from '@tanstack/react-router';
import { type FormEvent, useState } from 'react';
import { queryClient } from '~/api/client';
import { useSelf } from '~/api/may';
import { Problem } from '~/api/problem';
import { act } from '~/api/queries';
import { Button, Field, Input } from '~/ui/controls';
import { Fault } from '~/ui/states';
import { Card } from './Card';
import s from './Login.module.css';
import { leave } from './leave';

/** Somebody whom the issuer knows and this server does not yet: they choose a name, and get in. */
export function Join() {
  const router = useRouter();
  const self = useSelf();
  const [name, setName] = useState('');
  const [secret, setSecret] = useState('');
  const fault =
    name === '' || /^[a-z0-9_]{3,30}$/.test(name) ? undefined : '3 to 30 lower-case letters, digits and _.';
  const register = useMutation({
    mutationFn: () => act.register({ name, ...(secret.trim() ? { secret: secret.trim() } : {}) }),
    onSuccess: async () => {
      queryClient.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== 'session-config' });
      await router.navigate({ to: '/' });
    },
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    if (name !== '' && !fault) register.mutate();
  }
  return (
    <Card onSubmit={submit}>
      <p className="soft">
        You are logged in
        {self && (
          <>
            {' '}
            as <strong className="foreign">{self.display}</strong>
          </>
        )}{' '}
        and new here.
      </p>
      <Field label="Name" hint="By which others on this server see you." fault={fault}>
        {(control) => (
          <Input
            {...control}
            value={name}
            maxLength={30}
            autoFocus
            onChange={(event) => setName(event.target.value)}
          />
        )}
      </Field>
      <Field
        label="Join secret"
        hint="From somebody of the organisation you join. Without one you join the one that claims your e-mail domain, else you get your own."
      >
        {(control) => (
          <Input
            {...control}
            className="mono"
            value={secret}
            onChange={(event) => setSecret(event.target.value)}
          />
        )}
      </Field>
      {register.error && <Fault problem={Problem.of(register.error)} />}
      <Button kind="primary" type="submit" disabled={name === '' || Boolean(fault) || register.isPending}>
        {register.isPending ? 'Registering…' : 'Go on'}
      </Button>
      <button type="button" className={s.other} onClick={() => void leave()}>
        Log out
      </button>
    </Card>
  );
}
