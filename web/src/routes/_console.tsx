import { createFileRoute, redirect } from '@tanstack/react-router';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { read } from '~/api/queries';
import { Shell } from '~/app/Shell';

export const Route = createFileRoute('/_console')({
  // Whether a key is needed is known by trying: without authentication the first call simply works.
  beforeLoad: async ({ location }) => {
    try {
      await queryClient.ensureQueryData({ ...read.apps(), retry: false });
    } catch (error) {
      if (Problem.of(error).status === 401) {
        throw redirect({ to: '/login', search: location.href === '/' ? {} : { next: location.href } });
      }
      // Anything else is shown in place by the pages, which go on trying.
    }
  },
  component: Shell,
});
