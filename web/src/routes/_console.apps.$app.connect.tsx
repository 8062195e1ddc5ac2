import { createFileRoute } from '@tanstack/react-router';
import { Guide } from '~/features/connect/Guide';
import { Page } from '~/ui/data';

export const Route = createFileRoute('/_console/apps/$app/connect')({ component: Connect });

function Connect() {
  const { app } = Route.useParams();
  return (
    <Page title="Connect an executor">
      <div style={{ maxWidth: 860 }}>
        <Guide key={app} app={app} onRegistered={() => {}} />
      </div>
    </Page>
  );
}
