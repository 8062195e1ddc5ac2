import { createFileRoute } from '@tanstack/react-router';
import { AppSettings } from '~/features/settings/AppSettings';

export const Route = createFileRoute('/_console/apps/$app/settings')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <AppSettings key={app} app={app} />;
}
