/** Random histories of a device log against a model that knows nothing but lists. */
import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { activeDevices, type DeviceLog, verifyEntry } from './device-log.ts'
import { nodeCrypto } from './node.ts'
import {
  type EntryPlan,
  type ForgedDevice,
  forgeDevice,
  forgeEntry,
  ROOT,
  ROOT_KEM_PUB,
  type Signer,
  USER_ID,
} from '@sealpost/testing/forgeries/forged-entries'

const PARTS = 6
const cache = new Map<string, ForgedDevice>()
function deviceOf({ id, sign, kem }: Parts): ForgedDevice {
  const key = `${id}/${sign}/${kem}`
  const device = cache.get(key) ?? forgeDevice(id, sign, kem)
  cache.set(key, device)
  return device
}

type Parts = { id: number; sign: number; kem: number }
type Step = {
  type: 'genesis' | 'add_device' | 'revoke_device' | 'rename_device' | 'rotate_keys' | 'recover'
  /** an index into all devices that ever were, or the root */
  signer: number | 'root' | 'fitting'
  device: Parts
  /** whom it names: indices into all devices that ever were */
  named: number[] | 'others'
  prev_box: boolean
  sealed: 'right' | 'as before' | 'one less' | 'one more'
  seed: 'right' | 'wrong'
}

/** The model: who is in and who is out, which numbered parts were ever used. */
type Member = { parts: Parts; device: ForgedDevice; active: boolean; name: string }
type Model = Member[]

function expectedOf(
  model: Model,
  signer: Signer,
  wrongSeed: boolean,
  step: Step,
  named: Member[],
  to: string[],
): { ok: boolean; after: Model } {
  const after = model.map((member) => ({ ...member }))
  const no = { ok: false, after: model }
  const brings = step.type === 'genesis' || step.type === 'add_device' || step.type === 'recover'
  const byRoot = step.type === 'genesis' || step.type === 'recover'
  if ((step.type === 'genesis') !== (model.length === 0)) return no
  if (byRoot !== (signer.id === 'root') || wrongSeed) return no
  if (!byRoot && !model.some((member) => member.device.id === signer.id && member.active)) return no
  if (step.type === 'revoke_device' || step.type === 'recover') {
    if (step.type === 'revoke_device' && named.length === 0) return no
    if (new Set(named).size !== named.length || named.some((member) => !member.active || member.device.id === signer.id)) return no
    for (const member of named) after[model.indexOf(member)]!.active = false
    if (step.type === 'recover' && after.some((member) => member.active)) return no
  }
  if (step.type === 'rename_device') {
    if (!named[0]?.active) return no
    after[model.indexOf(named[0])]!.name = 'renamed'
  }
  if (brings) {
    const { id, sign, kem } = step.device
    if (model.some(({ parts }) => parts.id === id || parts.sign === sign || parts.kem === kem)) return no
    after.push({ parts: step.device, device: deviceOf(step.device), active: true, name: `device ${id}` })
  }
  if (after.filter((member) => member.active).length === 0) return no
  const expected = ['root', ...after.filter((member) => member.active).map((member) => member.device.id)]
  if ([...expected].sort().join() !== [...to].sort().join()) return no
  const closes = step.type === 'rotate_keys' || step.type === 'recover' || step.type === 'genesis'
  if (!step.prev_box && !closes) return no
  return { ok: true, after }
}

const part = fc.nat(PARTS - 1)
/** Mostly a device of its own, sometimes one that shares a part with another. */
const parts = fc.oneof(
  { weight: 4, arbitrary: part.map((n) => ({ id: n, sign: n, kem: n })) },
  { weight: 1, arbitrary: fc.record({ id: part, sign: part, kem: part }) },
)
const mostly = <T>(usual: T, ...others: T[]) =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, ...others.map((other) => ({ weight: 1, arbitrary: fc.constant(other) })))
const steps = fc.array(
  fc.record({
    type: fc.constantFrom('add_device', 'add_device', 'revoke_device', 'rename_device', 'rotate_keys', 'recover', 'genesis'),
    signer: fc.oneof(
      { weight: 5, arbitrary: fc.constant('fitting' as const) },
      { weight: 1, arbitrary: fc.constant('root' as const) },
      { weight: 3, arbitrary: fc.nat(7) },
    ),
    device: parts,
    named: fc.oneof(
      { weight: 2, arbitrary: fc.constant('others' as const) },
      { weight: 4, arbitrary: fc.array(fc.nat(7), { minLength: 1, maxLength: 1 }) },
      { weight: 1, arbitrary: fc.array(fc.nat(7), { maxLength: 3 }) },
    ),
    prev_box: mostly(true, false),
    sealed: mostly<Step['sealed']>('right', 'as before', 'one less', 'one more'),
    seed: mostly<Step['seed']>('right', 'wrong'),
  }) satisfies fc.Arbitrary<Step>,
  { minLength: 2, maxLength: 14 },
)

/** Turns a step into an entry for the present state; what it means is decided twice, here by the model, there by the verifier. */
function planOf(model: Model, step: Step): { plan: EntryPlan; signer: Signer; named: Member[]; to: string[] } {
  const active = model.filter((member) => member.active)
  const byRoot = step.type === 'genesis' || step.type === 'recover'
  const fitting: Signer = byRoot || active[0] === undefined ? ROOT : active[0].device
  const signer: Signer =
    step.signer === 'fitting' ? fitting : step.signer === 'root' ? ROOT : (model[step.signer % model.length]?.device ?? ROOT)
  const others = active.filter((member) => member.device.id !== signer.id)
  const named = step.named === 'others' ? others : step.named.flatMap((n) => model[n % model.length] ?? [])
  const device = deviceOf(step.device)

  const leaving = step.type === 'revoke_device' || step.type === 'recover' ? named : []
  const coming = byRoot || step.type === 'add_device' ? [device.id] : []
  const before = ['root', ...active.map((member) => member.device.id)]
  const right = [...new Set([...before.filter((to) => !leaving.some((member) => member.device.id === to)), ...coming])]
  const to = { right, 'as before': before, 'one less': right.slice(1), 'one more': [...right, forgeDevice(99).id] }[step.sealed]

  const fields: Record<Step['type'], object> = {
    genesis: { root_kem_pub: ROOT_KEM_PUB, device: device.introduction },
    add_device: { device: device.introduction },
    revoke_device: { revoked: named.map((member) => ({ device_id: member.device.id })) },
    rename_device: { rename: { device_id: named[0]?.device.id ?? forgeDevice(99).id, name: 'renamed' } },
    rotate_keys: {},
    recover: { device: device.introduction, revoked: named.map((member) => ({ device_id: member.device.id })) },
  }
  const seed = step.seed === 'right' ? signer.seed : forgeDevice(98).seed
  const plan = {
    type: step.type,
    signer: { id: signer.id, seed },
    to,
    fields: fields[step.type],
    ...(step.prev_box ? {} : { prev_box: null }),
  }
  return { plan, signer, named, to }
}

it('random histories: the verifier and a naive model agree on every entry and on every state', async () => {
  const seen = { ok: 0, refused: 0 }
  await fc.assert(
    fc.asyncProperty(parts, steps, async (first, rest) => {
      const genesis: Step = { type: 'genesis', signer: 'root', device: first, named: [], prev_box: true, sealed: 'right', seed: 'right' }
      let log: DeviceLog | null = null
      let model: Model = []
      for (const step of [genesis, ...rest]) {
        const { plan, signer, named, to } = planOf(model, step)
        const expected = expectedOf(model, signer, step.seed === 'wrong', step, named, to)
        const verified = await verifyEntry(nodeCrypto, log, USER_ID, forgeEntry(log, plan))
        expect({ ok: verified.ok, step, why: verified.ok ? '' : verified.reason }).toMatchObject({ ok: expected.ok })
        seen[verified.ok ? 'ok' : 'refused']++
        if (!verified.ok) continue
        log = verified.log
        model = expected.after
        expect(activeDevices(log).map(({ device_id, name }) => [device_id, name])).toEqual(
          model.filter((member) => member.active).map((member) => [member.device.id, member.name]),
        )
        expect(log.devices.size).toBe(model.length)
        expect(log.epochs).toHaveLength(log.log_seq + 1)
      }
    }),
    { numRuns: 250 },
  )
  // a generator that makes only one of the two would prove nothing
  expect(seen.ok).toBeGreaterThan(300)
  expect(seen.refused).toBeGreaterThan(300)
})
