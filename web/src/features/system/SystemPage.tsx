import { useQuery } from '@tanstack/react-query';
import type { Schemas } from '~/api/client';
import { read } from '~/api/queries';
import { Age, Badge, Chip, Facts, Id, Page, Panel, Table } from '~/ui/data';
import { count } from '~/ui/format';
import { useRenewal } from '~/ui/live';
import { Banner, Empty, Loaded } from '~/ui/states';

type System = Schemas['System'];

/** The installation itself: who serves, who does what at the moment, and which SDKs are out there. */
export function SystemPage() {
  const system = useQuery({ ...read.system(), ...useRenewal(5_000) });
  return (
    <Page title="System">
      <Loaded query={system}>
        {(data) => (
          <>
            <Server system={data} />
            <Panel title="Instances" flush>
              <Instances system={data} />
            </Panel>
            <Panel title="Work that one instance holds now" flush>
              <Leases system={data} />
            </Panel>
            <Panel title="SDKs seen" flush>
              <Sdks system={data} />
            </Panel>
          </>
        )}
      </Loaded>
    </Page>
  );
}

function Server({ system }: { system: System }) {
  const behind = system.schemaVersion !== system.knownSchemaVersion;
  return (
    <>
      {behind && (
        <Banner tone="warn">
          The database’s schema is at {system.schemaVersion}, and the instance that answered knows{' '}
          {system.knownSchemaVersion}: instances of different releases serve at once. Finish the upgrade.
        </Banner>
      )}
      <Panel>
        <Facts
          facts={[
            ['Version of the server', system.version],
            ['Its database', system.database],
            ['Schema', `version ${system.schemaVersion}`],
            ['Answered by', <Id key="id" value={system.instanceId} label="instance id" />],
          ]}
        />
      </Panel>
    </>
  );
}

function Instances({ system }: { system: System }) {
  return (
    <Table
      label="Instances"
      head={
        <>
          <th>Instance</th>
          <th>State</th>
          <th>Address</th>
          <th data-num>Executors</th>
          <th>Serves since</th>
          <th>Last heard of</th>
        </>
      }
    >
      {system.instances.map((instance) => (
        <tr key={instance.id}>
          <td style={{ maxWidth: 300 }}>
            <Id value={instance.id} label="instance id" />
          </td>
          <td>
            {instance.alive ? (
              <Badge tone="ok">Serving</Badge>
            ) : instance.stoppedAt ? (
              <Badge tone="off">Stopped</Badge>
            ) : (
              <Badge tone="err">Lost</Badge>
            )}
          </td>
          <td className="mono">{instance.address}</td>
          <td data-num>{count(instance.executors)}</td>
          <td>
            <Age time={instance.servingSince} />
          </td>
          <td>
            <Age time={instance.heartbeatAt} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Leases({ system }: { system: System }) {
  if (system.leases.length === 0) {
    return (
      <Empty title="Nothing at this moment">
        Recoveries, operations and periodic work are each done by one instance at a time, which holds a lease
        while it does.
      </Empty>
    );
  }
  return (
    <Table
      label="Leases"
      head={
        <>
          <th>Work</th>
          <th>Application</th>
          <th>On</th>
          <th>Instance</th>
          <th>Until</th>
        </>
      }
    >
      {system.leases.map((lease) => (
        <tr key={`${lease.appName} ${lease.work} ${lease.subject}`}>
          <td>{lease.work.replaceAll('_', ' ')}</td>
          <td>
            <bdi>{lease.appName}</bdi>
          </td>
          <td style={{ maxWidth: 240 }}>
            {lease.subject ? <Id value={lease.subject} label="id" /> : <span className="muted">–</span>}
          </td>
          <td style={{ maxWidth: 260 }}>
            <Id value={lease.instanceId} label="instance id" />
          </td>
          <td>
            <Age time={lease.until} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Sdks({ system }: { system: System }) {
  if (system.sdks.length === 0) return <Empty title="No executor was seen yet" />;
  return (
    <Table
      label="SDKs"
      head={
        <>
          <th>Language</th>
          <th>Release</th>
          <th data-num>Connected</th>
          <th>Applications</th>
        </>
      }
    >
      {system.sdks.map((sdk) => (
        <tr key={`${sdk.language} ${sdk.version}`}>
          <td>{sdk.language ?? 'unknown'}</td>
          <td className="mono">{sdk.version ?? 'unknown'}</td>
          <td data-num>{count(sdk.connected)}</td>
          <td>
            <span className="row wrap" style={{ gap: 4 }}>
              {sdk.appNames.map((name) => (
                <Chip key={name}>
                  <bdi>{name}</bdi>
                </Chip>
              ))}
            </span>
          </td>
        </tr>
      ))}
    </Table>
  );
}
