import { createFileRoute } from '@tanstack/react-router';
import { Executors } from '~/features/executors/Executors';

export const Route = createFileRoute('/_console/apps/$app/executors')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <Executors key={app} app={app} />;
}
