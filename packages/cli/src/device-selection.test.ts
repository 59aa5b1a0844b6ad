import { describe, expect, test } from 'vitest'
import { type Failure, failureOf } from './exit-codes.ts'
import { selectDevice } from './device-selection.ts'

const laptop = { device_id: '0198c2aa-0000-4000-8000-000000000001', name: 'laptop', revoked: null }
const phone = { device_id: '0198c2bb-0000-4000-8000-000000000002', name: 'phone', revoked: null }
const oldPhone = { device_id: 'deadbeef-0000-4000-8000-000000000003', name: 'phone', revoked: { at: 1 } }
const oldTablet = { device_id: 'cafe0000-0000-4000-8000-000000000004', name: 'tablet', revoked: { at: 1 } }
const tricky = { device_id: 'aaaaaaaa-0000-4000-8000-000000000005', name: 'deadbeef', revoked: null }
const devices = [laptop, phone, oldPhone, oldTablet, tricky]

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

  test('a name counts before the start of an id', () => {
    expect(selectDevice(devices, 'deadbeef')).toBe(tricky)
  })

  test('a start that fits several is refused and names them', () => {
    expect(() => selectDevice(devices, '0198c2')).toThrow(/fits 2 devices/)
  })

  test('less than 6 characters of an id are refused', () => {
    expect(() => selectDevice(devices, 'cafe0')).toThrow(/too short/)
    expect(() => selectDevice(devices, '')).toThrow(/no device/)
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
