import { createFileRoute } from '@tanstack/react-router';
import { Join } from '~/features/login/Join';

export const Route = createFileRoute('/join')({ component: Join });
