import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { act, read } from '~/api/queries';
import { Field, Input } from '~/ui/controls';
import { ActionDialog } from '~/ui/overlay';
import { Select } from '~/ui/Select';
import { Banner } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { BLANK, type Draft, faults, metadata, RULE_TYPES, type RuleType } from './rules';

/** Makes a rule: what to watch, from when on to tell, and whom. */
export function RuleDialog({ app, onClose }: { app: string; onClose: () => void }) {
  const [draft, setDraft] = useState<Draft>(BLANK);
  const apps = useQuery(read.apps());
  const set = (part: Partial<Draft>) => setDraft({ ...draft, ...part });
  const found = faults(draft);
  const others = (apps.data ?? []).filter((each) => each.name !== app);
  const needsOther = draft.ruleType === 'UnresponsiveApplication';
  const receiver = draft.receiver || (needsOther ? (others[0]?.name ?? '') : app);
  return (
    <ActionDialog
      open
      onClose={onClose}
      title="New alerting rule"
      width={560}
      verb="Make the rule"
      ready={Object.keys(found).length === 0 && receiver !== ''}
      action={() =>
        act.createAlertingRule(app, {
          ruleType: draft.ruleType,
          ruleMetadata: metadata(draft),
          ...(draft.interval.trim() === '' ? {} : { minIntervalSecs: Number(draft.interval) }),
          ...(receiver === app ? {} : { receivingAppName: receiver }),
        })
      }
      onDone={() => {
        notify({ title: 'The rule holds', text: RULE_TYPES[draft.ruleType].label });
        void queryClient.invalidateQueries({ queryKey: read.alertingRules(app).queryKey });
      }}
    >
      <Field label="When" hint={RULE_TYPES[draft.ruleType].hint}>
        {({ id }) => (
          <Select
            id={id}
            label="When"
            value={draft.ruleType}
            options={(Object.keys(RULE_TYPES) as RuleType[]).map((value) => ({
              value,
              label: RULE_TYPES[value].label,
            }))}
            onChange={(value) => set({ ruleType: value as RuleType, receiver: '' })}
          />
        )}
      </Field>
      <Condition app={app} draft={draft} found={found} onChange={set} />
      {needsOther && others.length === 0 ? (
        <Banner tone="warn">
          An application that does not answer cannot be told. Register another one first.
        </Banner>
      ) : (
        <Field label="Application whose alert handler is called" hint="Alert channels are told as well.">
          {({ id }) => (
            <Select
              id={id}
              label="Application that is told"
              value={receiver}
              options={(needsOther ? others : (apps.data ?? [])).map(({ name }) => ({
                value: name,
                label: <bdi>{name}</bdi>,
                meta: name === app ? 'this one' : undefined,
              }))}
              onChange={(value) => set({ receiver: value })}
            />
          )}
        </Field>
      )}
      <Field
        label="Seconds between two alerts, at least"
        hint="Empty: the rule’s own period."
        fault={found.interval}
      >
        {(control) => (
          <Input
            {...control}
            inputMode="numeric"
            value={draft.interval}
            onChange={(event) => set({ interval: event.target.value })}
          />
        )}
      </Field>
    </ActionDialog>
  );
}

type Part = {
  app: string;
  draft: Draft;
  found: ReturnType<typeof faults>;
  onChange: (part: Partial<Draft>) => void;
};

function Condition(props: Part) {
  const { app, draft } = props;
  const queues = useQuery({ ...read.queues(app), enabled: draft.ruleType === 'SlowQueue' });
  switch (draft.ruleType) {
    case 'WorkflowFailure':
      return (
        <>
          <Text {...props} field="workflowName" label="Workflow" hint="Empty: whichever." />
          <Text {...props} field="threshold" label="Failures, at least" />
          <Text {...props} field="period" label="Within seconds" />
        </>
      );
    case 'SlowQueue':
      return (
        <>
          <Field label="Queue">
            {({ id }) => (
              <Select
                id={id}
                label="Queue"
                value={draft.queueName}
                options={[
                  { value: '', label: 'Any queue' },
                  ...(queues.data ?? []).map(({ name }) => ({ value: name, label: <bdi>{name}</bdi> })),
                ]}
                onChange={(queueName) => props.onChange({ queueName })}
              />
            )}
          </Field>
          <Text {...props} field="wait" label="Waits longer than seconds" />
        </>
      );
    case 'StrandedRecovery':
      return <Text {...props} field="workflows" label="Workflows, at least" />;
    case 'UnresponsiveApplication':
      return null;
  }
}

function Text(props: Part & { field: keyof Draft; label: string; hint?: string }) {
  return (
    <Field label={props.label} hint={props.hint} fault={props.found[props.field]}>
      {(control) => (
        <Input
          {...control}
          value={props.draft[props.field]}
          onChange={(event) => props.onChange({ [props.field]: event.target.value })}
        />
      )}
    </Field>
  );
}
