import { createFileRoute } from '@tanstack/react-router';
import { one } from '~/app/search';
import { Login } from '~/features/login/Login';

export const Route = createFileRoute('/login/')({
  validateSearch: (search: Record<string, unknown>): { next?: string } => {
    const next = one(search.next);
    // Only addresses of the console itself: a link must not be able to send a fresh login elsewhere.
    return next?.startsWith('/') && !next.startsWith('//') ? { next } : {};
  },
  component: Component,
});

function Component() {
  const { next } = Route.useSearch();
  return <Login next={next ?? '/'} />;
}
