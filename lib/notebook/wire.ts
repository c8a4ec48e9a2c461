// Jupyter messages as zeromq frames. In: a message. Out: signed frames, and back.
// Source: the Jupyter messaging protocol 5.3, "The wire protocol".
import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';

const DELIMITER = '<IDS|MSG>';

/** A message received. */
export interface WireMessage {
  readonly header: { readonly msg_id: string; readonly msg_type: string };
  readonly parent: { readonly msg_id?: string };
  readonly content: Readonly<Record<string, unknown>>;
}

const sign = (key: string, parts: readonly (string | Uint8Array)[]) => {
  const hash = createHmac('sha256', key);
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

/** Makes a request. @returns its id and its frames */
export function encodeMessage(key: string, session: string, type: string, content: object) {
  const header = {
    msg_id: randomUUID(),
    msg_type: type,
    session,
    username: 'response-time',
    date: new Date().toISOString(),
    version: '5.3',
  };
  const parts = [header, {}, {}, content].map((part) => JSON.stringify(part));
  return { id: header.msg_id, frames: [DELIMITER, sign(key, parts), ...parts] };
}

/**
 * Reads a message.
 * @throws Error if the frames are no message or not signed with this key
 */
export function decodeMessage(key: string, frames: readonly Buffer[]): WireMessage {
  const at = frames.findIndex((frame) => frame.toString() === DELIMITER);
  const parts = frames.slice(at + 2, at + 6);
  const signature = frames[at + 1];
  if (at < 0 || parts.length < 4 || !signature)
    throw new Error('expected a Jupyter message, received other frames');
  const expected = Buffer.from(sign(key, parts));
  if (signature.length !== expected.length || !timingSafeEqual(signature, expected))
    throw new Error('expected a Jupyter message signed with our key, received another signature');
  const [header, parent, , content] = parts.map((part) => JSON.parse(part.toString()));
  return { header, parent, content };
}
