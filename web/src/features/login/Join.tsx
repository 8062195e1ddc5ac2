import { Button } from '~/ui/controls';
import { Card } from './Card';
import { leave } from './leave';

/** Somebody whom the issuer knows and this server does not yet. */
export function Join() {
  return (
    <Card>
      <p className="soft">You are logged in, and belong to no organisation of this server yet.</p>
      <Button onClick={() => void leave()}>Log out</Button>
    </Card>
  );
}
