import { createFileRoute } from '@tanstack/react-router';
import { Audit } from '~/features/audit/Audit';

export const Route = createFileRoute('/_console/audit')({ component: Audit });
