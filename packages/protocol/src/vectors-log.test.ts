/** `vectors/device-log.json` and the root keys of `vectors/protocol.json`: both were made by a second implementation. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { fromBase64url, fromHex, toHex } from './bytes.ts'
import { activeDevices, type DeviceLog, decodeWireEntry, verifyEntry, verifyLog } from './device-log.ts'
import { checkBoxes, openEpochKey, previousEpochKey } from './epoch-key.ts'
import { SealpostError } from './errors.ts'
import { deriveRootKeys } from './keys.ts'
import { nodeCrypto } from './node.ts'
import { verifyAssertion } from './signed.ts'
import { tuple } from './tuple.ts'

const read = (name: string) => JSON.parse(readFileSync(new URL(`../../../vectors/${name}.json`, import.meta.url), 'utf8'))
const { user_id, entries, devices, invalid, assertions, recovery_seed, root_kem_seed } = read('device-log')
const protocol = read('protocol')

const codeOf = (of: Promise<unknown>) =>
  of.then(() => 'ok').catch((error: unknown) => (error instanceof SealpostError ? error.code : error))

/** The log after the first `count` recorded entries, and whatever follows them. */
async function logOf(count: number, ...more: { body: string; sig: string }[]): Promise<DeviceLog | null> {
  if (count + more.length === 0) return null
  const verified = await verifyLog(nodeCrypto, user_id, [...entries.slice(0, count), ...more].map(decodeWireEntry))
  if (!verified.ok) throw new Error(verified.reason)
  return verified.log
}

describe('recorded by a second implementation', () => {
  it('the tuple of protocol.json', () => {
    expect(toHex(tuple('t', 'ab', 5, null, fromHex('00ff')))).toBe(protocol.tuple[0].hex)
  })

  it.each([
    ['protocol.json', protocol.root],
    ['device-log.json', { recovery_seed, user_id, kem_seed: root_kem_seed }],
  ])('the root keys of %s', async (_, root) => {
    const seed = root.recovery_seed === '0c*32' ? new Uint8Array(32).fill(0x0c) : fromHex(root.recovery_seed)
    const keys = await deriveRootKeys(nodeCrypto, seed)
    expect(toHex(keys.kem_seed)).toBe(root.kem_seed)
    if (root.user_id.length === 64) expect(toHex(keys.sign_pub)).toBe(root.user_id)
    else expect(keys.user_id).toBe(root.user_id)
    if (root.sign_seed !== undefined) expect(toHex(keys.sign_seed)).toBe(root.sign_seed)
    if (root.kem_pub_sha256 !== undefined) expect(toHex(nodeCrypto.sha256(keys.kem_pub))).toBe(root.kem_pub_sha256)
  })

  it('the six entries verify, with the recorded hashes and exactly the recorded boxes', async () => {
    for (const [i, entry] of entries.entries()) {
      const log = await logOf(i + 1)
      expect(log).toMatchObject({ log_seq: i, user_id })
      expect(toHex(log!.log_head)).toBe(entry.entry_hash)
      expect(await checkBoxes(nodeCrypto, log!, entry.boxes)).toBe(true)
    }
    const log = await logOf(entries.length)
    expect(activeDevices(log!).map(({ name }) => name)).toEqual(['studio 🎛️', 'phone'])
    expect(log!.devices.get(devices[2].device_id)?.revoked).toMatchObject({
      log_seq: 4,
      by: devices[0].device_id,
      pins: { last_device_seq: 41 },
    })
  })

  it('every recorded box opens to the recorded epoch key for its recipient, and for nobody else', async () => {
    const log = (await logOf(entries.length))!
    const seeds = new Map<string, string>([
      ['root', root_kem_seed],
      ...devices.map((d: Record<string, string>) => [d['device_id'], d['kem_seed']]),
    ])
    for (const [i, { boxes, epoch_key }] of entries.entries())
      for (const [to, box] of Object.entries<string>(boxes)) {
        const open = (seed: string) => openEpochKey(nodeCrypto, log, i, to, fromHex(seed), fromBase64url(box))
        expect(toHex(await open(seeds.get(to)!))).toBe(epoch_key)
        if (i === 3) expect(await codeOf(open(seeds.get(to === 'root' ? devices[0].device_id : 'root')!))).toBe('invalid_box')
      }
  })

  it('each prev_box opens to the epoch key before, down to genesis', async () => {
    const log = (await logOf(entries.length))!
    for (let i = entries.length - 1; i > 0; i--)
      expect(toHex((await previousEpochKey(nodeCrypto, log, i, fromHex(entries[i].epoch_key)))!)).toBe(entries[i - 1].epoch_key)
    expect(await previousEpochKey(nodeCrypto, log, 0, fromHex(entries[0].epoch_key))).toBeNull()
  })

  it.each<{ name: string; code: string; after: number; body: string; sig: string }>(invalid.entries)(
    'refused as $code: $name',
    async ({ code, after, body, sig }) => {
      const verified = await verifyEntry(nodeCrypto, await logOf(after), user_id, decodeWireEntry({ body, sig }))
      expect(verified).toMatchObject({ ok: false, code })
    },
  )

  it.each<{ name: string; code: string; after: number; body: string; sig: string; to: string; box: string }>(invalid.boxes)(
    'the entry verifies, its box is refused as $code: $name',
    async ({ code, after, body, sig, to, box }) => {
      const log = (await logOf(after, { body, sig }))!
      const { kem_seed } = devices.find((d: { device_id: string }) => d.device_id === to)
      expect(await codeOf(openEpochKey(nodeCrypto, log, after, to, fromHex(kem_seed), fromBase64url(box)))).toBe(code)
    },
  )

  it.each<{ name: string; code: string; after: number; body: string; sig: string; epoch_key: string }>(invalid.prev_boxes)(
    'the entry verifies, its prev_box is refused as $code: $name',
    async ({ code, after, body, sig, epoch_key }) => {
      const log = (await logOf(after, { body, sig }))!
      expect(await codeOf(previousEpochKey(nodeCrypto, log, after, fromHex(epoch_key)))).toBe(code)
    },
  )

  it.each<{ name: string; body: string; sig: string; sign_pub: string }>(assertions.valid)(
    'an assertion is accepted: $name',
    async (signed) => {
      expect(await verifyAssertion(nodeCrypto, fromHex(signed.sign_pub), signed, assertions.expected)).toMatchObject({ ok: true })
    },
  )

  it.each<{ name: string; code: string; body: string; sig: string; sign_pub: string }>(assertions.invalid)(
    'an assertion is refused as $code: $name',
    async (signed) => {
      expect(await verifyAssertion(nodeCrypto, fromHex(signed.sign_pub), signed, assertions.expected)).toEqual({
        ok: false,
        code: signed.code,
      })
    },
  )
})
