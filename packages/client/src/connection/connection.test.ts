import { CLOSE, type ServerHead } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { testDevice } from '@sealpost/testing/clients/honest-events'
import { type Connection, createConnection, type SessionMessage } from './connection.ts'
import { createScriptedServer, SERVER_KEY } from '@sealpost/testing/relays/scripted-server'
import { createTestClock, identityOf } from '@sealpost/testing/clients/clock-and-account'

const identity = { ...identityOf(testDevice(1)), server_key: SERVER_KEY }
const turn = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
}
const EARLY: ServerHead[] = [
  { type: 'event', after: 0, upto: 0 },
  { type: 'presence', devices: [] },
  { type: 'pong', t: 1 },
]
const EVENT: ServerHead = { type: 'event', after: 0, upto: 0 }

function createWorld() {
  const clock = createTestClock()
  const server = createScriptedServer()
  const world = {
    clock,
    server,
    messages: [] as SessionMessage['head']['type'][],
    stopped: [] as string[],
    checks: [] as string[],
    congested: false,
    onMessage: (): void => undefined,
    check: (): 'connect' | 'later' => 'connect',
  }
  const connection: Connection = createConnection({
    crypto: nodeCrypto,
    clock,
    transport: server,
    identity: () => identity,
    heard: () => undefined,
    authBody: () =>
      Promise.resolve({
        user_id: identity.user_id,
        device_id: identity.device_id,
        log_seq: 0,
        log_head: identity.user_id,
        cursor: { position: 0, event_id: null, received_at: null, history_id: null },
        last_device_seq: 0,
        features: [],
        client: { name: 'test', version: '1' },
      }),
    established: () => ({ behind: false }),
    begin: () => undefined,
    message(message) {
      world.messages.push(message.head.type)
      world.onMessage()
    },
    ended: () => undefined,
    check: (why) => {
      world.checks.push(why)
      return Promise.resolve(world.check())
    },
    stateChanged: () => undefined,
    stopped: (code) => world.stopped.push(code),
    congested: () => world.congested,
  })
  return { world, connection, server, clock }
}

async function live() {
  const made = createWorld()
  made.connection.start()
  await turn()
  expect(made.connection.last_error).toBeNull()
  expect(made.connection.state).toBe('live')
  return made
}

describe('the connection', () => {
  it('before the session stands only the entries that revoke this device are legal', async () => {
    for (const head of EARLY) {
      const { world, connection, server } = createWorld()
      server.onAuth = (session) => session.send(head)
      connection.start()
      await turn()
      expect(world.messages).toEqual([])
      expect(server.last.closed).toBe(CLOSE.bad_frame.code)
      connection.end()
    }
    const { world, connection, server } = createWorld()
    const entry = { type: 'log_entry', body: 'AA', sig: 'A'.repeat(86), box: null } as const
    server.onAuth = (session) => session.send(entry)
    connection.start()
    await turn()
    expect(world.messages).toEqual(['log_entry'])
    expect(server.last.closed).toBeNull()
    connection.end()
  })

  it('the first frame of new keys establishes them for this session, anything else ends it', async () => {
    const wrong: ((session: { sendNew(head: ServerHead): void }) => void)[] = [
      (session) => session.sendNew(EVENT),
      (session) => session.sendNew({ type: 'session_established', session_id: 'another', gen: 1, rekey_after_s: 9, rekey_after_frames: 9 }),
    ]
    for (const send of wrong) {
      const { world, server, connection } = await live()
      server.last.send({ type: 'rekey_required', reason: 'age', deadline_s: 30 })
      await turn()
      await server.last.answerRekey()
      await turn()
      send(server.last)
      await turn()
      expect(world.messages).toEqual([])
      expect(server.last.closed).toBe(CLOSE.bad_frame.code)
      connection.end()
    }
    const { server, connection, world } = await live()
    server.last.send({ type: 'rekey_required', reason: 'age', deadline_s: 30 })
    await turn()
    await server.last.answerRekey()
    await turn()
    // what was sealed under the old keys before is still read, but does not establish the new ones
    server.last.send(EVENT)
    server.last.sendNew({ type: 'session_established', session_id: 'session-1', gen: 1, rekey_after_s: 9_999, rekey_after_frames: 999_999 })
    server.last.sendNew(EVENT)
    await turn()
    expect(world.messages).toEqual(['event', 'event'])
    expect(server.last.closed).toBeNull()
    connection.end()
  })

  it('a close is heard after the frames before it were read, once, and also while one of them is being read', async () => {
    const { world, server, connection } = await live()
    for (let i = 0; i < 3; i++) server.last.send(EVENT)
    server.last.close(CLOSE.superseded.code)
    await turn()
    expect(world.messages).toEqual(['event', 'event', 'event'])
    expect(world.stopped).toEqual(['superseded'])

    const amid = await live()
    amid.world.onMessage = () => amid.server.last.close(CLOSE.superseded.code)
    amid.server.last.send(EVENT)
    await turn()
    expect(amid.world.stopped).toEqual(['superseded'])
    connection.end()
    amid.connection.end()
  })

  it('old keys cannot establish new ones', async () => {
    const { server, connection } = await live()
    server.last.send({ type: 'rekey_required', reason: 'age', deadline_s: 30 })
    await turn()
    await server.last.answerRekey()
    await turn()
    server.last.send({ type: 'session_established', session_id: 'session-1', gen: 0, rekey_after_s: 9_999, rekey_after_frames: 999_999 })
    await turn()
    expect(server.last.closed).toBe(CLOSE.bad_frame.code)
    connection.end()
  })

  it('another server key is looked into once; when it is still another one, that is the end', async () => {
    const { world, server, connection } = createWorld()
    server.seed = new Uint8Array(32).fill(9)
    connection.start()
    await turn()
    expect(world.checks).toEqual(['identity'])
    expect(world.stopped).toEqual(['server_identity'])
    expect(server.sessions).toHaveLength(2)
  })

  it('a failure on this side ends it, a wrong message of the server does not (exit codes 74 and 70)', async () => {
    const { SealpostError } = await import('@sealpost/protocol')
    for (const [error, stopped, closed] of [
      [new SealpostError('disk', 'full'), ['disk'], 1000],
      [new Error('a bug'), ['internal'], 1000],
      [new SealpostError('invalid_message', 'no'), [], CLOSE.bad_frame.code],
      [new SealpostError('invalid_encoding', 'no'), [], CLOSE.bad_frame.code],
      [new SealpostError('log_withheld', 'no'), [], 1000],
    ] as const) {
      const { world, server, connection } = await live()
      connection.fault(error)
      await turn()
      expect(world.stopped, String(error)).toEqual(stopped)
      expect(server.last.closed).toBe(closed)
      connection.end()
    }
  })

  it('does not take its own pause for a dead server', async () => {
    const { world, server, connection, clock } = await live()
    world.congested = true
    server.last.send(EVENT)
    await turn()
    expect(server.last.paused).toBe(true)
    clock.advance(26_000)
    clock.advance(11_000)
    clock.advance(26_000)
    clock.advance(11_000)
    expect(server.last.closed).toBeNull()
    world.congested = false
    connection.relieve()
    expect(server.last.paused).toBe(false)
    clock.advance(26_000)
    clock.advance(11_000)
    expect(server.last.closed).toBe(CLOSE.timeout.code)
    connection.end()
  })
})
