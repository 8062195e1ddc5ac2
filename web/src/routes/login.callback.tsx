import { createFileRoute } from '@tanstack/react-router';
import { Callback } from '~/features/login/Callback';

export const Route = createFileRoute('/login/callback')({ component: Callback });
