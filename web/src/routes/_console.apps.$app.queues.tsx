import { createFileRoute } from '@tanstack/react-router';
import { Queues } from '~/features/queues/Queues';

export const Route = createFileRoute('/_console/apps/$app/queues')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <Queues key={app} app={app} />;
}
