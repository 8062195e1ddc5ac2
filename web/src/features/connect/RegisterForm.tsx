import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { act, read } from '~/api/queries';
import { Button, Field, Input } from '~/ui/controls';
import { Fault } from '~/ui/states';
import s from './Connect.module.css';
import { nameFault } from './snippets';

export function RegisterForm({ onDone }: { onDone: (app: string) => void }) {
  const [name, setName] = useState('');
  const register = useMutation({
    mutationFn: () => act.registerApp(name),
    onSuccess: () => {
      onDone(name);
      void queryClient.invalidateQueries({ queryKey: read.apps().queryKey });
    },
  });
  const fault = nameFault(name);
  function submit(event: FormEvent) {
    event.preventDefault();
    if (!fault && name) register.mutate();
  }
  return (
    <form onSubmit={submit} className="stack" style={{ gap: 8 }}>
      <Field
        label="Application name"
        fault={fault}
        hint="The name your code gives its DBOS or Segno instance. All executors of one application share it."
      >
        {(control) => (
          <div className={s.inline}>
            <Input
              {...control}
              placeholder="checkout"
              value={name}
              maxLength={256}
              onChange={(event) => setName(event.target.value)}
            />
            <Button
              kind="primary"
              type="submit"
              style={{ height: 32 }}
              disabled={!name || Boolean(fault) || register.isPending}
            >
              Register
            </Button>
          </div>
        )}
      </Field>
      {register.error && <Fault problem={Problem.of(register.error)} />}
    </form>
  );
}
