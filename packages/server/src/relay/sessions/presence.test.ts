import { expect, it } from 'vitest'
import type { Contact } from '../../ports/store.ts'
import { createPresence, showPresence } from './presence.ts'

const NODE = 7
const device = { user_no: 1, device_no: 2 }
const other = { user_no: 1, device_no: 3 }
const stream = { ...device, session_id: null, position: 4 }
const socket = { ...device, session_id: 's', position: 5 }

/** What is written, in order; `fails` is asked before each. */
function setUp(fails: (written: string) => boolean = () => false, offline = true) {
  const written: string[] = []
  let gate: Promise<void> = Promise.resolve()
  async function write<T>(what: string, answer: T): Promise<T> {
    if (fails(what)) throw new Error(what)
    written.push(what)
    return answer
  }
  const name = ({ device_no }: { device_no: number }): string => String(device_no)
  const presence = createPresence(
    {
      touchDevices: async (rows: readonly Contact[]) => {
        await gate
        await write(`touch ${rows.map((row) => `${name(row)}@${row.position} ${row.follower_node}`).join()}`, undefined)
      },
      endSession: (_user_no, device_no, session_id, { position }) => write(`end ${device_no} ${session_id}@${position}`, offline),
      setFollower: (reader, node_no, follows) => write(`${follows ? 'follow' : 'unfollow'} ${name(reader)} ${node_no}`, offline),
    },
    () => NODE,
  )
  return { written, presence, hold: (until: Promise<void>) => void (gate = until) }
}

it('G11: however often a device is seen, it is one row a round, with the highest position', async () => {
  const { written, presence } = setUp()
  for (const position of [3, 9, 0]) presence.touch(device, position)
  presence.touch(other, 1)
  await presence.flush()
  await presence.flush()
  expect(written).toEqual(['touch 2@9 null,3@1 null'])
})

it('R08: the end of a session is written at once, and the store says whether the device is offline', async () => {
  const { written, presence } = setUp()
  expect(await presence.end(socket)).toBe(true)
  expect(written).toEqual(['end 2 s@5'])
  expect(await setUp(undefined, false).presence.end(socket)).toBe(false)
})

it('R08: a device follows over this node from its first stream to its last', async () => {
  const { written, presence } = setUp()
  await presence.follow(device)
  await presence.follow(device)
  expect(await presence.end(stream), 'another stream is left').toBe(false)
  expect(await presence.end(stream)).toBe(true)
  expect(written).toEqual(['follow 2 7', 'follow 2 7', 'unfollow 2 7'])
})

it('R08: that it follows is said again with every touch, and no more when it ended, whatever was seen before', async () => {
  const { written, presence } = setUp()
  await presence.follow(device)
  presence.touch(device, 1)
  await presence.flush()
  presence.touch(device, 2)
  await presence.end(stream)
  await presence.flush()
  expect(written).toEqual(['follow 2 7', 'touch 2@1 7', 'unfollow 2 7', 'touch 2@4 null'])
})

it('R08: the end of a stream is written behind the touches that are under way and still say that it follows', async () => {
  const { written, presence, hold } = setUp()
  const gate = Promise.withResolvers<void>()
  await presence.follow(device)
  presence.touch(device, 1)
  hold(gate.promise)
  const flushed = presence.flush()
  const ended = presence.end(stream)
  gate.resolve()
  expect(await Promise.all([flushed, ended])).toEqual([undefined, true])
  expect(written).toEqual(['follow 2 7', 'touch 2@1 7', 'unfollow 2 7'])
})

it('R02: what the store did not take is written later, once, and one that it takes never holds up no other', async () => {
  let refused = ['end 2 s', 'unfollow 3']
  const { written, presence } = setUp((what) => refused.some((begin) => what.startsWith(begin)))
  await presence.follow(other)
  await expect(presence.end(socket)).rejects.toThrow('end 2')
  await expect(presence.end({ ...other, session_id: null, position: 0 })).rejects.toThrow('unfollow 3')
  refused = ['end 2 s']
  for (let round = 0; round < 2; round++) await presence.retry().catch(() => {})
  expect(written).toEqual(['follow 3 7', 'unfollow 3 7'])
  refused = []
  for (let round = 0; round < 2; round++) await presence.retry()
  expect(written).toEqual(['follow 3 7', 'unfollow 3 7', 'end 2 s@5'])
})

it('R08: a stream that ended and began again before it was written is no end', async () => {
  let down = true
  const { written, presence } = setUp((what) => down && what.startsWith('unfollow'))
  await presence.follow(device)
  await expect(presence.end(stream)).rejects.toThrow()
  await presence.follow(device)
  down = false
  await presence.retry()
  expect(written).toEqual(['follow 2 7', 'follow 2 7'])
})

it('others are shown that a device is suspended, and nothing of it otherwise', () => {
  const row = { device_id: 'd', online: true, last_seen: null, suspended: false }
  expect(showPresence(row)).toEqual({ device_id: 'd', online: true, last_seen: null })
  expect(showPresence({ ...row, online: false, suspended: true })).toEqual({
    device_id: 'd',
    online: false,
    last_seen: null,
    suspended: true,
  })
})
