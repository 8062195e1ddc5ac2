import type { FormEventHandler, ReactNode } from 'react';
import { Mark } from '~/app/Mark';
import s from './Login.module.css';

/** The frame of the pages before one is in. */
export function Card({ onSubmit, children }: { onSubmit?: FormEventHandler; children: ReactNode }) {
  const content = (
    <>
      <div className={s.brand}>
        <Mark />
        <h1>Segno</h1>
      </div>
      {children}
    </>
  );
  return (
    <main className={s.page}>
      {onSubmit ? (
        <form className={s.card} onSubmit={onSubmit}>
          {content}
        </form>
      ) : (
        <div className={s.card}>{content}</div>
      )}
    </main>
  );
}
