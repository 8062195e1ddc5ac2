import { useQuery } from '@tanstack/react-query';
import { read } from './queries';

export type Permission =
  | 'application.read'
  | 'application.write'
  | 'metric.read'
  | 'organization.read'
  | 'organization.write'
  | 'token.read'
  | 'token.write';

/** Who is logged in here; undefined until the server has said so. */
export function useSelf() {
  return useQuery(read.self()).data;
}

/** Whether the caller may do something. What they may not do is not offered; the server checks all the same. */
export function useMay(): (permission: Permission) => boolean {
  const self = useSelf();
  return (permission) => self?.permissions.includes(permission) ?? false;
}
