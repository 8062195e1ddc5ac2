import { useMutation, useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { act, read } from '~/api/queries';
import { Button, Input } from '~/ui/controls';
import { Age, Badge, Panel, Table } from '~/ui/data';
import { May } from '~/ui/May';
import { Empty, Fault, Loaded } from '~/ui/states';

function renew(): void {
  void queryClient.invalidateQueries({ queryKey: read.domains().queryKey });
}

/** E-mail domains whose people join this organisation when they first log in. */
export function Domains() {
  const domains = useQuery(read.domains());
  const release = useMutation({ mutationFn: act.releaseDomain, onSuccess: renew });
  return (
    <Panel title="E-mail domains" flush actions={<ClaimForm />}>
      {release.error && (
        <div style={{ padding: 12 }}>
          <Fault problem={Problem.of(release.error)} />
        </div>
      )}
      <Loaded query={domains} rows={2}>
        {({ claims }) =>
          claims.length === 0 ? (
            <Empty title="No domain is claimed">
              Whoever registers with an address of a claimed domain joins this organisation by themselves.
            </Empty>
          ) : (
            <Table
              label="E-mail domains"
              head={
                <>
                  <th>Domain</th>
                  <th>State</th>
                  <th>Claimed by</th>
                  <th>When</th>
                  <th>
                    <span className="visually-hidden">Actions</span>
                  </th>
                </>
              }
            >
              {claims.map((claim) => (
                <tr key={claim.id}>
                  <td>
                    <strong className="foreign">{claim.domain}</strong>
                  </td>
                  <td>
                    <Badge
                      tone={claim.status === 'approved' ? 'ok' : claim.status === 'denied' ? 'err' : 'wait'}
                    >
                      {claim.status}
                    </Badge>
                  </td>
                  <td>
                    <bdi>{claim.requestedBy}</bdi>
                  </td>
                  <td>
                    <Age time={claim.requestedAt} />
                  </td>
                  <td data-actions>
                    <May permission="organization.write">
                      <Button
                        kind="danger"
                        small
                        disabled={release.isPending}
                        onClick={() => release.mutate(claim.domain)}
                      >
                        Release
                      </Button>
                    </May>
                  </td>
                </tr>
              ))}
            </Table>
          )
        }
      </Loaded>
    </Panel>
  );
}

function ClaimForm() {
  const [domain, setDomain] = useState('');
  const claim = useMutation({
    mutationFn: () => act.claimDomain(domain.trim()),
    onSuccess: () => {
      setDomain('');
      renew();
    },
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    if (domain.trim() !== '') claim.mutate();
  }
  return (
    <May permission="organization.write">
      <form className="row" onSubmit={submit}>
        {claim.error && (
          <span role="alert" style={{ color: 'var(--err)' }}>
            {Problem.of(claim.error).message}
          </span>
        )}
        <Input
          aria-label="Domain to claim"
          placeholder="example.com"
          value={domain}
          onChange={(event) => setDomain(event.target.value)}
        />
        <Button type="submit" disabled={domain.trim() === '' || claim.isPending}>
          Claim
        </Button>
      </form>
    </May>
  );
}
