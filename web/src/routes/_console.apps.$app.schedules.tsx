import { createFileRoute } from '@tanstack/react-router';
import { Schedules } from '~/features/schedules/Schedules';

export const Route = createFileRoute('/_console/apps/$app/schedules')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <Schedules key={app} app={app} />;
}
