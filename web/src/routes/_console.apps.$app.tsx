import { useQuery } from '@tanstack/react-query';
import { createFileRoute, Link, Outlet } from '@tanstack/react-router';
import { Problem } from '~/api/problem';
import { read } from '~/api/queries';
import { buttonLook } from '~/ui/controls';
import { Page } from '~/ui/data';
import { useFollowing } from '~/ui/live';
import { Empty } from '~/ui/states';

export const Route = createFileRoute('/_console/apps/$app')({ component: App });

/** An application that does not exist is said once, here, and not by every panel of its pages. */
function App() {
  const { app } = Route.useParams();
  const query = useQuery(read.app(app));
  useFollowing(app);
  if (query.error && Problem.of(query.error).kind === 'missing') {
    return (
      <Page title="Application">
        <Empty
          title="There is no such application"
          actions={
            <Link to="/" {...buttonLook('primary')}>
              To the fleet
            </Link>
          }
        >
          <bdi>{app}</bdi> is not registered here, or your key does not cover it.
        </Empty>
      </Page>
    );
  }
  return <Outlet />;
}
