import { useNavigate } from '@tanstack/react-router';
import { Mark } from '~/app/Mark';
import s from './Connect.module.css';
import { Guide } from './Guide';

/** The empty fleet: not a blank page but the way to the first connected application. */
export function Welcome() {
  const navigate = useNavigate();
  return (
    <div className={s.hero}>
      <div className={s.heroHead}>
        <Mark />
        <div>
          <h1>Connect your first application</h1>
          <p className="soft">
            Segno watches the processes of your durable workflows. When one dies, its workflows go on in
            another that runs the same code.
          </p>
        </div>
      </div>
      <Guide
        app={null}
        onRegistered={(app) => void navigate({ to: '/apps/$app/connect', params: { app } })}
      />
    </div>
  );
}
