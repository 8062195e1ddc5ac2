import { useQuery } from '@tanstack/react-query';
import { read } from '~/api/queries';
import { Age, Badge, Panel } from '~/ui/data';
import { useRenewal } from '~/ui/live';
import { Loaded } from '~/ui/states';
import { ValueView } from '~/ui/value/ValueView';

/** What a workflow told the outside and was told by it: events, messages, streams. */
export function Exchange({ app, id, active }: { app: string; id: string; active: boolean }) {
  const renewal = useRenewal(active ? 3_000 : 30_000);
  const events = useQuery({ ...read.events(app, id), ...renewal });
  const messages = useQuery({ ...read.notifications(app, id), ...renewal });
  const streams = useQuery({ ...read.streams(app, id), ...renewal });
  return (
    <div className="stack" style={{ gap: 16 }}>
      <Panel title="Events it published">
        <Loaded query={events} rows={1}>
          {(list) =>
            list.length === 0 ? (
              <p className="muted">None.</p>
            ) : (
              <div className="stack">
                {list.map((event) => (
                  <ValueView
                    key={event.key}
                    title={event.key}
                    text={event.value}
                    file={`event-${event.key}.json`}
                  />
                ))}
              </div>
            )
          }
        </Loaded>
      </Panel>
      <Panel title="Messages sent to it">
        <Loaded query={messages} rows={1}>
          {(list) =>
            list.length === 0 ? (
              <p className="muted">None.</p>
            ) : (
              <div className="stack">
                {list.map((message, index) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: messages have no id, and their order is fixed
                  <div key={index} className="stack" style={{ gap: 6 }}>
                    <div className="row">
                      <Badge tone={message.consumed ? 'off' : 'wait'}>
                        {message.consumed ? 'Received' : 'Not received yet'}
                      </Badge>
                      <span className="muted">
                        sent <Age time={message.createdAt} />
                      </span>
                    </div>
                    <ValueView
                      title={message.topic ?? 'no topic'}
                      text={message.message}
                      file="message.json"
                    />
                  </div>
                ))}
              </div>
            )
          }
        </Loaded>
      </Panel>
      <Panel title="Streams it writes">
        <Loaded query={streams} rows={1}>
          {(list) =>
            list.length === 0 ? (
              <p className="muted">None.</p>
            ) : (
              <div className="stack">
                {list.map((stream) => (
                  <ValueView
                    key={stream.key}
                    title={stream.key}
                    text={`[${stream.values.join(',')}]`}
                    file={`stream-${stream.key}.json`}
                  />
                ))}
              </div>
            )
          }
        </Loaded>
      </Panel>
    </div>
  );
}
