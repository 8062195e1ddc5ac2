import { createFileRoute } from '@tanstack/react-router';
import { Fleet } from '~/features/fleet/Fleet';

export const Route = createFileRoute('/_console/')({
  // The page that most visits begin with, see the frame.
  codeSplitGroupings: [],
  component: Fleet,
});
