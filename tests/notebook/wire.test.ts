import { expect, test } from 'vitest';
import { decodeMessage, encodeMessage } from '../../lib/notebook/wire.js';

const encode = () => {
  const { id, frames } = encodeMessage('key', 'session', 'execute_request', { code: '1' });
  return { id, frames: ['identity', ...frames].map((frame) => Buffer.from(frame)) };
};

test('a message comes back as it went, whatever identities stand before it', () => {
  const { id, frames } = encode();
  const message = decodeMessage('key', frames);
  expect(message).toMatchObject({
    header: { msg_id: id, msg_type: 'execute_request', version: '5.3' },
    parent: {},
    content: { code: '1' },
  });
});

test('a changed message, another key and other frames are refused', () => {
  const { frames } = encode();
  expect(() => decodeMessage('other', frames)).toThrow(/another signature/);
  const changed = [...frames.slice(0, -1), Buffer.from('{"code":"2"}')];
  expect(() => decodeMessage('key', changed)).toThrow(/another signature/);
  expect(() => decodeMessage('key', frames.slice(2))).toThrow(/other frames/);
});
