import { createFileRoute, redirect } from '@tanstack/react-router';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { read } from '~/api/queries';
import { setOrgName } from '~/api/session';
import { Shell } from '~/app/Shell';

export const Route = createFileRoute('/_console')({
  // Every page needs the frame: in the first file, a slow network fetches it without asking again.
  codeSplitGroupings: [],
  // Whether a credential is needed is known by trying: without authentication everybody is known already.
  beforeLoad: async ({ location }) => {
    let self: Awaited<ReturnType<typeof ask>>;
    try {
      self = await ask();
    } catch (error) {
      if (Problem.of(error).status === 401) {
        throw redirect({ to: '/login', search: location.href === '/' ? {} : { next: location.href } });
      }
      // Anything else is shown in place by the pages, which go on trying.
      return;
    }
    if (self.orgName === undefined) throw redirect({ to: '/join' });
    setOrgName(self.orgName);
  },
  component: Shell,
});

function ask() {
  return queryClient.ensureQueryData({ ...read.self(), retry: false });
}
