import { expect, it } from 'vitest'
import { createPresence } from './presence.ts'

const device = { user_no: 1, device_no: 2, device_id: 'd' }

it('R08: a device is online while one of its sessions is open', () => {
  const presence = createPresence({ touchDevices: async () => {} })
  presence.open(device, 'socket')
  presence.open(device, 'stream')
  expect(presence.close(device, 'socket')).toBe(false)
  expect(presence.close(device, 'socket')).toBe(false)
  expect([presence.isOnline(1, 'd'), presence.user_nos()]).toEqual([true, [1]])
  expect(presence.close(device, 'stream')).toBe(true)
  expect([presence.isOnline(1, 'd'), presence.size()]).toEqual([false, 0])
})

it('G11: however often a device is seen, it is one row a round, with the highest position', async () => {
  const rows: unknown[] = []
  const presence = createPresence({ touchDevices: async (given) => void rows.push(...given) })
  for (const position of [3, 9, 0]) presence.touch(device, position)
  await presence.flush()
  await presence.flush()
  expect(rows).toEqual([{ user_no: 1, device_no: 2, position: 9 }])
})
