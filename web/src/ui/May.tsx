import type { ReactNode } from 'react';
import { type Permission, useMay } from '~/api/may';

/** Shows its content to those who may do what it offers, and nothing to others. */
export function May({ permission, children }: { permission: Permission; children: ReactNode }) {
  return useMay()(permission) ? children : null;
}
