import { createFileRoute } from '@tanstack/react-router';
import { Fleet } from '~/features/fleet/Fleet';

export const Route = createFileRoute('/_console/')({ component: Fleet });
