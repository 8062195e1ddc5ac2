import { createFileRoute } from '@tanstack/react-router';
import { Keys } from '~/features/keys/Keys';

export const Route = createFileRoute('/_console/keys')({ component: Keys });
