import { createFileRoute, useNavigate } from '@tanstack/react-router';
import { Guide } from '~/features/connect/Guide';
import { Page } from '~/ui/data';

export const Route = createFileRoute('/_console/new')({ component: New });

function New() {
  const navigate = useNavigate();
  return (
    <Page title="Register an application">
      <div style={{ maxWidth: 860 }}>
        <Guide
          app={null}
          onRegistered={(app) => void navigate({ to: '/apps/$app/connect', params: { app } })}
        />
      </div>
    </Page>
  );
}
