import { expect, it } from 'vitest'
import { PAIRING_SLOTS } from './pairing.ts'
import { LIMITS } from './limits.ts'
import { ROUTES, type Route, routePath } from './routes.ts'

const rows = Object.values(ROUTES) as Route[]

it('no two routes have the same method and path', () => {
  expect(new Set(rows.map((row) => `${row.method} ${row.path}`)).size).toBe(rows.length)
})

it('a route that takes a body says how large it may be, and the others take none', () => {
  for (const row of rows) expect(row.bodyBytesMax > 0, row.path).toBe(row.body !== 'none')
})

it('each pairing slot can be written, and only join without a token', () => {
  const puts = rows.filter((row) => row.method === 'PUT')
  expect(puts.map((row) => [row.path.split('/').at(-1), row.auth, row.bodyBytesMax])).toEqual(
    PAIRING_SLOTS.map((slot) => [slot, slot === 'join' ? 'none' : 'token', LIMITS.pairingSlotBytesMax]),
  )
})

it('a path is filled in with encoded parameters', () => {
  expect(routePath('read_slot', { mailbox_id: 'a/b', slot: 'join' })).toBe('/api/pairing/a%2Fb/join')
  expect(routePath('create_token')).toBe('/api/auth/token')
})
