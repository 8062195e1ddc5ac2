import { useQuery } from '@tanstack/react-query';
import { type Alert, read } from '~/api/queries';
import { Age, Badge, Table, type Tone, Took } from '~/ui/data';
import { plural } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { Empty, Loaded } from '~/ui/states';
import { RULE_TYPES, type RuleType } from './rules';

/** What rules have found, and who was told. */
export function History({ app }: { app: string }) {
  const alerts = useQuery({ ...read.alerts(app, { limit: 50 }), ...useRenewal(5_000) });
  return (
    <Loaded query={alerts} rows={2}>
      {(list) =>
        list.length === 0 ? (
          <Empty title="All quiet">No rule has found anything in the last 30 days.</Empty>
        ) : (
          <Table
            label="Alerts"
            head={
              <>
                <th>State</th>
                <th>Rule</th>
                <th>What</th>
                <th>Since</th>
                <th>Lasted</th>
                <th>Told</th>
              </>
            }
          >
            {list.map((alert) => (
              <tr key={alert.id}>
                <td>
                  <Badge tone={alert.state === 'firing' ? 'err' : 'ok'}>
                    {alert.state === 'firing' ? 'Firing' : 'Over'}
                  </Badge>
                </td>
                <td>{RULE_TYPES[alert.ruleType as RuleType]?.label ?? alert.ruleType}</td>
                <td className="foreign">{alert.message}</td>
                <td>
                  <Age time={alert.since} />
                </td>
                <td>
                  <Took start={alert.since} end={alert.resolvedAt} />
                </td>
                <td>
                  <Told alert={alert} />
                </td>
              </tr>
            ))}
          </Table>
        )
      }
    </Loaded>
  );
}

const DELIVERY: Record<string, Tone> = { DELIVERED: 'ok', FAILED: 'err', PENDING: 'wait' };

function Told({ alert }: { alert: Alert }) {
  const { handler, deliveries } = alert;
  return (
    <span className="row wrap" style={{ gap: 4 }}>
      {handler && (
        <span title={`Its alert handler: ${handler.outcome.replaceAll('_', ' ')}`}>
          <Badge tone={handler.outcome === 'delivered' ? 'ok' : 'warn'}>{handler.appName}</Badge>
        </span>
      )}
      {deliveries.map((delivery) => (
        <span
          key={`${delivery.channel} ${delivery.event}`}
          title={`${delivery.event}, ${plural(delivery.attempts, 'attempt')}${delivery.error ? `: ${delivery.error}` : ''}`}
        >
          <Badge tone={DELIVERY[delivery.state] ?? 'off'}>{delivery.channel}</Badge>
        </span>
      ))}
      {!handler && deliveries.length === 0 && <span className="muted">nobody yet</span>}
    </span>
  );
}
