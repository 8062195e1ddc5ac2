import { createFileRoute } from '@tanstack/react-router';
import { Versions } from '~/features/versions/Versions';

export const Route = createFileRoute('/_console/apps/$app/versions')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <Versions key={app} app={app} />;
}
