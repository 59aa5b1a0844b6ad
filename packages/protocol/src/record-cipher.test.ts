import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, fromHex, toHex, utf8 } from './bytes.ts'
import type { AesGcmKey } from './crypto.ts'
import { SealpostError } from './errors.ts'
import { nodeCrypto, type SyncAesGcmKey } from './node.ts'
import { FRAME_OVERHEAD_BYTES, genOf, OpenCipher, SealCipher } from './record-cipher.ts'

const read = (name: string) => JSON.parse(readFileSync(new URL(`../../../vectors/${name}.json`, import.meta.url), 'utf8'))
const protocol = read('protocol')
const vectors = read('handshake')

const keyOf = (hex: string): SyncAesGcmKey => nodeCrypto.aesGcmKey(fromHex(hex))
const pair = (byte = 1, gen = 0) => {
  const key = nodeCrypto.aesGcmKey(new Uint8Array(32).fill(byte))
  return { seal: new SealCipher(key, gen), open: new OpenCipher(key, gen) }
}
const codeOf = (run: () => unknown): string => {
  try {
    run()
    return 'ok'
  } catch (error) {
    return error instanceof SealpostError ? error.code : String(error)
  }
}

describe('vectors', () => {
  const { handshake } = protocol
  it('seals and opens the recorded first frames of both directions', () => {
    const c2s = { seal: new SealCipher(keyOf(handshake.key_c2s), 0), open: new OpenCipher(keyOf(handshake.key_c2s), 0) }
    const s2c = { seal: new SealCipher(keyOf(handshake.key_s2c), 0), open: new OpenCipher(keyOf(handshake.key_s2c), 0) }
    expect(toHex(c2s.seal.seal(fromHex(handshake.message_client_auth)))).toBe(handshake.frame_client_auth)
    expect(toHex(s2c.seal.seal(fromHex(handshake.message_session_established)))).toBe(handshake.frame_session_established)
    expect(toHex(c2s.open.open(fromHex(handshake.frame_client_auth)))).toBe(handshake.message_client_auth)
    expect(toHex(s2c.open.open(fromHex(handshake.frame_session_established)))).toBe(handshake.message_session_established)
    const event = c2s.open.open(fromHex(handshake.frame_event))
    expect(toHex(c2s.seal.seal(event))).toBe(handshake.frame_event)
    const ack = s2c.open.open(fromHex(handshake.frame_ack))
    expect(toHex(s2c.seal.seal(ack))).toBe(handshake.frame_ack)
  })

  it('the rekey travels in the old generation and the first frames of the new one start again at counter 0', () => {
    const v = vectors.rekey
    const c2s = new SealCipher(keyOf(v.key_c2s), 1)
    const s2c = new SealCipher(keyOf(v.key_s2c), 1)
    expect(toHex(c2s.seal(fromHex(v.message_client_auth)))).toBe(v.frame_client_auth)
    expect(toHex(s2c.seal(fromHex(v.message_session_established)))).toBe(v.frame_session_established)
    expect(toHex(c2s.seal(fromHex(v.message_ping)))).toBe(v.frame_ping)
    expect(toHex(s2c.seal(fromHex(v.message_pong)))).toBe(v.frame_pong)
    const old = new OpenCipher(keyOf(v.prev_key_c2s), 0)
    old.open(fromHex(handshake.frame_client_auth))
    old.open(fromHex(handshake.frame_event))
    expect(
      Buffer.from(old.open(fromHex(v.frame_client_hello)))
        .subarray(4)
        .toString(),
    ).toBe(v.client_hello)
  })

  it.each(vectors.invalid.frame as { name: string; key: string; gen: number; before: string[]; frame: string; code: string }[])(
    'a frame is refused: $name',
    ({ key, gen, before, frame, code }) => {
      const cipher = new OpenCipher(keyOf(key), gen)
      for (const earlier of before) cipher.open(fromHex(earlier))
      expect(codeOf(() => cipher.open(fromHex(frame)))).toBe(code)
    },
  )

  it.each(protocol.invalid.filter((row: { what: string }) => row.what.startsWith('frame')) as { name: string; hex: string }[])(
    'a frame of protocol.json is refused: $name',
    ({ hex }) => {
      const cipher = new OpenCipher(keyOf(handshake.key_c2s), 0)
      cipher.open(fromHex(handshake.frame_client_auth))
      expect(codeOf(() => cipher.open(fromHex(hex)))).toMatch(/^(decrypt_failed|invalid_message)$/)
    },
  )
})

describe('the counter', () => {
  it('a replayed frame does not open', () => {
    const { seal, open } = pair()
    const frame = seal.seal(utf8('one'))
    open.open(frame)
    expect(codeOf(() => open.open(frame))).toBe('decrypt_failed')
  })

  it('reordered frames do not open', () => {
    const { seal, open } = pair()
    seal.seal(utf8('one'))
    expect(codeOf(() => open.open(seal.seal(utf8('two'))))).toBe('decrypt_failed')
  })

  it('after one failure nothing opens any more, not even the right frame', () => {
    const { seal, open } = pair()
    const [one, two] = [seal.seal(utf8('one')), seal.seal(utf8('two'))]
    const broken = Uint8Array.from(one)
    broken[5] = broken[5]! ^ 1
    expect(codeOf(() => open.open(broken))).toBe('decrypt_failed')
    expect(codeOf(() => open.open(two))).toBe('decrypt_failed')
    expect(codeOf(() => open.open(one))).toBe('decrypt_failed')
  })

  it('every flipped bit of a frame is noticed', () => {
    const key = nodeCrypto.aesGcmKey(new Uint8Array(32).fill(9))
    const frame = new SealCipher(key, 3).seal(utf8('a message'))
    for (let bit = 0; bit < frame.length * 8; bit++) {
      const edited = Uint8Array.from(frame)
      edited[bit >> 3] = edited[bit >> 3]! ^ (1 << (bit & 7))
      expect(codeOf(() => new OpenCipher(key, 3).open(edited))).toBe(bit < 8 ? 'invalid_message' : 'decrypt_failed')
    }
  })

  it('the keys of the two directions are not interchangeable', () => {
    const c2s = pair(1)
    const s2c = pair(2)
    expect(codeOf(() => s2c.open.open(c2s.seal.seal(utf8('reflected'))))).toBe('decrypt_failed')
  })

  it('a frame costs 17 bytes, and equal messages never give equal frames', () => {
    const { seal } = pair()
    const [a, b] = [seal.seal(utf8('same')), seal.seal(utf8('same'))]
    expect(a.length).toBe(4 + FRAME_OVERHEAD_BYTES)
    expect(toHex(a)).not.toBe(toHex(b))
    expect(genOf(a)).toBe(0)
    expect(genOf(new Uint8Array(0))).toBe(-1)
    expect(seal.counter).toBe(2)
  })
})

describe('an asynchronous key', () => {
  const slow = (key: SyncAesGcmKey): AesGcmKey => ({
    seal: async (...args) => key.seal(...args),
    open: async (...args) => key.open(...args),
  })

  it('takes the number of a frame at the call, so frames may be in work at the same time', async () => {
    const { seal, open } = pair()
    const key = slow(nodeCrypto.aesGcmKey(new Uint8Array(32).fill(1)))
    const frames = await Promise.all(['a', 'b', 'c'].map((text) => new Promise<Bytes>((resolve) => resolve(seal.seal(utf8(text))))))
    const reader = new OpenCipher(key, 0)
    expect((await Promise.all(frames.map(async (frame) => reader.open(frame)))).map((bytes) => toHex(bytes))).toEqual(['61', '62', '63'])
    const writer = new SealCipher(key, 0)
    const again = await Promise.all(['a', 'b', 'c'].map(async (text) => writer.seal(utf8(text))))
    expect(again.map((frame) => Buffer.from(open.open(frame)).toString())).toEqual(['a', 'b', 'c'])
  })

  it('opens nothing after a failure', async () => {
    const { seal } = pair()
    const reader = new OpenCipher(slow(nodeCrypto.aesGcmKey(new Uint8Array(32).fill(1))), 0)
    seal.seal(utf8('lost'))
    await expect(reader.open(seal.seal(utf8('x')))).rejects.toMatchObject({ code: 'decrypt_failed' })
    expect(codeOf(() => reader.open(seal.seal(utf8('y'))))).toBe('decrypt_failed')
  })
})

describe('random rekeys', () => {
  // a model of both directions: each sender may move to the next generation at any time, the reader follows at the named frame
  const step = fc.record({
    direction: fc.constantFrom('c2s', 's2c'),
    rekey: fc.boolean(),
    length: fc.nat(64),
    attack: fc.constantFrom('none', 'none', 'replay', 'old', 'flip'),
  })
  const genKey = (direction: string, gen: number) => nodeCrypto.aesGcmKey(nodeCrypto.sha256(utf8(`${direction} ${gen}`)))

  it('every frame opens once, in order, under its own generation, and no attack opens (2,000 runs)', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 24 }), (steps) => {
        const lines = Object.fromEntries(
          ['c2s', 's2c'].map((direction) => [
            direction,
            { gen: 0, seal: new SealCipher(genKey(direction, 0), 0), open: new OpenCipher(genKey(direction, 0), 0), frames: [] as Bytes[] },
          ]),
        )
        for (const { direction, rekey, length, attack } of steps) {
          const line = lines[direction]!
          if (rekey && line.gen < 255) {
            line.gen++
            line.seal = new SealCipher(genKey(direction, line.gen), line.gen)
            line.open = new OpenCipher(genKey(direction, line.gen), line.gen)
          }
          const message = new Uint8Array(length).fill(length)
          const frame = line.seal.seal(message)
          expect(toHex(line.open.open(frame))).toBe(toHex(message))
          if (attack !== 'none') {
            // a reader of the same state that is attacked in place of the real one
            const victim = new OpenCipher(genKey(direction, line.gen), line.gen)
            for (const earlier of line.frames.filter((known) => genOf(known) === line.gen)) victim.open(earlier)
            const edited = Uint8Array.from(frame)
            edited[edited.length - 1] = edited[edited.length - 1]! ^ 0x80
            const old = line.frames.find((known) => genOf(known) !== line.gen)
            if (attack === 'flip') expect(codeOf(() => victim.open(edited))).toBe('decrypt_failed')
            if (attack === 'old' && old !== undefined) expect(codeOf(() => victim.open(old))).toBe('invalid_message')
            if (attack === 'replay') {
              victim.open(frame)
              expect(codeOf(() => victim.open(frame))).toBe('decrypt_failed')
            }
          }
          line.frames.push(frame)
        }
      }),
      { numRuns: 2_000 },
    )
  })

  it('no bytes make the reader throw untyped (10,000 runs)', () => {
    const key = nodeCrypto.aesGcmKey(new Uint8Array(32).fill(1))
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        expect(codeOf(() => new OpenCipher(key, 0).open(bytes))).toMatch(/^(invalid_message|decrypt_failed)$/)
      }),
      { numRuns: 10_000 },
    )
  })
})
