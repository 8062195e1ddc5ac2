import { createFileRoute } from '@tanstack/react-router';
import { AlertsPage } from '~/features/alerts/AlertsPage';

export const Route = createFileRoute('/_console/apps/$app/alerts')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <AlertsPage key={app} app={app} />;
}
