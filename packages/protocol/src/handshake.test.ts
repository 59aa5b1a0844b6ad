import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, fromHex, parseJson, toBase64url, toHex, utf8, utf8Decode } from './bytes.ts'
import { SealpostError } from './errors.ts'
import {
  answerClientHello,
  type ClientAuthBody,
  type ClientHandshake,
  createClientAuth,
  finishServerHello,
  helloOf,
  readClientAuth,
  readClientHello,
  readRekeyAuth,
  type RekeyBasis,
  startHandshake,
  verifyClientAuth,
} from './handshake.ts'
import { encodeMessage, type ServerHeadOf } from './messages.ts'
import { nodeCrypto } from './node.ts'
import { scriptedCrypto } from '@sealpost/testing/forgeries/scripted-crypto'
import { tuple } from './tuple.ts'

const read = (name: string) => JSON.parse(readFileSync(new URL(`../../../vectors/${name}.json`, import.meta.url), 'utf8'))
const protocol = read('protocol').handshake
const vectors = read('handshake')
const fill = (byte: number): Bytes => new Uint8Array(32).fill(byte)

const server = { sign_seed: fill(3), server_key: nodeCrypto.ed25519Public(fill(3)) }
const device = { seed: fill(2), pub: nodeCrypto.ed25519Public(fill(2)) }
const authBody = parseJson(utf8(protocol.client_auth_body)) as ClientAuthBody
const now = 1_764_000_000_000

const codeOf = (of: Promise<unknown>) =>
  of.then(() => 'ok').catch((error: unknown) => (error instanceof SealpostError ? error.code : error))

async function bothHellos(rekey?: RekeyBasis) {
  const client = await startHandshake(nodeCrypto, rekey)
  const answer = await answerClientHello(nodeCrypto, client.hello, server, now, rekey)
  return { client, answer }
}

describe('vectors', () => {
  it('the client makes the recorded first transcript and its proof', async () => {
    const client = await startHandshake(scriptedCrypto(fill(7), fill(9)))
    expect(utf8Decode(client.hello)).toBe(protocol.client_hello)
    const hello = {
      type: 'server_hello',
      body: toBase64url(utf8(protocol.server_hello_body)),
      sig: toBase64url(fromHex(protocol.server_sig)),
    } as const
    const keys = await finishServerHello(nodeCrypto, client, hello, server.server_key)
    expect({ th: toHex(keys.th), c2s: toHex(keys.c2s), s2c: toHex(keys.s2c), gen: keys.gen, server_time: keys.server_time }).toEqual({
      th: protocol.th,
      c2s: protocol.key_c2s,
      s2c: protocol.key_s2c,
      gen: 0,
      server_time: now,
    })
    const auth = await createClientAuth(nodeCrypto, keys, device.seed, authBody)
    expect(auth).toEqual({
      type: 'client_auth',
      body: toBase64url(utf8(protocol.client_auth_body)),
      sig: toBase64url(fromHex(protocol.client_sig)),
    })
    expect(toHex(encodeMessage(auth))).toBe(protocol.message_client_auth)
  })

  it('the server makes the recorded first transcript and accepts the recorded proof', async () => {
    const { hello, keys } = await answerClientHello(scriptedCrypto(fill(8), fill(0x0a)), utf8(protocol.client_hello), server, now)
    expect(hello).toEqual({
      type: 'server_hello',
      body: toBase64url(utf8(protocol.server_hello_body)),
      sig: toBase64url(fromHex(protocol.server_sig)),
    })
    expect({ th: toHex(keys.th), c2s: toHex(keys.c2s), s2c: toHex(keys.s2c) }).toEqual({
      th: protocol.th,
      c2s: protocol.key_c2s,
      s2c: protocol.key_s2c,
    })
    const auth = {
      type: 'client_auth',
      body: toBase64url(utf8(protocol.client_auth_body)),
      sig: toBase64url(fromHex(protocol.client_sig)),
    } as const
    expect(await verifyClientAuth(nodeCrypto, keys, auth, device.pub)).toBe(true)
    expect(readClientAuth(auth)).toEqual(authBody)
  })

  it('both ends make the recorded rekey transcript, chained to the one before', async () => {
    const v = vectors.rekey
    const basis = { session_id: v.session_id, prev_th: fromHex(v.prev_th), gen: v.gen }
    expect(v.prev_th).toBe(protocol.th)
    const client = await startHandshake(scriptedCrypto(fromHex(v.client_eph_seed), fromHex(v.client_nonce)), basis)
    expect(utf8Decode(client.hello)).toBe(v.client_hello)
    const answered = await answerClientHello(
      scriptedCrypto(fromHex(v.server_eph_seed), fromHex(v.server_nonce)),
      client.hello,
      server,
      now + 3_600_000,
      basis,
    )
    expect(answered.hello).toEqual({
      type: 'server_hello',
      body: toBase64url(utf8(v.server_hello_body)),
      sig: toBase64url(fromHex(v.server_sig)),
    })
    const keys = await finishServerHello(nodeCrypto, client, answered.hello, server.server_key)
    for (const side of [keys, answered.keys])
      expect({ th: toHex(side.th), c2s: toHex(side.c2s), s2c: toHex(side.s2c), gen: side.gen }).toEqual({
        th: v.th,
        c2s: v.key_c2s,
        s2c: v.key_s2c,
        gen: 1,
      })
    const auth = await createClientAuth(nodeCrypto, keys, device.seed, JSON.parse(v.client_auth_body))
    expect(toHex(encodeMessage(auth))).toBe(v.message_client_auth)
    expect(readRekeyAuth(auth)).toEqual(JSON.parse(v.client_auth_body))
    expect(await verifyClientAuth(nodeCrypto, answered.keys, auth, device.pub)).toBe(true)
  })

  it.each(vectors.invalid.client_hello as { name: string; json: string; code: string }[])(
    'client_hello refused: $name',
    async ({ json, code }) => {
      expect(await codeOf(answerClientHello(nodeCrypto, utf8(json), server, now))).toBe(code)
    },
  )

  it.each(vectors.invalid.server_hello as { name: string; client_hello: string; body: string; sig: string; code: string }[])(
    'server_hello refused: $name',
    async ({ client_hello, body, sig, code }) => {
      const client: ClientHandshake = { hello: utf8(client_hello), eph_seed: fill(7), prev_th: null, gen: 0 }
      expect(
        await codeOf(finishServerHello(nodeCrypto, client, { type: 'server_hello', body, sig }, fromHex(vectors.pinned_server_key))),
      ).toBe(code)
    },
  )

  it.each(vectors.invalid.client_auth as { name: string; body: string; sig: string; code: string }[])(
    'client_auth refused: $name',
    async ({ body, sig, code }) => {
      const keys = { th: fromHex(protocol.th), c2s: fill(0), s2c: fill(0), gen: 0 }
      const accept = async () => {
        readClientAuth({ type: 'client_auth', body, sig })
        if (!(await verifyClientAuth(nodeCrypto, keys, { type: 'client_auth', body, sig }, fromHex(vectors.device_sign_pub))))
          throw new SealpostError('invalid_signature', 'refused')
      }
      expect(await codeOf(accept())).toBe(code)
    },
  )
})

describe('edits on the way', () => {
  it('both ends agree on keys, and the two directions have different ones', async () => {
    const { client, answer } = await bothHellos()
    const keys = await finishServerHello(nodeCrypto, client, answer.hello, server.server_key)
    expect(keys).toMatchObject({ th: answer.keys.th, c2s: answer.keys.c2s, s2c: answer.keys.s2c, gen: 0 })
    expect(toHex(keys.c2s)).not.toBe(toHex(keys.s2c))
  })

  it.each([
    ['versions stripped', (json: string) => json.replace('"versions":[1]', '"versions":[1,1]')],
    [
      'ephemeral swapped',
      (json: string) => json.replace(/"client_eph":"[^"]+"/, `"client_eph":"${toBase64url(nodeCrypto.x25519Public(fill(0x55)))}"`),
    ],
    ['nonce swapped', (json: string) => json.replace(/"client_nonce":"[^"]+"/, `"client_nonce":"${toBase64url(fill(0x55))}"`)],
    ['a field added', (json: string) => json.replace('{', '{"extra":1,')],
    ['a blank added', (json: string) => `${json} `],
  ])('a client_hello edited on the way does not give a session: %s', async (_, edit) => {
    const client = await startHandshake(nodeCrypto)
    const edited = utf8(edit(utf8Decode(client.hello)))
    expect(toHex(edited)).not.toBe(toHex(client.hello))
    const answer = await answerClientHello(nodeCrypto, edited, server, now)
    expect(await codeOf(finishServerHello(nodeCrypto, client, answer.hello, server.server_key))).toBe('invalid_signature')
  })

  it.each([
    ['ephemeral swapped', { server_eph: toBase64url(nodeCrypto.x25519Public(fill(0x55))) }],
    ['nonce swapped', { server_nonce: toBase64url(fill(0x55)) }],
    ['time moved', { server_time: now + 1 }],
    ['generation raised', { gen: 1 }],
    ['a field added', { extra: 1 }],
  ])('a server_hello body edited on the way is refused: %s', async (_, over) => {
    const { client, answer } = await bothHellos()
    const body = toBase64url(utf8(JSON.stringify({ ...JSON.parse(utf8Decode(bodyOf(answer.hello))), ...over })))
    expect(await codeOf(finishServerHello(nodeCrypto, client, { ...answer.hello, body }, server.server_key))).toBe('invalid_signature')
  })

  it('every single flipped bit of the server signature is refused', async () => {
    const { client, answer } = await bothHellos()
    for (let bit = 0; bit < 512; bit += 37) {
      const sig = Uint8Array.from(Buffer.from(answer.hello.sig, 'base64url'))
      sig[bit >> 3] = sig[bit >> 3]! ^ (1 << (bit & 7))
      const copy = { ...client, eph_seed: Uint8Array.from(client.eph_seed) }
      expect(await codeOf(finishServerHello(nodeCrypto, copy, { ...answer.hello, sig: toBase64url(sig) }, server.server_key))).toBe(
        'invalid_signature',
      )
    }
  })

  it('a server with another key than the pinned one is named as such, even when it signs well', async () => {
    const { client, answer } = await bothHellos()
    expect(await codeOf(finishServerHello(nodeCrypto, client, answer.hello, nodeCrypto.ed25519Public(fill(0x44))))).toBe('server_identity')
  })

  it('a server_hello recorded in one handshake opens no other one', async () => {
    const first = await bothHellos()
    const second = await startHandshake(nodeCrypto)
    expect(await codeOf(finishServerHello(nodeCrypto, second, first.answer.hello, server.server_key))).toBe('invalid_signature')
  })

  it('a client_auth recorded in one session proves nothing in another one', async () => {
    const [one, two] = await Promise.all([bothHellos(), bothHellos()])
    const auth = await createClientAuth(nodeCrypto, one.answer.keys, device.seed, authBody)
    expect(await verifyClientAuth(nodeCrypto, one.answer.keys, auth, device.pub)).toBe(true)
    expect(await verifyClientAuth(nodeCrypto, two.answer.keys, auth, device.pub)).toBe(false)
  })

  it('a client_auth does not hold under another device key, nor with an edited body, nor as a log or assertion signature', async () => {
    const { answer } = await bothHellos()
    const auth = await createClientAuth(nodeCrypto, answer.keys, device.seed, authBody)
    expect(await verifyClientAuth(nodeCrypto, answer.keys, auth, nodeCrypto.ed25519Public(fill(0x22)))).toBe(false)
    const edited = toBase64url(utf8(JSON.stringify({ ...authBody, last_device_seq: 9 })))
    expect(await verifyClientAuth(nodeCrypto, answer.keys, { ...auth, body: edited }, device.pub)).toBe(false)
    const foreign = toBase64url(nodeCrypto.ed25519Sign(device.seed, tuple('assertion', null, utf8(JSON.stringify(authBody)))))
    expect(await verifyClientAuth(nodeCrypto, answer.keys, { ...auth, sig: foreign }, device.pub)).toBe(false)
  })

  it.each([
    '00'.repeat(32),
    `01${'00'.repeat(31)}`,
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ])('a key of low order is refused by both ends: %s', async (low) => {
    const client = await startHandshake(nodeCrypto)
    const hello = utf8(utf8Decode(client.hello).replace(/"client_eph":"[^"]+"/, `"client_eph":"${toBase64url(fromHex(low))}"`))
    expect(await codeOf(answerClientHello(nodeCrypto, hello, server, now))).toBe('invalid_message')

    const body = utf8(
      JSON.stringify({
        type: 'server_hello',
        v: 1,
        server_eph: toBase64url(fromHex(low)),
        server_nonce: toBase64url(fill(1)),
        server_key: toBase64url(server.server_key),
        server_time: now,
        gen: 0,
      }),
    )
    const th = nodeCrypto.sha256(tuple('hs', null, client.hello, body))
    const sig = nodeCrypto.ed25519Sign(server.sign_seed, tuple('hs server', th))
    expect(
      await codeOf(
        finishServerHello(nodeCrypto, client, { type: 'server_hello', body: toBase64url(body), sig: toBase64url(sig) }, server.server_key),
      ),
    ).toBe('invalid_message')
  })

  it('the ephemeral seed is wiped, also when the handshake fails, so a handshake is usable once', async () => {
    const good = await bothHellos()
    await finishServerHello(nodeCrypto, good.client, good.answer.hello, server.server_key)
    expect(toHex(good.client.eph_seed)).toBe('00'.repeat(32))
    const bad = await bothHellos()
    await codeOf(finishServerHello(nodeCrypto, bad.client, bad.answer.hello, fill(1)))
    expect(toHex(bad.client.eph_seed)).toBe('00'.repeat(32))
  })
})

describe('rekey (G12)', () => {
  const basis = { session_id: 's-1', prev_th: fill(0x66), gen: 1 }

  it('a hello with the session_id of another session is refused', async () => {
    const foreign = await startHandshake(nodeCrypto, { ...basis, session_id: 's-2' })
    expect(await codeOf(answerClientHello(nodeCrypto, foreign.hello, server, now, basis))).toBe('invalid_message')
  })

  it('a hello without session_id is refused in a rekey, and one with it is refused in a first handshake', async () => {
    const plain = await startHandshake(nodeCrypto)
    expect(await codeOf(answerClientHello(nodeCrypto, plain.hello, server, now, basis))).toBe('invalid_message')
    const rekey = await startHandshake(nodeCrypto, basis)
    expect(await codeOf(answerClientHello(nodeCrypto, rekey.hello, server, now))).toBe('invalid_message')
  })

  it('a rekey that continues another transcript is refused', async () => {
    const client = await startHandshake(nodeCrypto, basis)
    const answer = await answerClientHello(nodeCrypto, client.hello, server, now, { ...basis, prev_th: fill(0x67) })
    expect(await codeOf(finishServerHello(nodeCrypto, client, answer.hello, server.server_key))).toBe('invalid_signature')
  })

  it('an answer for an older generation is refused', async () => {
    const client = await startHandshake(nodeCrypto, { ...basis, gen: 2 })
    const answer = await answerClientHello(nodeCrypto, client.hello, server, now, basis)
    expect(await codeOf(finishServerHello(nodeCrypto, client, answer.hello, server.server_key))).toBe('invalid_message')
  })

  it('generation 255 is the last', async () => {
    await expect(startHandshake(nodeCrypto, { ...basis, gen: 255 })).resolves.toMatchObject({ gen: 255 })
    expect(await codeOf(startHandshake(nodeCrypto, { ...basis, gen: 256 }))).toBe('invalid_message')
    const client = await startHandshake(nodeCrypto, basis)
    expect(await codeOf(answerClientHello(nodeCrypto, client.hello, server, now, { ...basis, gen: 256 }))).toBe('invalid_message')
  })

  it('the hello of a sealed message is its head, byte for byte', async () => {
    const client = await startHandshake(nodeCrypto, basis)
    const message = encodeMessage(readClientHello(client.hello))
    expect(toHex(helloOf(message))).toBe(toHex(client.hello))
    for (const wrong of [message.subarray(0, 3), message.subarray(0, message.length - 1), Uint8Array.of(...message, 0)])
      expect(() => helloOf(wrong)).toThrow(SealpostError)
  })
})

describe('bad input', () => {
  it('no bytes make the hello decoders throw untyped (15,000 runs)', () => {
    const seed = utf8Decode(utf8(protocol.client_hello))
    const mutated = fc
      .tuple(fc.nat(seed.length - 1), fc.nat(8), fc.string({ maxLength: 8 }))
      .map(([at, cut, put]) => utf8(seed.slice(0, at) + put + seed.slice(at + cut)))
    const json = fc.json({ maxDepth: 3 }).map((text) => utf8(text))
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), mutated, json), (bytes) => {
        try {
          readClientHello(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(SealpostError)
          expect(['invalid_message', 'unsupported_version']).toContain((error as SealpostError).code)
        }
      }),
      { numRuns: 15_000 },
    )
  })

  it('no body makes the proof decoders throw untyped (10,000 runs)', () => {
    const text = protocol.client_auth_body as string
    const mutated = fc
      .tuple(fc.nat(text.length - 1), fc.nat(8), fc.string({ maxLength: 8 }))
      .map(([at, cut, put]) => toBase64url(utf8(text.slice(0, at) + put + text.slice(at + cut))))
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ maxLength: 200 }),
          mutated,
          fc.json().map((json) => toBase64url(utf8(json))),
        ),
        (body) => {
          for (const read of [readClientAuth, readRekeyAuth])
            try {
              read({ type: 'client_auth', body, sig: '' })
            } catch (error) {
              expect(error).toBeInstanceOf(SealpostError)
              expect((error as SealpostError).code).toBe('invalid_message')
            }
        },
      ),
      { numRuns: 5_000 },
    )
  })

  it('a hello above 4 KiB is refused unread', () => {
    expect(() => readClientHello(utf8(JSON.stringify({ pad: 'x'.repeat(4_096) })))).toThrow('too long')
  })
})

function bodyOf(hello: ServerHeadOf<'server_hello'>): Bytes {
  return Uint8Array.from(Buffer.from(hello.body, 'base64url'))
}
