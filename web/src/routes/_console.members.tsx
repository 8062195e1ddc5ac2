import { createFileRoute } from '@tanstack/react-router';
import { MembersPage } from '~/features/org/MembersPage';

export const Route = createFileRoute('/_console/members')({ component: MembersPage });
