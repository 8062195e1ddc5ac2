import { createRootRoute, type ErrorComponentProps, Link, Outlet, useRouter } from '@tanstack/react-router';
import { CircleAlert } from 'lucide-react';
import { lazy, Suspense } from 'react';
import { Button, buttonLook } from '~/ui/controls';
import { Empty, State } from '~/ui/states';

// Not needed before something is to be told.
const Toasts = lazy(() => import('~/ui/toasts').then((module) => ({ default: module.Toasts })));

export const Route = createRootRoute({
  component: Root,
  notFoundComponent: () => (
    <Empty
      title="There is no such page"
      actions={
        <Link to="/" {...buttonLook('primary')}>
          To the fleet
        </Link>
      }
    >
      The address may be mistyped, or from another version of the console.
    </Empty>
  ),
  errorComponent: Crashed,
});

function Root() {
  return (
    <>
      <Outlet />
      {/* Inside the router, for what is told may link to a page. */}
      <Suspense>
        <Toasts />
      </Suspense>
    </>
  );
}

/** A fault of the console itself, not of the server. */
function Crashed({ error }: ErrorComponentProps) {
  const router = useRouter();
  return (
    <State
      icon={<CircleAlert />}
      tone="err"
      title="The console failed to show this page"
      actions={
        <Button kind="primary" onClick={() => void router.invalidate()}>
          Try again
        </Button>
      }
    >
      <code className="foreign">{error instanceof Error ? error.message : String(error)}</code>
    </State>
  );
}
