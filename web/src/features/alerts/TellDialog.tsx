import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { type AlertingRule, act, read } from '~/api/queries';
import { Checkbox } from '~/ui/controls';
import { ActionDialog } from '~/ui/overlay';
import { Empty, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { KINDS } from '../channels/channels';
import { conditionText } from './rules';

/** Chooses the channels that a rule tells. */
export function TellDialog({ app, rule, onClose }: { app: string; rule: AlertingRule; onClose: () => void }) {
  const channels = useQuery(read.channels());
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(rule.channels ?? []));
  return (
    <ActionDialog
      open
      onClose={onClose}
      title="Channels that are told"
      description={conditionText(rule)}
      verb="Save"
      action={() => act.setRuleChannels(app, rule.id, [...chosen])}
      onDone={() => {
        notify({ title: 'Channels saved' });
        void queryClient.invalidateQueries({ queryKey: read.alertingRules(app).queryKey });
      }}
    >
      <Loaded query={channels} rows={2}>
        {(list) =>
          list.length === 0 ? (
            <Empty title="There is no channel yet">
              <Link to="/channels" className="link">
                Make one
              </Link>{' '}
              for Slack, PagerDuty or any web address.
            </Empty>
          ) : (
            <div className="stack">
              {list.map(({ name, kind }) => (
                <Checkbox
                  key={name}
                  checked={chosen.has(name)}
                  onChange={(on) => {
                    const next = new Set(chosen);
                    if (on) next.add(name);
                    else next.delete(name);
                    setChosen(next);
                  }}
                >
                  <bdi>{name}</bdi> <span className="muted">{KINDS[kind].label}</span>
                </Checkbox>
              ))}
            </div>
          )
        }
      </Loaded>
    </ActionDialog>
  );
}
