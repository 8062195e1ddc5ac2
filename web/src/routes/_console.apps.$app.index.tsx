import { createFileRoute } from '@tanstack/react-router';
import { Overview } from '~/features/fleet/Overview';

export const Route = createFileRoute('/_console/apps/$app/')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <Overview key={app} app={app} />;
}
