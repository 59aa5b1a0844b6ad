import { randomBytes } from 'node:crypto'
import { toBase64url } from '@sealpost/protocol'
import { expect, it } from 'vitest'
import type { Hint } from '../ports/store.ts'
import { createHintCodec } from './hint-codec.ts'

const KEY = randomBytes(32)
const event = (position: number, bytes: number) => ({
  position,
  stream_seq: 2 ** 40 + position,
  received_at: 1_795_000_000_000,
  device_no: 3,
  device_seq: 2 ** 33 + position,
  stream_no: 9,
  flags: 5,
  client: randomBytes(bytes),
})
const committed: Hint = { is: 'committed', history_id: toBase64url(randomBytes(32)), events: [event(2 ** 35, 60), event(2 ** 35 + 1, 0)] }
const entry: Hint = { is: 'log', history_id: toBase64url(randomBytes(32)), log_seq: 7, revoked: ['a', 'b'] }

it('what one process says another reads, and knows its own', () => {
  const [a, b] = [createHintCodec(KEY), createHintCodec(KEY)]
  for (const hint of [committed, entry, { is: 'deleted' } as const]) {
    const message = Buffer.from(a.encode(2 ** 36, hint))
    expect(b.decode(2 ** 36, message)).toEqual(hint)
    expect(a.decode(2 ** 36, message)).toBe('own')
  }
})

it('a change of any byte, a cut, another user or another key makes it nothing', () => {
  const [a, b, foreign] = [createHintCodec(KEY), createHintCodec(KEY), createHintCodec(randomBytes(32))]
  for (const hint of [committed, entry]) {
    const message = Buffer.from(a.encode(5, hint))
    for (let at = 0; at < message.length; at++) {
      const changed = Buffer.from(message)
      changed[at]! ^= 1 << (at % 8)
      expect(b.decode(5, changed), `byte ${at}`).toBeNull()
      expect(b.decode(5, message.subarray(0, at)), `cut at ${at}`).toBeNull()
    }
    expect([b.decode(6, message), foreign.decode(5, message)]).toEqual([null, null])
  }
})

it('no two messages of a key have one iv', () => {
  const codecs = Array.from({ length: 20 }, () => createHintCodec(KEY))
  const ivs = codecs.flatMap((codec) => Array.from({ length: 50 }, () => Buffer.from(codec.encode(1, entry)).toString('hex', 0, 12)))
  expect(new Set(ivs).size).toBe(1_000)
})

it('hints of any size have room', () => {
  const [a, b] = [createHintCodec(KEY), createHintCodec(KEY)]
  for (const bytes of [10, 400_000, 10]) {
    const hint: Hint = { ...committed, events: [event(1, bytes)] }
    expect(Buffer.from((b.decode(1, a.encode(1, hint)) as typeof hint).events[0]!.client).equals(hint.events[0]!.client)).toBe(true)
  }
})
