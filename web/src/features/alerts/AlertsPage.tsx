import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { BellRing, Plus } from 'lucide-react';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { useMay } from '~/api/may';
import { type AlertingRule, act, read } from '~/api/queries';
import { Button, buttonLook } from '~/ui/controls';
import { Age, Chip, Page, Panel, Table } from '~/ui/data';
import { duration } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { May } from '~/ui/May';
import { ActionDialog } from '~/ui/overlay';
import { Empty, Loaded } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { History } from './History';
import { RuleDialog } from './RuleDialog';
import { conditionText, RULE_TYPES } from './rules';
import { TellDialog } from './TellDialog';

/** What is watched, and who is told. */
export function AlertsPage({ app }: { app: string }) {
  const [creating, setCreating] = useState(false);
  return (
    <Page
      title="Alerts"
      actions={
        <May permission="application.write">
          <Button kind="primary" onClick={() => setCreating(true)}>
            <Plus /> New rule
          </Button>
        </May>
      }
    >
      <Panel title="What was found" flush>
        <History app={app} />
      </Panel>
      <Panel
        title="Rules"
        flush
        actions={
          <Link to="/channels" {...buttonLook('quiet', true)}>
            Alert channels
          </Link>
        }
      >
        <Rules app={app} onCreate={() => setCreating(true)} />
      </Panel>
      {creating && <RuleDialog app={app} onClose={() => setCreating(false)} />}
    </Page>
  );
}

function Rules({ app, onCreate }: { app: string; onCreate: () => void }) {
  const may = useMay();
  const rules = useQuery({ ...read.alertingRules(app), ...useRenewal(5_000) });
  const apps = useQuery(read.apps());
  const [deleting, setDeleting] = useState<AlertingRule | null>(null);
  const [telling, setTelling] = useState<AlertingRule | null>(null);
  const names = new Map((apps.data ?? []).map((each) => [each.id, each.name]));
  return (
    <>
      <Loaded query={rules} rows={3}>
        {(list) =>
          list.length === 0 ? (
            <Empty
              icon={<BellRing />}
              title="Nothing is watched yet"
              actions={may('application.write') && <Button onClick={onCreate}>New rule</Button>}
            >
              A rule tells an application’s alert handler, and the alert channels, when workflows fail, a
              queue is slow, work is stranded or nobody answers.
            </Empty>
          ) : (
            <Table
              label="Alerting rules"
              head={
                <>
                  <th>Rule</th>
                  <th>Condition</th>
                  <th>Told</th>
                  <th>Channels</th>
                  <th>At most every</th>
                  <th>Last fired</th>
                  <th>
                    <span className="visually-hidden">Actions</span>
                  </th>
                </>
              }
            >
              {list.map((rule) => (
                <tr key={rule.id}>
                  <td>
                    <strong>{RULE_TYPES[rule.ruleType].label}</strong>
                  </td>
                  <td className="foreign">{conditionText(rule)}</td>
                  <td>
                    <bdi>{names.get(rule.receivingAppId) ?? rule.receivingAppId}</bdi>
                  </td>
                  <td>
                    <span className="row wrap" style={{ gap: 4 }}>
                      {(rule.channels ?? []).map((channel) => (
                        <Chip key={channel}>
                          <bdi>{channel}</bdi>
                        </Chip>
                      ))}
                      <May permission="application.write">
                        <Button kind="quiet" small onClick={() => setTelling(rule)}>
                          Choose…
                        </Button>
                      </May>
                    </span>
                  </td>
                  <td className="num">
                    {rule.minIntervalSecs === null ? (
                      <span className="muted">its period</span>
                    ) : (
                      duration(rule.minIntervalSecs * 1_000)
                    )}
                  </td>
                  <td>
                    {rule.lastFiredAt ? (
                      <Age time={rule.lastFiredAt} />
                    ) : (
                      <span className="muted">never</span>
                    )}
                  </td>
                  <td data-actions>
                    <May permission="application.write">
                      <Button kind="danger" small onClick={() => setDeleting(rule)}>
                        Delete
                      </Button>
                    </May>
                  </td>
                </tr>
              ))}
            </Table>
          )
        }
      </Loaded>
      {telling && <TellDialog app={app} rule={telling} onClose={() => setTelling(null)} />}
      <ActionDialog
        open={deleting !== null}
        onClose={() => setDeleting(null)}
        title="Delete this rule"
        description={deleting ? `${conditionText(deleting)}. Nobody is told of it any more.` : ''}
        verb="Delete"
        danger
        action={() => act.deleteAlertingRule(app, deleting?.id ?? '')}
        onDone={() => {
          notify({ title: 'Rule deleted' });
          void queryClient.invalidateQueries({ queryKey: read.alertingRules(app).queryKey });
        }}
      />
    </>
  );
}
