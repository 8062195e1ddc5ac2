import { createFileRoute } from '@tanstack/react-router';
import { RecoveryPage } from '~/features/recovery/RecoveryPage';

export const Route = createFileRoute('/_console/apps/$app/recovery')({ component: Component });

function Component() {
  const { app } = Route.useParams();
  return <RecoveryPage key={app} app={app} />;
}
