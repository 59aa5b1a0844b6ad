import {
  buildEntry,
  type Bytes,
  type ClientMessage,
  createDeviceKeys,
  type DeviceKeys,
  deriveRootKeys,
  type DeviceLog,
  encodeRecord,
  encodeWireEntry,
  fromBase64url,
  introduceDevice,
  type LogChange,
  type NewEntry,
  SealpostError,
  type ServerHead,
  sealEvent,
  toBase64url,
  verifyLog,
  type WireEntry,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createEventIdMaker } from '../outbox/event-id.ts'
import { type Leader, openLeader } from './leader.ts'
import type { Notice } from '../notices.ts'
import type { Http, Identity } from '../ports.ts'
import { createServerClock, type ServerClock } from '../connection/server-clock.ts'
import { createMemoryHome } from '@sealpost/testing/clients/memory-home'
import { createMemoryStore, type MemoryStore } from '@sealpost/testing/clients/memory-store'
import {
  createScriptedServer,
  HISTORY,
  type ScriptedServer,
  type ScriptedSession,
  SERVER_KEY,
  SERVER_SEED,
} from '@sealpost/testing/relays/scripted-server'
import { createTestClock, type TestClock } from '@sealpost/testing/clients/clock-and-account'

const makeEventId = createEventIdMaker(nodeCrypto)

let clock: TestClock
let laptop: DeviceKeys
let phone: DeviceKeys
let user_id: string
let identity: Identity
let store: MemoryStore
let server: ScriptedServer
let leader: Leader
let time: ServerClock
let made: NewEntry[]
let notices: Notice[]

const turn = async (): Promise<void> => {
  for (let i = 0; i < 12; i++) await new Promise((resolve) => setImmediate(resolve))
}
const settled = <T>(call: () => T) => expect.poll(call, { interval: 2, timeout: 5_000 })
const logOf = async (): Promise<DeviceLog> => {
  const verified = await verifyLog(
    nodeCrypto,
    user_id,
    made.map((entry) => entry.entry),
  )
  if (!verified.ok) throw new Error(verified.code)
  return verified.log
}
const wire = (n: number, to = laptop.device_id): WireEntry => encodeWireEntry(made[n]!.entry, made[n]!.boxes[to] ?? null)
async function build(change: LogChange, by = laptop): Promise<void> {
  const signer = { id: by.device_id, seed: by.sign_seed }
  made.push(await buildEntry(nodeCrypto, await logOf(), user_id, signer, change, made.at(-1)!.epoch_key, clock.now()))
}
const headOf = (n: number): { log_seq: number; log_head: string } => ({ log_seq: n, log_head: toBase64url(made[n]!.entry_hash) })

/** The account has the laptop (this device) and the phone; the store knows both entries. */
beforeEach(async () => {
  clock = createTestClock()
  const root = await deriveRootKeys(nodeCrypto, nodeCrypto.random(32))
  laptop = await createDeviceKeys(nodeCrypto)
  phone = await createDeviceKeys(nodeCrypto)
  user_id = root.user_id
  const first = await introduceDevice(nodeCrypto, user_id, laptop, 'laptop', 'desktop')
  const signer = { id: 'root', seed: root.sign_seed }
  const genesis = { type: 'genesis', root_kem_pub: root.kem_pub, device: first } as const
  made = [await buildEntry(nodeCrypto, null, user_id, signer, genesis, null, clock.now())]
  await build({ type: 'add_device', device: await introduceDevice(nodeCrypto, user_id, phone, 'phone', 'mobile') })
  identity = {
    ...laptop,
    user_id,
    name: 'laptop',
    device_type: 'desktop',
    server_url: 'http://127.0.0.1:1',
    server_key: SERVER_KEY,
    created_at: 0,
  }
  store = createMemoryStore()
  await store.createIdentity(
    identity,
    made.map((entry, log_seq) => ({
      ...entry.entry,
      log_seq,
      entry_hash: entry.entry_hash,
      box: null,
      epoch_key: entry.epoch_key,
      first_seen: clock.now(),
    })),
  )
  server = createScriptedServer()
  notices = []
})
afterEach(() => leader.close())

const nobody = () => Promise.reject(new SealpostError('unreachable', 'nobody is there'))

async function start(http: Http = { request: nobody, stream: nobody }): Promise<void> {
  const stored = (await store.readIdentity()) ?? identity
  time = createServerClock(clock)
  leader = await openLeader(createMemoryHome({ store, transport: server, http, clock }), stored, time)
  leader.notices.on((notice) => notices.push(notice))
  leader.start()
  await turn()
}

/** An event of the phone under the newest epoch of `made`, as the server would deliver it. */
async function delivered(position: number, prev_hash: Bytes | null = null): Promise<{ body: Bytes; event_hash: Bytes }> {
  const { eventKey, decodeRecords } = await import('@sealpost/protocol')
  const epoch = made.length - 1
  const entry = made[epoch]!
  const { record, event_hash } = await sealEvent(nodeCrypto, {
    user_id,
    device_id: phone.device_id,
    sign_seed: phone.sign_seed,
    event_key: await eventKey(nodeCrypto, entry.epoch_key, entry.entry_hash, phone.device_id),
    epoch,
    event_id: makeEventId(clock.now()),
    device_seq: position,
    stream_id: 'main',
    type: 'app',
    ttl: null,
    prev_hash,
    data: new Uint8Array(3),
  })
  const [decoded] = decodeRecords(record)
  return { body: encodeRecord({ ...decoded!, server: { position, stream_seq: position, received_at: clock.now() } }), event_hash }
}
const event = (position: number): ServerHead => ({ type: 'event', after: position - 1, upto: position })
const alarms = async (): Promise<string[]> => (await store.readAlarms(10)).map((alarm) => alarm.reason)
const codes = (): string[] => notices.flatMap((notice) => (notice.is === 'error' ? [notice.error.code] : []))

describe('the leader', () => {
  describe('follows its server to another address', () => {
    const NEW_URL = 'http://127.0.0.1:2'
    const other = new Uint8Array(32).fill(9)
    const storedUrl = async (): Promise<string | undefined> => (await store.readIdentity())?.server_url

    it('also when what stands at the old one has another key, which had ended it', async () => {
      const foreign = { server_key: toBase64url(nodeCrypto.ed25519Public(other)), chain: [] }
      const body = new TextEncoder().encode(JSON.stringify(foreign))
      server.seed = other
      await start({
        request: () => Promise.resolve({ status: 200, headers: { 'content-type': 'application/json' }, body }),
        stream: nobody,
      })
      await settled(() => leader.status().terminal?.code).toBe('server_identity')
      server.seed = SERVER_SEED
      await leader.moveServer(NEW_URL)
      await settled(() => leader.status().state).toBe('live')
      expect([leader.status().terminal, leader.identity.server_url, await storedUrl()]).toEqual([null, NEW_URL, NEW_URL])
    })

    it.each([
      ['has another key', other, null, 'server_identity'],
      ['names the known key and does not hold it', other, SERVER_KEY, 'server_identity'],
    ] as const)('not when the server there %s: the session stands as it was', async (_, seed, named, code) => {
      await start()
      const session = server.last
      Object.assign(server, { seed, named })
      await expect(leader.moveServer(NEW_URL)).rejects.toMatchObject({ code })
      expect([leader.status().state, leader.status().terminal, session.closed]).toEqual(['live', null, null])
      expect([server.last.auth, server.last.received, server.last.closed]).toEqual([null, [], 1000])
      expect(await storedUrl()).toBe('http://127.0.0.1:1')
    })

    it('not when the key that comes with the address is another one: nobody is asked', async () => {
      await start()
      await expect(leader.moveServer(`${NEW_URL}/#${toBase64url(other)}`)).rejects.toMatchObject({ code: 'server_identity' })
      await expect(leader.moveServer('http://relay.example')).rejects.toMatchObject({ code: 'invalid_request' })
      expect(server.sessions).toHaveLength(1)
      await leader.moveServer(`${NEW_URL}/#${toBase64url(SERVER_KEY)}`)
      expect(await storedUrl()).toBe(NEW_URL)
    })

    it('not when this device has ended for a reason of its own', async () => {
      server.onAuth = (session) => session.establish({ log_head: HISTORY })
      await start()
      await settled(() => leader.status().terminal?.code).toBe('log_fork')
      await expect(leader.moveServer(NEW_URL)).rejects.toMatchObject({ code: 'log_fork' })
      expect(await storedUrl()).toBe('http://127.0.0.1:1')
    })
  })

  it('a hole in the stream begins the session anew once; the second one is an alarm in the store, and pauses grow (C6)', async () => {
    await start()
    for (let i = 0; i < 6; i++) {
      server.last.send(event(5 + i))
      await turn()
      expect(await alarms()).toEqual(i === 0 ? [] : ['cursor_gap'])
      clock.advance(200)
      await turn()
      expect(leader.status().state).toBe('offline')
      clock.advance(30_000)
      await turn()
    }
    expect(notices.filter((notice) => notice.is === 'alarm')).toHaveLength(1)
    expect(await store.readReceived('main', 0, 10, 1e6)).toEqual([expect.objectContaining({ is: 'notice' })])
  })

  it('what was stored while live forgives the first hole', async () => {
    await start()
    server.last.send(event(5))
    await turn()
    clock.advance(500)
    await turn()
    server.last.send(event(1), (await delivered(1)).body)
    await turn()
    expect(leader.status().state).toBe('live')
    server.last.send(event(5))
    await turn()
    expect(await alarms()).toEqual([])
  })

  it('a full disk on the receiving side ends it as such (74)', async () => {
    store = { ...store, commitReceived: () => Promise.reject(new SealpostError('disk', 'the disk is full')) }
    await start()
    server.last.send(event(1), (await delivered(1)).body)
    await turn()
    expect(leader.status().terminal?.code).toBe('disk')
    expect(server.sessions).toHaveLength(1)
  })

  it('a server that says of itself that it failed, or that this device is revoked, ends nothing', async () => {
    for (const code of ['internal', 'device_revoked', 'disk', 'log_fork'] as const) {
      await start()
      server.last.send({ type: 'error', code, message: 'x' })
      await turn()
      expect(leader.status().terminal).toBeNull()
      expect(await store.readIdentity()).not.toBeNull()
      await leader.close()
    }
    await start()
  })

  it('an entry that revokes this device wipes it; a wipe that failed or never began is made at the next start, before a connection', async () => {
    await build({ type: 'revoke_device', device_id: laptop.device_id, pins: null }, phone)
    const working = store
    store = { ...store, wipe: () => Promise.reject(new SealpostError('disk', 'the disk is full')) }
    await start()
    server.last.send({ type: 'log_entry', ...wire(2) })
    await turn()
    expect(leader.status().terminal?.code).toBe('disk')
    expect(await store.readIdentity()).not.toBeNull()
    store = working
    const sessions = server.sessions.length
    await expect(start()).rejects.toMatchObject({ code: 'device_revoked' })
    expect(server.sessions).toHaveLength(sessions)
    expect(await store.readIdentity()).toBeNull()
    expect(await store.readRevocation()).toMatchObject({ by_name: 'phone', log_seq: 2 })
  })

  it('the entries that the server announces must come: asked for after 10 s, then log_withheld with an alarm', async () => {
    await build({ type: 'rotate_keys' }, phone)
    server.onAuth = (session) => session.establish(headOf(2))
    server.onMessage = (session, { head }) => {
      if (head.type === 'log_request') session.send({ type: 'log_entries', id: head.id, entries: [], has_more: false })
    }
    await start()
    const first = server.last
    clock.advance(10_000)
    await turn()
    expect(first.received.map((message) => message.head.type)).toContain('log_request')
    expect(codes()).toContain('log_withheld')
    expect(await alarms()).toEqual(['log_withheld'])
    expect(first.closed).not.toBeNull()
  })

  it('the entries that were announced come later or when asked for: nothing is amiss', async () => {
    await build({ type: 'rotate_keys' }, phone)
    server.onAuth = (session) => session.establish(headOf(2))
    server.onMessage = (session, { head }) => {
      if (head.type === 'log_request') session.send({ type: 'log_entries', id: head.id, entries: [wire(2)], has_more: false })
    }
    await start()
    clock.advance(10_000)
    await settled(() => leader.account.log.log_seq).toBe(2)
    await turn()
    expect([codes(), server.last.closed]).toEqual([[], null])
  })

  /** Answers as a server that has all entries of `made` and tells of none by itself. */
  const answerAll = (session: ScriptedSession, { head }: ClientMessage): void => {
    if (head.type === 'log_request') {
      const entries = made.slice(head.from_log_seq).map((_, i) => wire(head.from_log_seq + i))
      session.send({ type: 'log_entries', id: head.id, entries, has_more: false })
    }
    if (head.type === 'tips_request') session.send({ type: 'tips', id: head.id, last_device_seq: 0, complete: true })
    if (head.type === 'log_append') session.send({ type: 'log_result', id: head.id, ok: true, ...headOf(made.length - 1) })
  }
  const appended = (): { log_seq: number; type: string }[] =>
    server.last.received.flatMap(({ head }) =>
      head.type === 'log_append' ? [JSON.parse(new TextDecoder().decode(fromBase64url(head.body)))] : [],
    )

  it('a device that the server has not told of yet is revoked by the first call', async () => {
    server.onMessage = answerAll
    await start()
    const tablet = await createDeviceKeys(nodeCrypto)
    await build({ type: 'add_device', device: await introduceDevice(nodeCrypto, user_id, tablet, 'tablet', 'mobile') }, phone)
    await leader.revoke(tablet.device_id)
    expect(appended()).toMatchObject([{ log_seq: 3, type: 'revoke_device', revoked: [{ device_id: tablet.device_id }] }])
    await expect(leader.revoke('00000000-0000-4000-8000-000000000000')).rejects.toMatchObject({ code: 'not_found' })
  })

  it('who asks for the log while it is read gets what the server has after that', async () => {
    const asked: number[] = []
    server.onMessage = (_session, { head }) => {
      if (head.type === 'log_request') asked.push(head.id)
    }
    await start()
    const before = leader.readLog()
    await settled(() => asked.length).toBe(1)
    await build({ type: 'rotate_keys' }, phone)
    const after = [leader.readLog(), leader.readLog()]
    server.last.send({ type: 'log_entries', id: asked[0]!, entries: [], has_more: false })
    await before
    await settled(() => asked.length).toBe(2)
    server.last.send({ type: 'log_entries', id: asked[1]!, entries: [wire(2)], has_more: false })
    await Promise.all(after)
    expect([leader.account.log.log_seq, asked.length]).toEqual([2, 2])
  })

  it('an answer that leaves entries out, or shows known ones as new, is log_withheld and not asked for without end', async () => {
    await build({ type: 'rotate_keys' }, phone)
    await build({ type: 'rotate_keys' }, phone)
    for (const n of [1, 3]) {
      let requests = 0
      server.onMessage = (session, { head }) => {
        if (head.type !== 'log_request') return
        requests++
        session.send({ type: 'log_entries', id: head.id, entries: [wire(n)], has_more: true })
      }
      await start()
      await expect(leader.readLog()).rejects.toMatchObject({ code: 'log_withheld' })
      expect(requests).toBe(1)
      await leader.close()
    }
    await start()
  })

  it('an announced head that is not the one of its entry is a fork, below, at and above what this device knows', async () => {
    await build({ type: 'rotate_keys' }, phone)
    for (const log_seq of [0, 1, 2]) {
      server.onAuth = (session) => {
        session.establish({ log_seq, log_head: HISTORY })
        if (log_seq === 2) session.send({ type: 'log_entry', ...wire(2) })
      }
      await start()
      await settled(() => leader.status().terminal?.code).toBe('log_fork')
      await leader.close()
    }
  })

  it('reads the answer to its request for the log however much waits behind it', async () => {
    await start()
    const events = [await delivered(1)]
    await build({ type: 'rotate_keys' }, phone)
    for (let n = 2; n <= 40; n++) events.push(await delivered(n, events.at(-1)!.event_hash))
    let asked = 0
    server.onMessage = (_session, { head }) => {
      if (head.type === 'log_request') asked = head.id
    }
    for (const [i, { body }] of events.entries()) server.last.send(event(i + 1), body)
    await settled(() => asked).toBeGreaterThan(0)
    await turn()
    expect(server.last.paused).toBe(false)
    server.last.send({ type: 'log_entries', id: asked, entries: [wire(2)], has_more: false })
    await settled(async () => (await store.readReceiveState()).cursor.position).toBe(40)
  })

  it('a replay that is refused without a token begins the session anew after a pause, not at once', async () => {
    server.onAuth = (session) => session.establish({ mode: 'replay', head_position: 5 })
    let requests = 0
    server.onMessage = (session, { head }) => {
      if (head.type !== 'replay_request') return
      requests++
      if (requests < 50) session.send({ type: 'error', id: head.id, code: 'invalid_token', message: 'x' })
    }
    await start()
    await turn()
    expect(requests).toBe(1)
    expect(leader.status().state).toBe('offline')
  })

  it('an hour is not used up by a rotation that never reached the server', async () => {
    await build({ type: 'rotate_keys' }, phone)
    // an entry whose box is not for this device: the epoch does not open
    server.onAuth = (session) => {
      session.establish({ ...headOf(2), rekey_after_s: 100_000 })
      session.send({ type: 'log_entry', ...wire(2), box: null })
    }
    let appends = 0
    server.onMessage = (session, { head }) => {
      if (head.type === 'ping') session.send({ type: 'pong', t: head.t })
      if (head.type === 'log_request') session.send({ type: 'log_entries', id: head.id, entries: [], has_more: false })
      if (head.type !== 'log_append') return
      appends++
      if (appends === 1) session.close(1006)
      else session.send({ type: 'log_result', id: head.id, ok: false, code: 'rate_limited', ...headOf(2) })
    }
    await start()
    await settled(() => leader.account.log.log_seq).toBe(2)
    await turn()
    clock.advance(3_000)
    await settled(() => leader.status().state).toBe('offline')
    expect([appends, await store.readNote('rotation_forced')]).toEqual([1, undefined])
    clock.advance(1_000)
    await turn()
    await settled(() => leader.status().state).toBe('live')
    await turn()
    clock.advance(3_000)
    await settled(() => store.readNote('rotation_forced')).toBe(time.now())
    expect(appends).toBe(2)
    // an hour later it is tried again
    for (let minutes = 0; minutes < 62; minutes += 0.25) {
      clock.advance(15_000)
      await turn()
    }
    await settled(() => appends).toBe(3)
  })
})
