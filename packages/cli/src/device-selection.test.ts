import { describe, expect, test } from 'vitest'
import { type Failure, failureOf, UsageError } from './exit-codes.ts'
import { selectDevice } from './device-selection.ts'

const laptop = { device_id: '0198c2aa-0000-4000-8000-000000000001', name: 'laptop', revoked: null }
const phone = { device_id: '0198c2bb-0000-4000-8000-000000000002', name: 'phone', revoked: null }
const oldPhone = { device_id: 'deadbeef-0000-4000-8000-000000000003', name: 'phone', revoked: { at: 1 } }
const oldTablet = { device_id: 'cafe0000-0000-4000-8000-000000000004', name: 'tablet', revoked: { at: 1 } }
const devices = [laptop, phone, oldPhone, oldTablet]

/** What an error says to do. */
function hintOf(select: () => unknown): string {
  try {
    select()
  } catch (error) {
    return failureOf(error).hint
  }
  return ''
}

describe('selectDevice', () => {
  test.each([
    ['laptop', laptop],
    [laptop.device_id, laptop],
    [laptop.device_id.toUpperCase(), laptop],
    ['cafe00', oldTablet],
    [' laptop ', laptop],
    ['0198c2b', phone],
  ])('%s is found', (text, device) => {
    expect(selectDevice(devices, text)).toBe(device)
  })

  test('an active device counts before a revoked one of the same name', () => {
    expect(selectDevice(devices, 'phone')).toBe(phone)
  })

  test('a revoked device is found by its name', () => {
    expect(selectDevice(devices, 'tablet')).toBe(oldTablet)
  })

  test.each([
    ['the start of the id of another', '0198c2bb', phone],
    ['the whole id of another', phone.device_id, phone],
    ['the start of the id of a revoked one', 'deadbeef', oldPhone],
  ])('a device that is called as %s does not take its place: both are named, and --id tells them apart', (_, name, meant) => {
    const tricky = { device_id: 'aaaaaaaa-0000-4000-8000-000000000005', name, revoked: null }
    const all = [...devices, tricky]
    for (const text of [name, ` ${name.toUpperCase()} `.toLowerCase()]) {
      expect(() => selectDevice(all, text)).toThrow(UsageError)
      const hint = hintOf(() => selectDevice(all, text))
      expect(hint).toContain(`--id ${meant.device_id} ("${meant.name}")`)
      expect(hint).toContain(`--id ${tricky.device_id} ("${name}")`)
    }
    expect(selectDevice(all, name, true)).toBe(meant)
    expect(selectDevice(all, tricky.device_id, true)).toBe(tricky)
  })

  test('names that look the same are the same: characters that nobody sees do not tell them apart', () => {
    const twin = { device_id: 'bbbbbbbb-0000-4000-8000-000000000006', name: 'pho\u200bne', revoked: null }
    expect(() => selectDevice([...devices, twin], 'phone')).toThrow(/fits 2 devices/)
    expect(() => selectDevice([...devices, twin], 'pho\u200bne')).toThrow(/fits 2 devices/)
    expect(selectDevice([laptop, twin], 'phone')).toBe(twin)
  })

  test('with --id a name is none', () => {
    expect(() => selectDevice(devices, 'laptop', true)).toThrow(/no device/)
  })

  test('a start that fits several is refused and names them', () => {
    expect(() => selectDevice(devices, '0198c2')).toThrow(/fits 2 devices/)
  })

  test('less than 6 characters of an id are refused', () => {
    expect(() => selectDevice(devices, 'cafe0')).toThrow(/too short/)
    const called = { device_id: 'cccccccc-0000-4000-8000-000000000007', name: 'device', revoked: null }
    for (const nothing of ['', ' ', '\u200b']) expect(() => selectDevice([...devices, called], nothing)).toThrow(/no device/)
  })

  test('an unknown device is refused with the way to list them', () => {
    let failure: Failure | undefined
    try {
      selectDevice(devices, 'watch')
    } catch (error) {
      failure = failureOf(error)
    }
    expect(failure).toMatchObject({ exit: 'refused', code: 'not_found', hint: expect.stringContaining('sealpost devices') })
  })
})
