import { useState } from 'react';
import { act } from '~/api/queries';
import { Checkbox, Field, Input, TextArea } from '~/ui/controls';
import { ActionDialog } from '~/ui/overlay';
import { Select } from '~/ui/Select';
import { notify } from '~/ui/toasts';
import { BLANK, channelBody, type Draft, faults, isReady, KINDS, type Kind } from './channels';

/** Makes a channel. Its secrets are never shown again. */
export function ChannelDialog({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [draft, setDraft] = useState<Draft>(BLANK);
  const set = (part: Partial<Draft>) => setDraft({ ...draft, ...part });
  const found = faults(draft);
  return (
    <ActionDialog
      open
      onClose={onClose}
      title="New alert channel"
      description="Addresses, keys and headers are kept encrypted from view: they cannot be shown again."
      width={560}
      verb="Make the channel"
      ready={isReady(draft)}
      action={() => act.createChannel(channelBody(draft))}
      onDone={() => {
        notify({ title: 'Channel made', text: 'Send a test to see whether it works.' });
        onDone();
      }}
    >
      <Field label="Kind" hint={KINDS[draft.kind].hint}>
        {({ id }) => (
          <Select
            id={id}
            label="Kind"
            value={draft.kind}
            options={(Object.keys(KINDS) as Kind[]).map((value) => ({ value, label: KINDS[value].label }))}
            onChange={(value) => set({ kind: value as Kind })}
          />
        )}
      </Field>
      <Field label="Name" hint="Rules name it." fault={found.name}>
        {(control) => (
          <Input {...control} value={draft.name} onChange={(event) => set({ name: event.target.value })} />
        )}
      </Field>
      <Field
        label="Address"
        hint={draft.kind === 'pagerduty' ? 'Empty: where PagerDuty usually is.' : undefined}
        fault={found.url}
      >
        {(control) => (
          <Input
            {...control}
            className="mono"
            placeholder="https://…"
            value={draft.url}
            onChange={(event) => set({ url: event.target.value })}
          />
        )}
      </Field>
      <KindFields draft={draft} found={found} set={set} />
      <Checkbox checked={draft.sendResolved} onChange={(sendResolved) => set({ sendResolved })}>
        Tell also when an alert is over
      </Checkbox>
    </ActionDialog>
  );
}

function KindFields(props: {
  draft: Draft;
  found: ReturnType<typeof faults>;
  set: (part: Partial<Draft>) => void;
}) {
  const { draft, set } = props;
  const headers = (
    <Field
      label="Additional headers"
      hint="One a line, such as Authorization: Bearer …"
      fault={props.found.headers}
    >
      {(control) => (
        <TextArea
          {...control}
          rows={2}
          className="mono"
          value={draft.headers}
          onChange={(event) => set({ headers: event.target.value })}
        />
      )}
    </Field>
  );
  switch (draft.kind) {
    case 'webhook':
      return (
        <>
          <Field label="Signing secret" hint="whsec_ and base64. Empty: requests are not signed.">
            {(control) => (
              <Input
                {...control}
                type="password"
                className="mono"
                value={draft.secret}
                onChange={(event) => set({ secret: event.target.value })}
              />
            )}
          </Field>
          {headers}
        </>
      );
    case 'pagerduty':
      return (
        <Field label="Integration key" hint="Of the service that is to be told.">
          {(control) => (
            <Input
              {...control}
              type="password"
              className="mono"
              value={draft.routingKey}
              onChange={(event) => set({ routingKey: event.target.value })}
            />
          )}
        </Field>
      );
    case 'json':
      return (
        <>
          <Field
            label="Body"
            hint="A Jinja template that renders to JSON; it sees message, application, severity, state, rule_type and more."
          >
            {(control) => (
              <TextArea
                {...control}
                rows={4}
                className="mono"
                value={draft.template}
                onChange={(event) => set({ template: event.target.value })}
              />
            )}
          </Field>
          {headers}
        </>
      );
    case 'slack':
      return null;
  }
}
